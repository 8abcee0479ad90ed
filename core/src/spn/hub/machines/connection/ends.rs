//! How a connection on a hub is closed, left, paused and ended, and what each end is sent (docs/protocols/spn.md, Hub connection, HBC-6 to HBC-12).

use std::time::Instant;

use super::{Action, Close, Flow, HubConnection, Loss, Pause, Sides, State, Timer};
use crate::spn::{Side, record::DisconnectReason, wire::code::StreamCode};

impl HubConnection {
    pub(super) fn close_req(&mut self, now: Instant, flow: Flow, side: Side, code: StreamCode, askable: bool) -> State {
        if !askable {
            return self.close(flow, code);
        }
        self.parts.timers.set_after(Timer::Closing, now, self.config.closing);
        self.parts.act(Action::SendCloseReq { to: side.other(), code });
        State::Closing(Close { flow, asked_by: side, code })
    }

    /// CLOSE_REQ has been answered: the provider's stream ends first, then the consumer's.
    pub(super) fn close(&mut self, flow: Flow, code: StreamCode) -> State {
        for to in [Side::Provider, Side::Consumer] {
            if code != StreamCode::OK {
                self.abort(flow, to, code);
            } else if !flow.over.has(to.other()) {
                self.parts.act(Action::Finish { to });
            }
        }
        self.end(Some(if code == StreamCode::OK { DisconnectReason::Closed } else { DisconnectReason::ClosedByPeer }))
    }

    /// The asked side has gone away without an answer.
    pub(super) fn leave_closing(&mut self, flow: Flow, asked_by: Side) -> State {
        self.abort(flow, asked_by, StreamCode::PAUSED);
        self.parts.act(Action::SendCloseAck { to: asked_by });
        self.end(Some(DisconnectReason::Error))
    }

    /// This side has left its stream, and the other is to wait for the next one.
    pub(super) fn left(&mut self, now: Instant, flow: Flow, side: Side, reason: DisconnectReason) -> State {
        if side == Side::Consumer && !flow.answered {
            // A reset could destroy the preamble on its way, and the provider would never know which connection it was.
            self.parts.act(Action::SendPauseReq { to: Side::Provider });
            return self.pause(now, Pause { flow, answered: Sides::only(side), gone: Some(side), reason });
        }
        self.notify(flow, side.other(), StreamCode::PAUSED);
        self.end(Some(reason))
    }

    /// PAUSE_REQ is out.
    pub(super) fn pause(&mut self, now: Instant, pause: Pause) -> State {
        self.parts.timers.set_after(Timer::Pausing, now, self.config.pausing);
        State::Pausing(pause)
    }

    /// Nothing is written to the streams any more.
    pub(super) fn paused(&mut self, flow: Flow, gone: Option<Side>, reason: DisconnectReason) -> State {
        for side in [Side::Provider, Side::Consumer] {
            if gone != Some(side) {
                self.abort(flow, side, StreamCode::PAUSED);
            }
        }
        self.end(Some(reason))
    }

    /// The provider never saw it, or is assumed not to have seen it: the consumer may try another one.
    pub(super) fn never_had(&mut self, flow: Flow, reason: DisconnectReason) -> State {
        self.notify(flow, Side::Consumer, StreamCode::NOT_STARTED);
        self.end(Some(reason))
    }

    /// A session is gone, and the connection with it.
    pub(super) fn lost(&mut self, flow: Flow, side: Side, loss: Loss) -> State {
        let code = if loss == Loss::Unstarted { StreamCode::NOT_STARTED } else { StreamCode::PARTNER_LOST };
        self.notify(flow, side.other(), code);
        self.end(Some(DisconnectReason::Error))
    }

    /// There is no provider's stream yet.
    pub(super) fn end_consumer(&mut self, code: StreamCode) -> State {
        self.abort(Flow::default(), Side::Consumer, code);
        self.end(None)
    }

    pub(super) fn end_both(&mut self, flow: Flow, code: StreamCode, reason: DisconnectReason) -> State {
        self.abort(flow, Side::Provider, code);
        self.abort(flow, Side::Consumer, code);
        self.end(Some(reason))
    }

    /// Aborts what is not over yet of the stream to this side, and makes sure that it is informed: STOP_SENDING for a direction that has come
    /// in whole, but could not be passed on, does not reach its source otherwise.
    pub(super) fn notify(&mut self, flow: Flow, to: Side, code: StreamCode) {
        self.abort(flow, to, code);
        if self.resumable && flow.over.has(to.other()) {
            self.parts.act(match code {
                StreamCode::PAUSED => Action::SendPauseReq { to },
                code => Action::SendCloseReq { to, code },
            });
        }
    }

    /// Aborts what is not over yet of the stream to this side.
    pub(super) fn abort(&mut self, flow: Flow, to: Side, code: StreamCode) {
        if !flow.over.has(to.other()) {
            self.parts.act(Action::Abort { to, code });
        }
        if !flow.over.has(to) {
            self.parts.act(Action::StopSending { to, code });
        }
    }

    pub(super) fn end(&mut self, reason: Option<DisconnectReason>) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::End { reason });
        State::Ended
    }
}

/// The code of a connection that one end has given up, whichever code it used.
pub(super) fn aborted(code: StreamCode) -> StreamCode {
    if code == StreamCode::OK { StreamCode::PEER_ABORTED } else { code }
}
