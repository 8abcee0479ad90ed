//! What must be true of a hub's books at every moment (docs/protocols/spn.md, Invariants: I6, I9, I11).

use std::collections::BTreeMap;

use super::Exchange;
use crate::{
    quic::Handle,
    spn::{
        Role, Side,
        hub::{binding::link::control::UNREAD, config::Limits},
    },
};

/// Whether every book agrees with the others, and keeps to its bound. It looks at everything there is.
///
/// # Errors
/// Says what is wrong.
pub(crate) fn check(exchange: &Exchange, limits: &Limits) -> Result<(), String> {
    connections_agree(exchange)?;
    requests_agree(exchange, limits)?;
    services_agree(exchange)?;
    memory_is_bounded(exchange, limits)
}

fn connections_agree(Exchange { links, connections, .. }: &Exchange) -> Result<(), String> {
    let agrees = |(key, id)| connections.get(id).is_some_and(|connection| connection.key() == key);
    let keys = connections.keys().count();
    if keys != connections.len() || !connections.keys().all(agrees) {
        return Err(format!("{keys} keys for {} connections", connections.len()));
    }
    for (session, link) in links.iter() {
        let is_its = |id: &u64| {
            let leg = connections.get(*id).and_then(|connection| connection.leg(link.party.side()));
            leg.is_some_and(|leg| leg.session == session)
        };
        if !link.connections().iter().all(is_its) {
            return Err(format!("{session:?} has connections that are not its own"));
        }
        let waits = |id: &u64| connections.get(*id).is_some_and(|connection| connection.machine().is_waiting());
        if !link.legs().iter().all(waits) {
            return Err(format!("{session:?}: legs are noted as waiting that do not wait"));
        }
    }
    Ok(())
}

fn requests_agree(Exchange { links, connections, pairings, .. }: &Exchange, limits: &Limits) -> Result<(), String> {
    let most = limits.connections_per_session as usize;
    let mut requests = 0;
    for (session, link) in links.iter() {
        requests += link.requests().len();
        if link.requests().len() > most || link.party.role == Role::Consumer && link.connections().len() > most {
            return Err(format!("{session:?} has more than {most} connections, or requests to resume"));
        }
        if !link.requests().is_empty() && !link.requests().is_reminded() {
            return Err(format!("{session:?} has requests to resume, and no time is set at which they expire"));
        }
    }
    let mut parked = 0;
    for (key, is_carried, sessions) in pairings.iter() {
        parked += sessions.len();
        if is_carried != connections.contains_key(key) {
            return Err(format!("{key:?}: its requests to resume have noted that a leg is here: {is_carried}"));
        }
        let knows = |session: Handle| links.get(session).is_some_and(|link| link.requests().contains(key));
        if !sessions.into_iter().map(Handle::from).all(knows) {
            return Err(format!("{key:?} has a request to resume of which its session does not know"));
        }
    }
    if requests != parked {
        return Err(format!("{parked} requests to resume, of which sessions know {requests}"));
    }
    Ok(())
}

fn services_agree(Exchange { connections, services, .. }: &Exchange) -> Result<(), String> {
    let mut open = BTreeMap::<Handle, u32>::new();
    for leg in connections.iter().filter_map(|(_, connection)| connection.leg(Side::Provider)) {
        *open.entry(leg.session).or_default() += 1;
    }
    for entry in services.entries() {
        let waits = |id| connections.get(id).is_some_and(|connection| connection.machine().is_choosing());
        if !entry.waiting().all(waits) {
            return Err(format!("{}: connections are noted as waiting that do not wait", entry.urn()));
        }
        for (session, noted) in entry.roster().open() {
            let counted = open.get(&session).copied().unwrap_or_default();
            if noted != counted {
                return Err(format!("{session:?} has {counted} connections, not {noted}"));
            }
        }
    }
    Ok(())
}

fn memory_is_bounded(Exchange { links, .. }: &Exchange, limits: &Limits) -> Result<(), String> {
    let budget = links.budget();
    let parked = links.iter().map(|(_, link)| link.windows().parked()).sum::<u64>();
    let grown = links.iter().map(|(_, link)| link.windows().grown()).sum::<u64>();
    if grown != budget.grown() || grown > limits.relay_memory / 2 {
        return Err(format!("windows have grown by {grown} bytes, booked {}", budget.grown()));
    }
    if parked != budget.parked() || parked > limits.relay_memory {
        return Err(format!("windows of stalled streams: {parked} bytes, booked {}", budget.parked()));
    }
    // The last one in may be a whole frame, or an answer to all requests.
    let most = limits.control_backlog.saturating_mul(UNREAD + 1);
    for (session, link) in links.iter().filter(|(_, link)| !link.machine().is_over()) {
        let backlog = link.control().backlog();
        if backlog > most {
            return Err(format!("{session:?}: {backlog} bytes of control frames wait, more than {most}"));
        }
    }
    Ok(())
}
