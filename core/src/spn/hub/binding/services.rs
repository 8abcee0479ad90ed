//! The services with the sessions that are there for them: sessions enter and leave the [registry](Registry), consumers are sent the lists of
//! providers, silent providers are found, and the second provider of a singleton waits (docs/protocols/spn.md, Hub session, and Choosing
//! a provider).

use std::{collections::BTreeSet, time::Instant};

use super::{
    cluster::Cluster,
    link::{Link, links::Links},
};
use crate::{
    quic::Handle,
    spn::{
        Protocol, Role, Tag,
        hub::{
            config::ServiceStatus,
            context::{Context, Due},
            policy::{
                newcomers::{Newcomers, PROBE_EVERY},
                registry::{self, Entry, Registry, Service},
                roster::Choice,
                seek::{Listeners, list_frame},
                silence::{Finding, Silence},
            },
        },
        patience::patience,
        record::{RecordEvent, SessionRecord},
        wire::{
            code::SessionCode,
            frame::{Frame, SessionAck},
        },
    },
};

/// Whether there is room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacancy {
    Free,
    /// A singleton, and its provider looks alive.
    Occupied,
    /// A consumer, and there is no provider.
    Early,
}

/// What follows from the check of a provider that owed an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is given up, and another provider answers: connections given to it after so many datagrams go to that one.
    GivenUp { heard: u64 },
    /// It answers again: it may have connections of this service.
    HeardAgain { service: usize },
}

/// The services of a hub, and the sessions that are there for them.
#[derive(Debug, Default)]
pub(crate) struct Services {
    registry: Registry,
    newcomers: Newcomers,
    silence: Silence,
    listeners: Listeners,
}

impl Services {
    /// Takes a new inventory, and says what changed.
    pub(crate) fn apply(&mut self, services: Vec<Service>) -> Vec<String> {
        self.registry.apply(services)
    }

    pub(crate) fn get(&self, service: usize) -> Option<&Entry> {
        self.registry.get(service)
    }

    pub(crate) fn get_mut(&mut self, service: usize) -> Option<&mut Entry> {
        self.registry.get_mut(service)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.registry.entries()
    }

    /// The service of that name, if the inventory has it.
    pub(crate) fn find(&self, urn: &str) -> Option<usize> {
        self.registry.find(urn)
    }

    /// Pauses the service of that name, or ends its pause. Returns the service, if there is one.
    pub(crate) fn set_paused(&mut self, urn: &str, is_paused: bool) -> Option<usize> {
        let service = self.find(urn)?;
        self.get_mut(service)?.set_paused(is_paused);
        Some(service)
    }

    /// Those services that have a provider or a managed one, or are paused.
    pub(crate) fn status(&self, cluster: &Cluster) -> Vec<ServiceStatus> {
        let status = |(service, entry): (usize, &Entry)| {
            let managed = cluster.get(service).map(|managed| managed.status().to_owned());
            let (roster, is_paused) = (entry.roster(), entry.is_paused());
            (!roster.is_empty() || is_paused || managed.is_some()).then(|| ServiceStatus {
                urn: entry.urn().to_string(),
                providers: roster.len(),
                connections: roster.open().map(|(_, open)| open).sum(),
                is_paused,
                managed,
            })
        };
        self.entries().iter().enumerate().filter_map(status).collect()
    }

    // ---- admission ----

    /// Whether a session may keep its service after a reload.
    pub(crate) fn still_entitles(&self, link: &Link) -> bool {
        self.registry.still_entitles(link.party.service, link.party.role, &link.party.names())
    }

    /// Notes who a session is, and for which service it has come.
    ///
    /// # Errors
    /// The code that refuses it.
    pub(crate) fn identify(
        &self,
        cx: &Context<'_>,
        link: &mut Link,
        urn: &str,
        instance: Option<[u8; 16]>,
    ) -> Result<(), SessionCode> {
        let party = &mut link.party;
        let names = registry::names(&party.peer);
        let service = self.registry.judge(party.role, &names, urn)?;
        party.identity = names.first().copied().unwrap_or_default().into();
        party.tag = Tag::of(&party.identity);
        party.service = service;
        party.instance = instance.unwrap_or_default();
        if self.registry.count(&party.identity, party.role) >= cx.config.limits.sessions_per_identity {
            return Err(SessionCode::TOO_MANY_SESSIONS);
        }
        Ok(())
    }

    /// Older sessions of the process of a provider's session: they are dead or dying, and no conflict (ADM-6).
    pub(crate) fn older_of_process(&self, links: &Links, session: Handle) -> Vec<Handle> {
        let Some(newer) = links.get(session).map(|link| &link.party) else { return Vec::new() };
        let is_older = |older: &Link| {
            older.machine().is_established()
                && older.party.instance == newer.instance
                && older.party.identity == newer.identity
        };
        let Some(entry) = self.get(newer.service) else { return Vec::new() };
        let others = entry.roster().sessions().filter(|other| *other != session);
        others.filter(|other| links.get(*other).is_some_and(is_older)).collect()
    }

    /// Whether there is room for a session that has been [identified](Self::identify).
    ///
    /// # Errors
    /// The code that refuses it.
    pub(crate) fn admit(&mut self, cluster: &Cluster, session: Handle, link: &Link) -> Result<Vacancy, SessionCode> {
        let (service, protocol) = (link.party.service, link.party.protocol);
        let entry = self.registry.get_mut(service).ok_or(SessionCode::INTERNAL)?;
        match link.party.role {
            Role::Provider => match (entry.incumbent(), self.newcomers.is_waiting(service)) {
                (None, _) => Ok(Vacancy::Free),
                (Some(_), false) => Ok(Vacancy::Occupied),
                // One newcomer at a time may wait.
                (Some(_), true) => Err(SessionCode::SINGLETON_OCCUPIED),
            },
            Role::Consumer => {
                // `sc01` has no way to wait: it is admitted, and its connections wait.
                if protocol == Protocol::Sc01 || cluster.is_on_demand(service) || !entry.roster().is_empty() {
                    return Ok(Vacancy::Free);
                }
                entry.wait_for_provider(session);
                Ok(Vacancy::Early)
            }
        }
    }

    /// A session waits no longer for the end of a singleton's provider, or for the first provider.
    pub(crate) fn release(&mut self, links: &Links, session: Handle) {
        let Some(service) = links.get(session).map(|link| link.party.service) else { return };
        self.newcomers.release(service, session);
        if let Some(entry) = self.get_mut(service) {
            entry.leave_waiting(session);
        }
    }

    /// A session is refused, or ends: it waits for nothing any more, and a refusal is reported.
    pub(crate) fn turn_away(&mut self, cx: &mut Context<'_>, links: &mut Links, session: Handle, code: SessionCode) {
        self.release(links, session);
        let refusal = links.get_mut(session).and_then(|link| link.refusal(cx.now, code));
        refusal.into_iter().for_each(|refusal| cx.refuse(refusal));
    }

    /// The second provider of a singleton waits while the first one is asked for a sign of life.
    pub(crate) fn hold(&mut self, cx: &mut Context<'_>, links: &Links, session: Handle) {
        let Some(service) = links.get(session).map(|link| link.party.service) else { return };
        let Some(incumbent) = self.get(service).and_then(Entry::incumbent) else { return };
        cx.quic.ping(incumbent);
        self.newcomers.hold(service, session, incumbent, cx.quic.received_datagrams(incumbent));
        cx.remind(cx.now + PROBE_EVERY, Due::Probe(session));
    }

    /// Whether the incumbent has answered since the newcomer waits for it; if not, the next check is arranged.
    pub(crate) fn probe(&self, cx: &mut Context<'_>, links: &Links, session: Handle) -> bool {
        let Some(link) = links.get(session).filter(|link| link.machine().is_held()) else { return false };
        let heard = |incumbent| cx.quic.received_datagrams(incumbent);
        let has_answered = self.newcomers.has_answered(link.party.service, session, heard);
        if has_answered == Some(false) {
            cx.remind(cx.now + PROBE_EVERY, Due::Probe(session));
        }
        has_answered == Some(true)
    }

    /// The incumbent that a newcomer waits for.
    pub(crate) fn incumbent_of(&self, links: &Links, session: Handle) -> Option<Handle> {
        self.newcomers.incumbent(links.get(session)?.party.service, session)
    }

    /// The newcomer that has waited until no incumbent is left, if there is one and none is left.
    pub(crate) fn take_newcomer(&mut self, service: usize) -> Option<Handle> {
        if self.get(service)?.incumbent().is_some() {
            return None;
        }
        self.newcomers.take(service)
    }

    // ---- begin and end of sessions ----

    /// A session begins: it is registered, and its start recorded. Says whether it has a service.
    pub(crate) fn enter(&mut self, cx: &mut Context<'_>, links: &mut Links, session: Handle, weight: u16) -> bool {
        self.release(links, session);
        let Some(link) = links.get_mut(session) else { return false };
        let Some(entry) = self.registry.get_mut(link.party.service) else { return false };
        let record = SessionRecord {
            id: cx.session_id(session),
            end_point: link.party.peer.subject.clone(),
            role: link.party.role,
            service: entry.urn().clone(),
        };
        link.begin(cx.now, record.clone());
        let (service, role, protocol) = (link.party.service, link.party.role, link.party.protocol);
        if role == Role::Provider {
            entry.roster_mut().enter(session, weight);
            if protocol == Protocol::Sc02 {
                // It opens no stream but the control stream.
                cx.quic.set_max_streams(session, 1);
            }
        }
        self.registry.enter(&link.party.identity, role);
        cx.record(RecordEvent::StartSession(record));
        if role == Role::Provider {
            self.announce(links, service);
            self.check_older(cx, links, service, session);
        }
        true
    }

    /// Older sessions of a provider's identity have to answer: a process that was killed and is back has left one that looks alive (PRV-20).
    fn check_older(&mut self, cx: &mut Context<'_>, links: &Links, service: usize, session: Handle) {
        let identity = |session| links.get(session).map(|link| &link.party.identity);
        let Some(entry) = self.registry.get(service) else { return };
        let is_older = |other: &Handle| *other != session && identity(*other) == identity(session);
        for older in entry.roster().sessions().filter(is_older).collect::<Vec<_>>() {
            cx.quic.ping(older);
            let heard = cx.quic.received_datagrams(older);
            self.watch(cx, links, older, heard);
        }
    }

    /// A session has ended.
    pub(crate) fn leave(&mut self, links: &mut Links, session: Handle) {
        let Some(link) = links.get(session) else { return };
        let service = link.party.service;
        self.registry.leave(&link.party.identity, link.party.role);
        if self.get_mut(service).is_some_and(|entry| entry.roster_mut().leave(session)) {
            self.announce(links, service);
        }
    }

    /// Forgets what a session has acknowledged, and what it owes.
    pub(crate) fn forget(&mut self, session: Handle) {
        self.silence.forget(session);
        self.listeners.forget(session);
    }

    /// SET_WEIGHT.
    pub(crate) fn set_weight(&mut self, links: &mut Links, service: usize, session: Handle, weight: u16) {
        if self.get_mut(service).is_some_and(|entry| entry.roster_mut().set_weight(session, weight)) {
            self.announce(links, service);
        }
    }

    /// The SESSION_ACK of a session.
    pub(crate) fn ack(&self, cx: &mut Context<'_>, links: &Links, session: Handle) -> Option<Frame> {
        let party = &links.get(session)?.party;
        let max_connections = match party.role {
            Role::Provider => 0,
            Role::Consumer => cx.config.limits.connections_per_session.into(),
        };
        let service = self.get(party.service).map(|entry| entry.urn().to_string()).unwrap_or_default();
        let session_id = cx.session_id(session);
        Some(Frame::SessionAck(SessionAck { session_id, service, hub_instance: cx.id, max_connections, state: 0 }))
    }

    /// The consumers that wait for the first provider, since there is one.
    pub(crate) fn take_early(&mut self, service: usize) -> BTreeSet<Handle> {
        self.get_mut(service).map(Entry::take_early).unwrap_or_default()
    }

    // ---- lists of providers ----

    fn list(&self, links: &Links, entry: &Entry) -> Frame {
        let of_service = entry.roster().listed().filter_map(|(session, is_listed)| {
            let party = &links.get(session)?.party;
            let can_be_asked = party.protocol == Protocol::Sc02 && party.can_resume && party.seeks;
            Some((is_listed, can_be_asked.then_some(party.instance)))
        });
        list_frame(entry.roster().number(), of_service)
    }

    /// SESSION_ACK is on its way to a consumer: from now on it is sent who serves it.
    pub(crate) fn listen(&mut self, links: &mut Links, session: Handle) {
        let Some(link) = links.get(session).filter(|it| it.party.role == Role::Consumer && it.party.seeks) else {
            return;
        };
        self.listeners.add(session);
        if let Some(frame) = self.get(link.party.service).map(|entry| self.list(links, entry)) {
            links.send(session, &frame);
        }
    }

    /// The list of a service has changed: its consumers are sent it.
    fn announce(&self, links: &mut Links, service: usize) {
        let Some(entry) = self.get(service) else { return };
        let frame = self.list(links, entry);
        let is_its = |session: &Handle| links.get(*session).is_some_and(|link| link.party.service == service);
        for session in self.listeners.sessions().filter(is_its).collect::<Vec<_>>() {
            links.send(session, &frame);
        }
    }

    /// PROVIDERS_ACK. Returns the service of which a connection may have a provider now.
    pub(crate) fn acknowledge(&mut self, links: &Links, session: Handle, number: u64) -> Option<usize> {
        let service = links.get(session)?.party.service;
        let newest = self.get(service).map(|entry| entry.roster().number()).unwrap_or_default();
        self.listeners.acknowledge(session, number, newest).then_some(service)
    }

    /// SEEK: the session of the process that a consumer seeks a connection at.
    pub(crate) fn sought(&self, links: &Links, session: Handle, instance: [u8; 16]) -> Option<Handle> {
        let entry = self.get(links.get(session)?.party.service)?;
        let is_it = |provider: &Handle| {
            links.get(*provider).is_some_and(|link| link.party.seeks && link.party.instance == instance)
        };
        entry.roster().sessions().find(is_it)
    }

    // ---- the choice of a provider, and silent providers ----

    /// The provider that gets the next connection of a consumer's session.
    pub(crate) fn choose(&self, cx: &Context<'_>, links: &Links, service: usize, consumer: Handle) -> Choice {
        let Some(entry) = self.get(service) else { return Choice::None };
        // A provider that leaves its control stream unread gets no connections.
        let limit = cx.config.limits.control_backlog;
        let reads = |session| links.get(session).is_some_and(|link| !link.control().is_choked(limit));
        entry.roster().choose(self.listeners.newest_known(consumer), reads)
    }

    /// QUIC gives a provider's session no stream at the moment.
    pub(crate) fn out_of_credit(&mut self, service: usize, session: Handle) {
        if let Some(entry) = self.get_mut(service) {
            entry.roster_mut().set_out_of_credit(session);
        }
    }

    /// A provider's session has received something: it owes an acknowledgement. `heard` datagrams have come from it.
    pub(crate) fn watch(&mut self, cx: &mut Context<'_>, links: &Links, session: Handle, heard: u64) {
        if links.get(session).is_some() && self.silence.watch(cx.now, session, heard) {
            remind_of_silence(cx, session);
        }
    }

    /// Checks whether a datagram has come from a provider since it received something; the check was due at `at`. `owes`: whether a connection
    /// that it was given after so many datagrams waits for its answer.
    pub(crate) fn look_at_silence(
        &mut self,
        cx: &mut Context<'_>,
        links: &mut Links,
        at: Instant,
        session: Handle,
        owes: impl Fn(&Link, u64) -> bool,
    ) -> Option<Verdict> {
        let heard = cx.quic.received_datagrams(session);
        let link = links.get(session)?;
        let service = link.party.service;
        let look = self.silence.look(cx.now, at, session, heard, || owes(link, heard))?;
        if self.silence.is_watched(session) {
            remind_of_silence(cx, session);
        }
        let (is_silent, is_given_up) = match look {
            Finding::Late => return None,
            Finding::Heard => (false, false),
            Finding::Silent { is_given_up } => (true, is_given_up),
        };
        let was_silent = self.get_mut(service)?.roster_mut().set_silent(session, is_silent)?;
        if is_silent || was_silent {
            // No other packet may be under way that would show its return. Once it is back, its answer to the PING shows what was lost: QUIC's own
            // probes come at growing intervals.
            cx.quic.ping(session);
        }
        if is_silent {
            let roster = self.get(service)?.roster();
            let (others, another_answers): (Vec<Handle>, bool) =
                (roster.sessions().filter(|other| *other != session).collect(), roster.another_answers(session));
            // The hub's own network may be the cause: whether the other providers answer has to be seen, too.
            for other in others {
                cx.quic.ping(other);
                let heard = cx.quic.received_datagrams(other);
                self.watch(cx, links, other, heard);
            }
            if !is_given_up || !another_answers {
                return None;
            }
            if self.get_mut(service)?.roster_mut().give_up(session) {
                self.announce(links, service);
            }
            return Some(Verdict::GivenUp { heard });
        }
        if !was_silent {
            return None;
        }
        if self.get_mut(service)?.roster_mut().take_back(session) {
            self.announce(links, service);
        }
        Some(Verdict::HeardAgain { service })
    }
}

fn remind_of_silence(cx: &mut Context<'_>, session: Handle) {
    let rtt = cx.quic.rtt(session);
    cx.remind(cx.now + patience(rtt), Due::Silence(session));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Epoch,
        spn::hub::{binding::link::links::testing, context::testing::Surroundings, notice::Notice},
    };

    struct Bench {
        around: Surroundings,
        links: Links,
        services: Services,
        cluster: Cluster,
    }

    impl Bench {
        fn new(singleton: bool) -> Self {
            let around = Surroundings::new();
            let cluster = Cluster::new(Epoch { instant: around.now, unix: Duration::ZERO });
            let mut services = Services::default();
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            services.apply(vec![Service {
                urn: "urn:s".to_owned(),
                providers: names(&["p", "p2"]),
                consumers: names(&["c"]),
                singleton,
                availability: None,
            }]);
            Self { around, links: Links::new(0), services, cluster }
        }

        /// A session that has begun.
        fn enter(&mut self, n: u32, role: Role, identity: &str) -> Handle {
            let session = self.add(n, role, identity);
            let Self { around, links, services, .. } = self;
            assert!(services.enter(&mut around.cx(), links, session, 100));
            session
        }

        fn add(&mut self, n: u32, role: Role, identity: &str) -> Handle {
            let session = testing::add(&mut self.links, &mut self.around.cx(), n, role, identity);
            let party = &mut self.links.get_mut(session).unwrap().party;
            party.peer.common_name = Some(identity.to_owned());
            (party.can_resume, party.seeks, party.instance) = (true, true, [n as u8; 16]);
            session
        }

        fn admit(&mut self, session: Handle) -> Result<Vacancy, SessionCode> {
            let Self { around, links, services, cluster } = self;
            services.identify(&around.cx(), links.get_mut(session).unwrap(), "urn:s", None)?;
            services.admit(cluster, session, links.get(session).unwrap())
        }

        fn take_unflushed(&mut self) -> Vec<Handle> {
            let Self { around, links, .. } = self;
            let mut sessions: Vec<_> = std::iter::from_fn(|| links.next_unflushed()).collect();
            sessions.iter().for_each(|session| assert!(links.flush(&mut around.cx(), *session).is_some()));
            sessions.sort();
            sessions
        }
    }

    #[test]
    fn a_singletons_second_provider_waits_and_a_third_one_is_refused() {
        let mut bench = Bench::new(true);
        let first = bench.enter(1, Role::Provider, "p");
        let [second, third] = [2, 3].map(|n| bench.add(n, Role::Provider, "p2"));
        assert_eq!(bench.admit(second), Ok(Vacancy::Occupied));
        bench.services.hold(&mut bench.around.cx(), &bench.links, second);
        assert_eq!(bench.services.incumbent_of(&bench.links, second), Some(first));
        assert_eq!(bench.admit(third), Err(SessionCode::SINGLETON_OCCUPIED));
        assert_eq!(bench.services.take_newcomer(0), None, "the first one is there");
        bench.services.leave(&mut bench.links, first);
        assert_eq!(bench.services.take_newcomer(0), Some(second));
        assert_eq!(bench.admit(third), Ok(Vacancy::Free));
    }

    #[test]
    fn a_consumer_is_early_until_there_is_a_provider() {
        let mut bench = Bench::new(false);
        let [consumer, stranger] = [(1, "c"), (2, "x")].map(|(n, name)| bench.add(n, Role::Consumer, name));
        assert_eq!(bench.admit(consumer), Ok(Vacancy::Early));
        assert_eq!(bench.admit(stranger), Err(SessionCode::NOT_ENTITLED));
        assert_eq!(bench.services.take_early(0).into_iter().collect::<Vec<_>>(), [consumer]);
        assert_eq!(bench.admit(consumer), Ok(Vacancy::Early));
        bench.services.release(&bench.links, consumer);
        assert!(bench.services.take_early(0).is_empty());
        bench.enter(3, Role::Provider, "p");
        assert_eq!(bench.admit(consumer), Ok(Vacancy::Free));
        bench.around.config.limits.sessions_per_identity = 0;
        assert_eq!(bench.admit(consumer), Err(SessionCode::TOO_MANY_SESSIONS));
    }

    #[test]
    fn consumers_are_sent_each_list_and_wait_for_providers_that_they_do_not_know() {
        let mut bench = Bench::new(false);
        let consumer = bench.enter(1, Role::Consumer, "c");
        bench.services.listen(&mut bench.links, consumer);
        let provider = bench.enter(2, Role::Provider, "p");
        assert_eq!(bench.take_unflushed(), [consumer]);
        let choice = |bench: &mut Bench| bench.services.choose(&bench.around.cx(), &bench.links, 0, consumer);
        assert_eq!(choice(&mut bench), Choice::Unknown);
        assert_eq!(bench.services.acknowledge(&bench.links, consumer, 1), Some(0));
        assert_eq!(bench.services.acknowledge(&bench.links, provider, 1), None);
        assert_eq!(choice(&mut bench), Choice::Provider(provider));
        bench.services.set_weight(&mut bench.links, 0, provider, 0);
        assert_eq!((bench.take_unflushed(), choice(&mut bench)), (vec![consumer], Choice::None));
        assert_eq!(bench.services.sought(&bench.links, consumer, [2; 16]), Some(provider), "it can be asked");
        bench.services.forget(consumer);
        bench.services.leave(&mut bench.links, provider);
        assert_eq!(bench.take_unflushed(), []);
        let started = std::iter::from_fn(|| bench.around.outbox.pop());
        assert_eq!(started.filter(|notice| matches!(notice, Notice::Record(_))).count(), 2);
    }

    #[test]
    fn a_provider_that_is_back_has_its_older_session_checked() {
        let mut bench = Bench::new(false);
        let [killed, other] = [(1, "p"), (2, "p2")].map(|(n, name)| bench.enter(n, Role::Provider, name));
        assert!(!bench.services.silence.is_watched(killed));
        let back = bench.enter(3, Role::Provider, "p");
        let watched = [killed, other, back].map(|session| bench.services.silence.is_watched(session));
        assert_eq!(watched, [true, false, false]);
        bench.around.now += Duration::from_secs(2);
        let Bench { around, links, services, .. } = &mut bench;
        let now = around.now;
        let verdict = services.look_at_silence(&mut around.cx(), links, now, killed, |_, _| false);
        assert_eq!(verdict, Some(Verdict::GivenUp { heard: 0 }));
        let listed: Vec<_> = services.get(0).unwrap().roster().listed().collect();
        assert_eq!(
            listed,
            [(killed, false), (other, true), (back, true)],
            "nobody asks it, and nobody waits for its answer"
        );
    }

    #[test]
    fn a_silent_provider_is_given_up_only_while_another_one_answers() {
        let mut bench = Bench::new(false);
        let [silent, other] = [(1, "p"), (2, "p2")].map(|(n, name)| bench.enter(n, Role::Provider, name));
        let Bench { around, links, services, .. } = &mut bench;
        services.watch(&mut around.cx(), links, silent, 0);
        let mut look = |around: &mut Surroundings, services: &mut Services, secs| {
            around.now += Duration::from_secs(secs);
            let at = around.now;
            services.look_at_silence(&mut around.cx(), links, at, silent, |_, _| false)
        };
        assert_eq!(look(around, services, 1), None);
        services.out_of_credit(0, other);
        assert_eq!(look(around, services, 1), None, "nowhere to go");
        assert!(services.get_mut(0).unwrap().roster_mut().has_credit(other));
        assert_eq!(look(around, services, 1), Some(Verdict::GivenUp { heard: 0 }));
        let listed: Vec<_> = services.get(0).unwrap().roster().listed().collect();
        assert_eq!(listed, [(silent, false), (other, true)]);
    }
}
