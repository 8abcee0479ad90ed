//! The signs of life of one session's hub: who looks for them, and what waits for them.

use std::time::Instant;

use crate::{
    quic::Handle,
    spn::endpoint::{
        carrier::LinkId,
        policy::{
            silence::{Look, Sight, Silence},
            standstill::Hold,
        },
        ports::{Due, Ports},
    },
};

/// What is known of the hub's signs of life on a session's QUIC connection.
pub(in crate::spn::endpoint) struct Signs {
    link: LinkId,
    handle: Handle,
    silence: Silence,
    /// New streams wait: the endpoint stood still.
    hold: Option<Hold>,
}

impl Signs {
    pub(super) fn new(link: LinkId, handle: Handle) -> Self {
        Self { link, handle, silence: Silence::default(), hold: None }
    }

    /// From now on silence is looked for.
    pub(super) fn listen(&mut self, now: Instant, ports: &mut Ports) {
        if let Some(at) = self.silence.begin(now, || ports.quic.received_datagrams(self.handle)) {
            ports.remind(at, Due::Silence(self.link));
        }
    }

    /// Looks whether the hub has said anything; `sight` is what is known beside the number of its datagrams.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, sight: impl FnOnce(u64) -> Sight, ports: &mut Ports) {
        if !self.silence.is_looked_for() {
            return;
        }
        let sight = sight(ports.quic.received_datagrams(self.handle));
        if let Look::Again { at, asks } = self.silence.look(now, sight) {
            if asks {
                ports.quic.ping(self.handle);
            }
            ports.remind(at, Due::Silence(self.link));
        }
    }

    /// Whether new streams wait.
    pub(super) fn is_on_hold(&self) -> bool {
        self.hold.is_some()
    }

    /// The endpoint stood still: new streams wait until the hub is heard.
    pub(super) fn hold(&mut self, now: Instant, ports: &mut Ports) {
        let (hold, at) = Hold::begin(now, ports.quic.rtt(self.handle));
        self.hold = Some(hold);
        self.ask(at, ports);
    }

    /// Looks whether the hub was heard. Says whether the wait is over.
    pub(in crate::spn::endpoint) fn look_at_hold(&mut self, now: Instant, ports: &mut Ports) -> bool {
        let Some(hold) = &mut self.hold else { return false };
        let again = hold.look(now, ports.quic.received_datagrams(self.handle));
        match again {
            Some(at) => self.ask(at, ports),
            None => self.hold = None,
        }
        again.is_none()
    }

    /// Asks the hub to say something, and looks at that time whether it has.
    fn ask(&self, at: Instant, ports: &mut Ports) {
        ports.quic.ping(self.handle);
        ports.remind(at, Due::Hold(self.link, self.handle));
    }
}
