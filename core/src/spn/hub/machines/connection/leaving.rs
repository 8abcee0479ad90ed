//! The states of a connection that is on its way out: its streams are being paused, have ended, or are to end (docs/protocols/spn.md, Hub
//! connection, HBC-8 to HBC-12).

use std::time::Instant;

use super::{Action, Event, Flow, HubConnection, Loss, Sides, State, ends::aborted};
use crate::spn::{Side, record::DisconnectReason, wire::code::StreamCode};

/// A connection whose ends are to leave its streams: PAUSE_REQ is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    pub(super) flow: Flow,
    /// Which sides have answered, or left the stream.
    pub(super) answered: Sides,
    /// Which side's stream is gone.
    pub(super) gone: Option<Side>,
    pub(super) reason: DisconnectReason,
}

/// A connection of which one end has asked for the end of both directions; the other has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    pub(super) flow: Flow,
    pub(super) asked_by: Side,
    pub(super) code: StreamCode,
}

impl HubConnection {
    pub(super) fn pausing(&mut self, now: Instant, event: Event, pause: Pause) -> State {
        let Pause { flow, answered, gone, reason } = pause;
        match event {
            Event::PauseAck { side }
            | Event::ResumeReq { side }
            | Event::Reset { side, code: StreamCode::PAUSED }
            | Event::Stop { side, code: StreamCode::PAUSED } => {
                self.answered(Pause { answered: answered.with(side), ..pause })
            }
            Event::Fin { side } if gone.is_none() => {
                let flow = self.pass_fin(flow, side);
                self.passed_in_pause(Pause { flow, ..pause })
            }
            Event::Reset { side, code } if gone.is_none() => {
                let flow = self.pass_reset(flow, side, code);
                self.passed_in_pause(Pause { flow, ..pause })
            }
            Event::Stop { side, code } if gone.is_none() => {
                let flow = self.pass_stop(flow, side, code);
                self.passed_in_pause(Pause { flow, ..pause })
            }
            Event::Reported { side } => {
                let flow = Flow { reported: flow.reported.with(side), ..flow };
                self.passed_in_pause(Pause { flow, ..pause })
            }
            Event::SessionLost { side, .. } if gone == Some(side.other()) => self.end(Some(reason)),
            Event::SessionLost { side, loss: Loss::Away | Loss::Unstarted } => {
                self.answered(Pause { answered: answered.with(side), gone: Some(side), ..pause })
            }
            // It would have answered PAUSE_REQ if it knew the connection, and now it takes no stream any more.
            Event::SessionLost { side: Side::Provider, loss: Loss::Drained }
                if self.resumable && !flow.answered && !answered.provider =>
            {
                self.never_had(flow, reason)
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            Event::Answered => State::Pausing(Pause { flow: Flow { answered: true, ..flow }, ..pause }),
            Event::CloseReq { side, code, .. } if gone == Some(side.other()) => {
                // The partner is not here: the end that asks has to report it itself.
                self.parts.act(Action::SendCloseAck { to: side });
                self.abort(flow, side, aborted(code));
                self.end(Some(DisconnectReason::ClosedByPeer))
            }
            Event::CloseReq { side, code, .. } if gone == Some(side) => {
                self.parts.act(Action::SendCloseReq { to: side.other(), code });
                self.parts.act(Action::SendCloseAck { to: side });
                self.abort(flow, side.other(), aborted(code));
                self.end(Some(DisconnectReason::ClosedByPeer))
            }
            Event::CloseReq { side, code, askable } => {
                self.parts.timers.stop_all();
                self.close_req(now, flow, side, code, askable)
            }
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::Superseded => self.parts.ignore(State::Pausing(pause)),
        }
    }

    /// One side more may have left its stream.
    fn answered(&mut self, pause: Pause) -> State {
        if pause.answered.both() {
            return self.paused(pause.flow, pause.gone, pause.reason);
        }
        State::Pausing(pause)
    }

    /// The report that has just passed may have been the last.
    fn passed_in_pause(&mut self, pause: Pause) -> State {
        if pause.flow.over.both() && self.is_reported(pause.flow) {
            return self.end(Some(pause.flow.reason()));
        }
        State::Pausing(pause)
    }

    pub(super) fn finishing(&mut self, event: Event, reported: Sides) -> State {
        match event {
            Event::Reported { side } => {
                let reported = reported.with(side);
                if reported.both() { self.end(None) } else { State::Finishing { reported } }
            }
            Event::SessionLost { side, loss: Loss::Left | Loss::Drained } => {
                self.parts.act(Action::SendCloseReq { to: side.other(), code: StreamCode::PARTNER_LOST });
                self.end(None)
            }
            // There is no stream left to reset.
            Event::SessionLost { side, loss: Loss::Away | Loss::Unstarted } | Event::ResumeReq { side } => {
                self.parts.act(Action::SendPauseReq { to: side.other() });
                self.end(None)
            }
            Event::PauseWanted => {
                for to in [Side::Provider, Side::Consumer] {
                    self.parts.act(Action::SendPauseReq { to });
                }
                self.end(None)
            }
            Event::CloseReq { side, code, .. } => {
                self.parts.act(Action::SendCloseReq { to: side.other(), code });
                self.parts.act(Action::SendCloseAck { to: side });
                self.end(None)
            }
            Event::Superseded => self.end(None),
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Answered
            | Event::Fin { .. }
            | Event::Reset { .. }
            | Event::Stop { .. }
            | Event::CloseAck { .. }
            | Event::PauseAck { .. } => self.parts.ignore(State::Finishing { reported }),
        }
    }

    pub(super) fn closing(&mut self, event: Event, close: Close) -> State {
        let Close { flow, asked_by, code } = close;
        match event {
            Event::CloseAck { side } if side != asked_by => self.close(flow, code),
            Event::CloseReq { side, .. } => {
                self.parts.act(Action::SendCloseAck { to: side });
                State::Closing(close)
            }
            // The partner has not been informed of the end, and will ask for the next stream: after CLOSE_ACK the end that asked reports it there.
            Event::Reset { side, code: StreamCode::PAUSED } | Event::Stop { side, code: StreamCode::PAUSED }
                if self.resumable && side != asked_by =>
            {
                self.abort(flow, side, StreamCode::PAUSED);
                self.leave_closing(flow, asked_by)
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable && side != asked_by => {
                self.leave_closing(flow, asked_by)
            }
            Event::SessionLost { side, loss: Loss::Away } if self.resumable => {
                self.abort(flow, side.other(), aborted(code));
                self.end(Some(DisconnectReason::Error))
            }
            Event::SessionLost { side, loss } => self.lost(flow, side, loss),
            Event::Fin { side } => {
                let flow = self.pass_fin(flow, side);
                self.passed_in_close(Close { flow, ..close })
            }
            Event::Reset { side, code } => {
                let flow = self.pass_reset(flow, side, code);
                self.passed_in_close(Close { flow, ..close })
            }
            Event::Stop { side, code } => {
                let flow = self.pass_stop(flow, side, code);
                self.passed_in_close(Close { flow, ..close })
            }
            Event::ResumeReq { side } if self.resumable => {
                self.parts.act(Action::RefuseResume { to: side, code: aborted(code) });
                self.end_both(flow, aborted(code), DisconnectReason::ClosedByPeer)
            }
            Event::ConnectStream
            | Event::ProviderChosen { .. }
            | Event::ResumeStream
            | Event::ResumeWaits
            | Event::NoneAvailable
            | Event::ProviderSilent
            | Event::Answered
            | Event::Reported { .. }
            | Event::CloseAck { .. }
            | Event::PauseWanted
            | Event::PauseAck { .. }
            | Event::ResumeReq { .. }
            | Event::Superseded => self.parts.ignore(State::Closing(close)),
        }
    }

    /// The report that has just passed may have been the last.
    fn passed_in_close(&mut self, close: Close) -> State {
        if close.flow.over.both() { self.end(Some(close.flow.reason())) } else { State::Closing(close) }
    }
}
