//! What must be true of a hub's books at every moment (docs/protocols/spn.md, Invariants: I6, I9, I11).

use std::collections::BTreeMap;

use crate::{
    quic::Handle,
    spn::{
        ConnKey, Role, Side,
        hub::{Hub, binding::link::UNREAD},
    },
};

impl Hub {
    /// For tests, fuzzers and simulators: whether every book agrees with the others, and keeps to its bound. It looks at everything there is.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_connections()?;
        self.check_requests()?;
        self.check_services()?;
        self.check_memory()
    }

    fn check_connections(&self) -> Result<(), String> {
        let agrees =
            |(key, id): (&ConnKey, &u64)| self.connections.get(id).is_some_and(|connection| connection.key() == *key);
        if self.keys.len() != self.connections.len() || !self.keys.iter().all(agrees) {
            return Err(format!("{} keys for {} connections", self.keys.len(), self.connections.len()));
        }
        for (handle, session) in &self.sessions {
            let is_its = |id: &u64| {
                let leg = self.connections.get(id).and_then(|connection| connection.leg(session.side()));
                leg.is_some_and(|leg| leg.session == *handle)
            };
            if !session.connections.iter().all(is_its) {
                return Err(format!("{handle:?} has connections that are not its own"));
            }
            let waits = |id: &u64| self.connections.get(id).is_some_and(|connection| connection.machine.is_waiting());
            if !session.legs.iter().all(waits) {
                return Err(format!("{handle:?}: legs are waited for that do not wait"));
            }
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), String> {
        let most = self.config.limits.connections_per_session as usize;
        let mut requests = 0;
        for (handle, session) in &self.sessions {
            requests += session.parked.len();
            if session.parked.len() > most || session.role == Role::Consumer && session.connections.len() > most {
                return Err(format!("{handle:?} has more than {most} connections, or requests to resume"));
            }
            if !session.parked.is_empty() && !session.parked_reminded {
                return Err(format!(
                    "{handle:?} has requests to resume, and nobody looks when they have waited too long"
                ));
            }
        }
        let mut parked = 0;
        for (key, is_carried, sessions) in self.pairings.iter() {
            parked += sessions.len();
            if is_carried != self.keys.contains_key(&key) {
                return Err(format!("{key:?}: its requests to resume believe that a leg is here: {is_carried}"));
            }
            let knows = |handle: Handle| self.sessions.get(&handle).is_some_and(|it| it.parked.contains(&key));
            if !sessions.into_iter().map(Handle::from).all(knows) {
                return Err(format!("{key:?} has a request to resume of which its session does not know"));
            }
        }
        if requests != parked {
            return Err(format!("{parked} requests to resume, of which sessions know {requests}"));
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), String> {
        let mut open = BTreeMap::<Handle, u32>::new();
        for leg in self.connections.values().filter_map(|connection| connection.leg(Side::Provider)) {
            *open.entry(leg.session).or_default() += 1;
        }
        for entry in self.registry.entries() {
            let waits = |id| self.connections.get(id).is_some_and(|connection| connection.machine.is_choosing());
            if !entry.choosing.iter().all(waits) {
                return Err(format!("{}: connections are waited for that do not wait", entry.urn));
            }
            for provider in &entry.providers {
                let counted = open.get(&provider.session).copied().unwrap_or_default();
                if provider.open != counted {
                    return Err(format!("{:?} has {counted} connections, not {}", provider.session, provider.open));
                }
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), String> {
        let limits = &self.config.limits;
        let parked = self.sessions.values().map(|session| session.windows.parked()).sum::<u64>();
        let grown = self.sessions.values().map(|session| session.windows.grown()).sum::<u64>();
        if grown != self.budget.grown() || grown > limits.relay_memory / 2 {
            return Err(format!("windows have grown by {grown} bytes, booked {}", self.budget.grown()));
        }
        if parked != self.budget.parked() || parked > limits.relay_memory {
            return Err(format!("windows of stalled streams: {parked} bytes, booked {}", self.budget.parked()));
        }
        // The last one in may be a whole frame, or an answer to all requests.
        let most = limits.control_backlog.saturating_mul(UNREAD + 1);
        for (handle, session) in self.sessions.iter().filter(|(_, session)| !session.machine.is_over()) {
            let backlog = session.control.as_ref().map_or(0, crate::spn::wire::control::Control::backlog);
            if backlog > most {
                return Err(format!("{handle:?}: {backlog} bytes of control frames wait, more than {most}"));
            }
        }
        Ok(())
    }
}
