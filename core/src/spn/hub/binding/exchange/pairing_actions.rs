//! What the hub does for connections that outlive their streams: requests to resume, the next leg, and reports between the ends
//! (docs/protocols/spn.md, Pause and resume, RES-25 to RES-35). It keeps no payload, and nothing that a restarted hub would miss.
//!
//! The [machine](pairing) of a connection decides; here its actions are carried out.

use super::Exchange;
use crate::{
    quic::Handle,
    spn::{
        ConnKey,
        hub::{
            binding::conn::{Origin, relay::Leg},
            context::Context,
            machines::{
                connection,
                pairing::{self, Action, Event},
            },
        },
        wire::{
            code::StreamCode,
            frame::Flags,
            frame::{Frame, ResumeAck},
            preamble::Preamble,
        },
    },
};

/// A consumer's stream that begins with RESUME.
pub(crate) struct Offered {
    pub(crate) leg: Leg,
    pub(crate) generation: u64,
    pub(crate) preamble: Preamble,
}

impl Exchange {
    /// A consumer's stream begins with CONNECT of a connection that is known. Returns the code that refuses it.
    pub(super) fn refuse_connect(&mut self, cx: &mut Context<'_>, session: Handle, key: ConnKey) -> StreamCode {
        let Some(link) = self.links.get(session) else { return StreamCode::NOT_ENTITLED };
        let (end, admission) =
            (link.party.end(), self.connections.admission(&self.links, self.is_listening, session, key));
        let event = Event::ConnectStream { session: session.into(), end, admission };
        self.decide_stream(cx, key, event, None).err().unwrap_or(StreamCode::CONN_IN_USE)
    }

    /// A consumer's stream asks for a connection. Returns the connection that it is now, or the code that refuses it.
    pub(crate) fn decide_stream(
        &mut self,
        cx: &mut Context<'_>,
        key: ConnKey,
        event: Event,
        offered: Option<&Offered>,
    ) -> Result<u64, StreamCode> {
        let mut decision = Err(StreamCode::INTERNAL);
        for action in self.begin(cx, key, event) {
            decision = self.perform_pairing_action(cx, key, action, offered).unwrap_or(decision);
        }
        decision
    }

    // ---- the machine ----

    /// An event that may be the first of a connection's requests.
    pub(crate) fn begin_pairing(&mut self, cx: &mut Context<'_>, key: ConnKey, event: Event) {
        let actions = self.begin(cx, key, event);
        self.perform_pairing(cx, key, actions);
    }

    fn begin(&mut self, cx: &Context<'_>, key: ConnKey, event: Event) -> Vec<Action> {
        let config = pairing::Config { resume_wait: cx.config.resume_wait() };
        let leg = self.connections.by_key(key).map(|leg| leg.generation());
        self.pairings.begin(cx.now, key, (config, leg), event)
    }

    /// An event that matters only if the connection has requests.
    pub(crate) fn pairing_event(&mut self, cx: &mut Context<'_>, key: ConnKey, event: Event) {
        let actions = self.pairings.on(cx.now, key, event);
        self.perform_pairing(cx, key, actions);
    }

    pub(crate) fn each_pairing_event(&mut self, cx: &mut Context<'_>, event: &Event) {
        for key in self.pairings.keys() {
            self.pairing_event(cx, key, event.clone());
        }
    }

    pub(crate) fn perform_pairing(&mut self, cx: &mut Context<'_>, key: ConnKey, actions: Vec<Action>) {
        for action in actions {
            // Without a stream there is nothing to open or to refuse.
            let _ = self.perform_pairing_action(cx, key, action, None);
        }
    }

    /// Performs an action. If it decides on a stream, returns the connection that this is now, or the code that refuses it.
    fn perform_pairing_action(
        &mut self,
        cx: &mut Context<'_>,
        key: ConnKey,
        action: Action,
        offered: Option<&Offered>,
    ) -> Option<Result<u64, StreamCode>> {
        match action {
            Action::Park { session } => self.links.park(cx, session.into(), key),
            Action::Unpark { sessions } => self.links.unpark(sessions.into_iter().map(Handle::from), key),
            Action::Answer { session, status, generation, received, flags } => {
                let ack = ResumeAck { conn: key, status, generation, received, flags };
                self.links.send_latest(cx, session.into(), key, Frame::ResumeAck(ack));
            }
            Action::Refuse { sessions, code } => {
                sessions
                    .into_iter()
                    .for_each(|session| self.links.refuse_resume(session.into(), key, code, Flags::NONE));
            }
            Action::LoseLeg { side } => self.leg_event(cx, key, connection::Event::ResumeReq { side }),
            Action::SupersedeLeg => self.leg_event(cx, key, connection::Event::Superseded),
            Action::OpenLeg { provider } => {
                let Offered { leg, generation, preamble } = offered?;
                let origin = Origin::Resumed { generation: *generation, preamble: preamble.clone() };
                let opened = self.add_leg(cx, *leg, provider.into(), (key, origin));
                if opened.is_err() {
                    self.pairing_event(cx, key, Event::LegRefused { generation: *generation });
                }
                return Some(opened);
            }
            Action::RefuseStream { code } => return Some(Err(code)),
            Action::SendCloseReq { session, code } => {
                self.links.send_latest(cx, session.into(), key, Frame::CloseReq { conn: key, code });
            }
            Action::SendCloseAck { session } => self.links.send(session.into(), &Frame::CloseAck { conn: key }),
            Action::SendSeek { provider } => {
                let provider = provider.into();
                if let Some(instance) = self.links.get(provider).map(|link| link.party.instance) {
                    self.links.send(provider, &Frame::Seek { conn: key, instance });
                }
            }
            Action::SendAbsent { consumers, provider } => {
                if let Some(instance) = self.links.get(provider.into()).map(|link| link.party.instance) {
                    let absent = Frame::Absent { conn: key, instance };
                    consumers.into_iter().for_each(|consumer| self.links.send(consumer.into(), &absent));
                }
            }
            // The machine is gone already.
            Action::End => {}
        }
        None
    }

    fn leg_event(&mut self, cx: &mut Context<'_>, key: ConnKey, event: connection::Event) {
        if let Some(id) = self.connections.id(key) {
            self.connection_event(cx, id, event);
        }
    }
}
