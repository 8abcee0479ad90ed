//! The sessions of an endpoint: one [`Link`] for each address of the hub, with its machine, and the QUIC connection of the present try.

mod frames;
mod reserve;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub(in crate::spn::endpoint) use self::frames::Request;
use super::{Link, addresses::Addresses, turns::Turns, wire::Wire};
use crate::{
    quic::{CloseReason, Handle},
    spn::{
        Protocol, Role,
        endpoint::{
            carrier::{Carrier, LinkId},
            config::{ConnId, Notice},
            machines::session::{Action, Event, Session},
            ports::{Due, Ports},
            setup::Setup,
        },
        wire::{code::SessionCode, frame::Frame},
    },
};

/// All sessions, and the addresses that want one.
pub(in crate::spn::endpoint) struct Links {
    role: Role,
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
    by_handle: BTreeMap<Handle, LinkId>,
    addresses: Addresses,
    turns: Turns,
}

/// What a session wants of the whole endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Wish {
    /// It is there; `standby`: not for new connections.
    Established { standby: bool },
    /// The connections that can go on elsewhere are to leave it.
    MoveAway,
    /// The connections on it have lost it.
    SessionLost,
    /// It is over; `again`: another one may follow at once.
    Ended { again: bool },
}

/// A session that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) struct Ended {
    pub(in crate::spn::endpoint) remote: SocketAddr,
    /// When its last try began.
    pub(in crate::spn::endpoint) begun: Instant,
}

impl Links {
    /// No session, of an endpoint of that role.
    pub(in crate::spn::endpoint) fn new(role: Role) -> Self {
        Self {
            role,
            links: BTreeMap::new(),
            next: 0,
            by_handle: BTreeMap::new(),
            addresses: Addresses::default(),
            turns: Turns::default(),
        }
    }

    /// The addresses that the hub's name has now; the first `most` count. The sessions with other addresses are to end.
    pub(in crate::spn::endpoint) fn list(&mut self, addresses: &[SocketAddr], most: usize, ports: &mut Ports) {
        if let Some(count) = self.addresses.set(addresses, most) {
            let what = format!("{count} addresses: only {most} are used");
            ports.notify(Notice::Limit { what });
        }
        for (id, link) in &self.links {
            if !self.addresses.has(&link.remote) {
                ports.post_link(*id, Event::AddressLost);
            }
        }
    }

    pub(in crate::spn::endpoint) fn is_listed(&self, remote: &SocketAddr) -> bool {
        self.addresses.has(remote)
    }

    /// The listed addresses that have no session.
    pub(in crate::spn::endpoint) fn missing(&self) -> Vec<SocketAddr> {
        self.addresses.missing(self.links.values().map(|link| link.remote))
    }

    /// A session with an address, to begin at that time.
    pub(in crate::spn::endpoint) fn add(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        at: Instant,
        machine: Session,
        ports: &mut Ports,
    ) -> LinkId {
        let id = self.next;
        self.next += 1;
        self.links.insert(id, Link::new(remote, at, machine));
        if at <= now {
            self.begin(id, ports);
        } else {
            ports.remind(at, Due::Begin(id));
        }
        id
    }

    /// A session may begin.
    pub(in crate::spn::endpoint) fn begin(&self, id: LinkId, ports: &mut Ports) {
        ports.post_link(id, Event::Connect { role: self.role });
    }

    /// An event for all sessions.
    pub(in crate::spn::endpoint) fn post_all(&self, event: &Event, ports: &mut Ports) {
        for id in self.links.keys() {
            ports.post_link(*id, event.clone());
        }
    }

    pub(in crate::spn::endpoint) fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    pub(in crate::spn::endpoint) fn len(&self) -> usize {
        self.links.len()
    }

    /// Where to, and in which state.
    pub(in crate::spn::endpoint) fn states(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        self.links.values().map(|link| (link.remote, link.state()))
    }

    /// The session that a QUIC connection is of.
    pub(in crate::spn::endpoint) fn of_handle(&self, handle: Handle) -> Option<LinkId> {
        self.by_handle.get(&handle).copied()
    }

    /// The QUIC connection of a session.
    pub(in crate::spn::endpoint) fn wire(&self, id: LinkId) -> Option<&Wire> {
        self.links.get(&id)?.wire.as_ref()
    }

    /// The QUIC connection of a session.
    pub(in crate::spn::endpoint) fn wire_mut(&mut self, id: LinkId) -> Option<&mut Wire> {
        self.links.get_mut(&id)?.wire.as_mut()
    }

    /// The QUIC connection of a session, if it is still that one.
    pub(in crate::spn::endpoint) fn wire_at(&mut self, id: LinkId, handle: Handle) -> Option<&mut Wire> {
        self.wire_mut(id).filter(|wire| wire.handle() == handle)
    }

    fn wires_up(&mut self) -> impl Iterator<Item = &mut Wire> {
        self.links.values_mut().filter_map(|link| link.wire.as_mut()).filter(|wire| wire.is_up)
    }

    /// Whether any session is up.
    pub(in crate::spn::endpoint) fn is_any_up(&mut self) -> bool {
        self.wires_up().next().is_some()
    }

    /// The endpoint stood still: new streams wait until their hub is heard.
    pub(in crate::spn::endpoint) fn hold(&mut self, now: Instant, ports: &mut Ports) {
        for wire in self.wires_up() {
            tracing::debug!("stood still: new connections wait until the hub is heard");
            wire.signs_mut().0.hold(now, ports);
        }
    }

    /// Of the sessions with room, the one with the fewest connections; of equal ones the nearest.
    pub(in crate::spn::endpoint) fn best(&self, ports: &mut Ports) -> Option<LinkId> {
        let mut best = None;
        for (&id, link) in &self.links {
            let Some(wire) = &link.wire else { continue };
            if wire.has_room() {
                let rank = (wire.streams().count(), ports.quic.rtt(wire.handle()));
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, id));
                }
            }
        }
        best.map(|(_, id)| id)
    }

    /// A connection has left the stream that carried it.
    pub(in crate::spn::endpoint) fn release(&mut self, carrier: Carrier, ports: &mut Ports) {
        if let Some(wire) = self.wire_at(carrier.link, carrier.handle)
            && wire.streams_mut().remove(carrier.stream)
        {
            ports.post_link(carrier.link, Event::ConnectionEnded);
            ports.note_room();
        }
    }

    /// The session is lost, and so are its connections, which are returned; `true`: for good, as this identity has no right to be there.
    pub(in crate::spn::endpoint) fn lose(&mut self, id: LinkId) -> (Vec<ConnId>, bool) {
        let Some(wire) = self.wire_mut(id) else { return (Vec::new(), false) };
        (wire.is_usable, wire.has_left) = (false, true);
        (wire.streams_mut().lose(), wire.is_disowned)
    }

    /// What can go on elsewhere is to leave the session: its connections.
    pub(in crate::spn::endpoint) fn desert(&mut self, id: LinkId) -> Vec<ConnId> {
        let Some(wire) = self.wire_mut(id) else { return Vec::new() };
        wire.is_deserted = true;
        wire.streams().conns().collect()
    }

    /// Something has happened to a session.
    pub(in crate::spn::endpoint) fn handle_event(&mut self, now: Instant, id: LinkId, event: Event) {
        if let Some(link) = self.links.get_mut(&id) {
            link.handle_event(now, event);
        }
    }

    /// A deadline of a session, due `at`, has come. Says whether its machine has anything to do.
    pub(in crate::spn::endpoint) fn expire(&mut self, now: Instant, at: Instant, id: LinkId) -> bool {
        self.links.get_mut(&id).is_some_and(|link| link.expire(now, at))
    }

    /// Does what a session's machine asks for, as far as it is the session's own. What concerns others is returned.
    pub(in crate::spn::endpoint) fn next_wish(
        &mut self,
        now: Instant,
        id: LinkId,
        setup: &Setup,
        ports: &mut Ports,
    ) -> Option<Wish> {
        loop {
            let link = self.links.get_mut(&id)?;
            match link.next_action(&mut ports.deadlines, Due::Link(id))? {
                Action::Dial => self.dial(now, id, setup, ports),
                Action::SendSessionOpen { weight } => self.open_session(id, weight, setup, ports),
                Action::State { standby } => {
                    link.stand_by(standby);
                    ports.note_room();
                }
                Action::Hide => link.hide(),
                Action::RefuseStreams => {
                    if let Some(wire) = &mut link.wire {
                        wire.refuse_streams(ports);
                    }
                }
                Action::SendProviderStart => match link.wire.as_ref().map(Wire::protocol) {
                    Some(Protocol::Sc01) => self.send_datagram(id, b"request_provider_start", ports),
                    Some(Protocol::Sc02) => self.send(id, &Frame::ProviderStart, ports),
                    None => {}
                },
                Action::SendSetWeight { weight } => self.send(id, &Frame::SetWeight { weight }, ports),
                Action::SendDrained => self.send(id, &Frame::Drained, ports),
                Action::SendNotifyShutdown => self.send_datagram(id, b"notify_shutdown", ports),
                Action::SendSessionClose { code } => {
                    link.leave();
                    self.send(id, &Frame::SessionClose { code, text: code.text().to_owned() }, ports);
                }
                Action::Close { code } => self.close(now, id, code, ports),
                Action::CallReserve => self.call_reserve(id, ports),
                Action::Waiting { retry } => self.wait(id, retry, ports),
                Action::Reserved => self.reserve(now, id, ports),
                Action::Established { standby } => return Some(Wish::Established { standby }),
                Action::MoveAway => return Some(Wish::MoveAway),
                Action::SessionLost => return Some(Wish::SessionLost),
                Action::Closed => return Some(Wish::Ended { again: true }),
                Action::Failed => return Some(Wish::Ended { again: false }),
            }
        }
    }

    fn dial(&mut self, now: Instant, id: LinkId, setup: &Setup, ports: &mut Ports) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let config = setup.config();
        link.begun = now;
        match ports.quic.connect(now, setup.client(), link.remote, &config.server_name) {
            Ok(handle) => {
                link.wire = Some(Wire::new(id, handle, &config.transport, config.limits.window_max));
                self.by_handle.insert(handle, id);
            }
            Err(error) => {
                link.reason = error.to_string();
                ports.post_link(id, Event::Lost);
            }
        }
    }

    /// The session is there.
    pub(in crate::spn::endpoint) fn establish(&mut self, id: LinkId, standby: bool, ports: &mut Ports) {
        self.turns.end(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.establish(standby);
        let Some(wire) = &link.wire else { return };
        if wire.protocol() == Protocol::Sc02 {
            // A hub that has restarted says so at once to those that go on elsewhere, and to nobody else.
            ports.quic.change_id(wire.handle());
        }
        let (session_id, service) = wire.names();
        ports.notify(Notice::SessionUp { remote: link.remote, protocol: wire.protocol(), session_id, service });
        ports.note_room();
    }

    /// Closes the QUIC connection of a session, if it has one.
    fn close(&mut self, now: Instant, id: LinkId, code: SessionCode, ports: &mut Ports) {
        if let Some(handle) = self.drop_wire(id, ports) {
            ports.quic.close(now, handle, code.0, code.text());
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.explain(|| code.text().to_owned());
        }
    }

    /// The present try is over: its QUIC connection, which is or will be closed, is of no interest any more.
    fn drop_wire(&mut self, id: LinkId, ports: &mut Ports) -> Option<Handle> {
        let wire = self.links.get_mut(&id)?.wire.take()?;
        wire.end(ports);
        self.turns.cancel(id);
        self.by_handle.remove(&wire.handle());
        Some(wire.handle())
    }

    /// QUIC has closed the connection, or has given it up.
    pub(in crate::spn::endpoint) fn note_closed(&mut self, id: LinkId, reason: &CloseReason, ports: &mut Ports) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.explain(|| reason.to_string());
        let Some(wire) = &mut link.wire else { return };
        wire.is_disowned |=
            matches!(reason, CloseReason::Peer { code, .. } if SessionCode(*code) == SessionCode::NOT_ENTITLED);
        self.turns.cancel(id);
        self.by_handle.remove(&wire.handle());
        ports.post_link(id, Event::Lost);
    }

    fn wait(&mut self, id: LinkId, retry: Duration, ports: &mut Ports) {
        self.turns.end(id);
        let _ = self.drop_wire(id, ports);
        let Some(link) = self.links.get_mut(&id) else { return };
        ports.notify(Notice::SessionWaiting {
            remote: link.remote,
            reason: std::mem::take(&mut link.reason),
            retry_ms: u64::try_from(retry.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// The machine is at its end, and so is the session. The host hears of it.
    pub(in crate::spn::endpoint) fn end(&mut self, now: Instant, id: LinkId, ports: &mut Ports) -> Option<Ended> {
        self.turns.end(id);
        self.call_reserve(id, ports);
        self.close(now, id, SessionCode::OK, ports);
        let Link { remote, begun, reason, .. } = self.links.remove(&id)?;
        ports.notify(Notice::SessionEnded { remote, reason });
        Some(Ended { remote, begun })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spn::endpoint::{machines::session::Config, ports::Work},
        testing::first_instant,
    };

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 4433))
    }

    fn add(links: &mut Links, n: u8, now: Instant, at: Instant, ports: &mut Ports) -> LinkId {
        links.add(now, address(n), at, Session::new(Config::default(), 0), ports)
    }

    /// The events that wait for sessions.
    fn events(ports: &mut Ports) -> Vec<(LinkId, Event)> {
        let work = std::iter::from_fn(|| ports.take_work());
        work.map(|work| if let Work::Link(id, event) = work { (id, event) } else { panic!("{work:?}") }).collect()
    }

    const CONNECT: Event = Event::Connect { role: Role::Consumer };

    #[test]
    fn every_listed_address_has_a_session_and_no_other_one() {
        let (now, mut links, mut ports) = (first_instant(), Links::new(Role::Consumer), Ports::of_test());
        links.list(&[address(1), address(2), address(3)], 2, &mut ports);
        let what = "3 addresses: only 2 are used".to_owned();
        assert_eq!(ports.take_notice(), Some(Notice::Limit { what }));
        assert_eq!(links.missing(), [address(1), address(2)]);
        let first = add(&mut links, 1, now, now, &mut ports);
        let second = add(&mut links, 2, now, now + Duration::from_secs(1), &mut ports);
        assert_eq!((links.missing(), events(&mut ports)), (vec![], vec![(first, CONNECT)]));
        assert_eq!(ports.deadlines.next(), Some(now + Duration::from_secs(1)), "the other one begins later");
        links.list(&[address(2)], 2, &mut ports);
        assert_eq!(events(&mut ports), [(first, Event::AddressLost)]);
        assert!(links.is_listed(&address(2)) && !links.is_listed(&address(1)));
        links.post_all(&Event::LocalShutdown, &mut ports);
        assert_eq!(events(&mut ports), [(first, Event::LocalShutdown), (second, Event::LocalShutdown)]);
    }

    #[test]
    fn a_session_that_has_ended_is_gone_and_its_id_is_never_used_again() {
        let (now, mut links, mut ports) = (first_instant(), Links::new(Role::Consumer), Ports::of_test());
        let id = add(&mut links, 1, now, now, &mut ports);
        links.violation(id, SessionCode::MALFORMED, "it is wrong".to_owned(), &mut ports);
        assert_eq!(events(&mut ports), [(id, CONNECT), (id, Event::Violation { code: SessionCode::MALFORMED })]);
        assert_eq!(links.end(now, id, &mut ports), Some(Ended { remote: address(1), begun: now }));
        let notice = Notice::SessionEnded { remote: address(1), reason: "it is wrong".to_owned() };
        assert_eq!((ports.take_notice(), links.len(), links.end(now, id, &mut ports)), (Some(notice), 0, None));
        assert_ne!(add(&mut links, 1, now, now, &mut ports), id);
    }

    #[test]
    fn when_a_session_is_lost_the_addresses_in_reserve_for_its_hub_are_tried() {
        let (now, mut links, mut ports) = (first_instant(), Links::new(Role::Consumer), Ports::of_test());
        let [lost, reserve, other, live] = [1, 2, 3, 4].map(|n| add(&mut links, n, now, now, &mut ports));
        for (id, hub) in [(lost, 1), (reserve, 1), (other, 2), (live, 2)] {
            let link = links.links.get_mut(&id).unwrap();
            (link.hub, link.is_live) = (Some([hub; 16]), id == lost || id == live);
        }
        events(&mut ports);
        links.call_reserve(lost, &mut ports);
        assert_eq!(events(&mut ports), [(reserve, CONNECT)]);
        links.call_reserve(other, &mut ports);
        assert_eq!(events(&mut ports), [], "another address has its hub's session");
        links.supersede(live, [2; 16], &mut ports);
        assert_eq!(events(&mut ports), [(other, Event::Elsewhere)]);
    }

    #[test]
    fn a_session_without_a_connection_carries_nothing() {
        let (now, mut links, mut ports) = (first_instant(), Links::new(Role::Consumer), Ports::of_test());
        let id = add(&mut links, 1, now, now, &mut ports);
        assert!(links.wire(id).is_none() && links.askable().is_empty() && links.best(&mut ports).is_none());
        assert!(!links.is_any_up() && links.desert(id).is_empty() && links.lose(id).0.is_empty());
        links.send(id, &Frame::Drained, &mut ports);
        assert!(!ports.take_frames());
    }
}
