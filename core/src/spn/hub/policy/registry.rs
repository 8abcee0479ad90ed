//! Services, the identities that are entitled to them, and their providers (docs/protocols/spn.md, Identity, IDN-3 and IDN-4, and Hub session).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{availability::Availability, roster::Roster};
use crate::{
    quic::{Handle, PeerIdentity},
    spn::{Role, wire::code::SessionCode},
};

/// A service, as the inventory defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in SESSION_OPEN and in records.
    pub urn: String,
    /// Identities that may provide it.
    pub providers: Vec<String>,
    /// Identities that may use it.
    pub consumers: Vec<String>,
    /// Only one provider session at a time.
    pub singleton: bool,
    /// How its provider is started and stopped, if the hub does that.
    pub availability: Option<Availability>,
}

/// A service, its providers, and the sessions and connections that wait for one.
#[derive(Debug)]
pub(crate) struct Entry {
    urn: Arc<str>,
    service: Service,
    roster: Roster,
    /// Consumers that wait for the first provider.
    early: BTreeSet<Handle>,
    /// Connections without provider, oldest first.
    choosing: BTreeSet<u64>,
    /// Its connections are paused, and nothing is begun or resumed.
    is_paused: bool,
    /// No longer in the inventory.
    removed: bool,
}

impl Entry {
    fn new(service: Service) -> Self {
        Self {
            urn: service.urn.as_str().into(),
            service,
            roster: Roster::default(),
            early: BTreeSet::new(),
            choosing: BTreeSet::new(),
            is_paused: false,
            removed: false,
        }
    }

    pub(crate) fn urn(&self) -> &Arc<str> {
        &self.urn
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) fn roster_mut(&mut self) -> &mut Roster {
        &mut self.roster
    }

    fn entitles(&self, role: Role, names: &[&str]) -> bool {
        let entitled = match role {
            Role::Provider => &self.service.providers,
            Role::Consumer => &self.service.consumers,
        };
        !self.removed && entitled.iter().any(|name| names.contains(&name.as_str()))
    }

    /// What the inventory says of starting and stopping its provider.
    pub(crate) fn availability(&self) -> Option<&Availability> {
        self.service.availability.as_ref().filter(|_| !self.removed)
    }

    /// A singleton's provider that is in the way of another (PRV-1).
    pub(crate) fn incumbent(&self) -> Option<Handle> {
        self.roster.incumbent().filter(|_| self.service.singleton)
    }

    /// A consumer waits for the first provider.
    pub(crate) fn wait_for_provider(&mut self, session: Handle) {
        self.early.insert(session);
    }

    /// A consumer waits no longer.
    pub(crate) fn leave_waiting(&mut self, session: Handle) {
        self.early.remove(&session);
    }

    /// There is a provider: the consumers that have waited for one.
    pub(crate) fn take_early(&mut self) -> BTreeSet<Handle> {
        std::mem::take(&mut self.early)
    }

    /// A connection waits for a provider.
    pub(crate) fn add_waiting(&mut self, connection: u64) {
        self.choosing.insert(connection);
    }

    /// A connection has a provider, or is over.
    pub(crate) fn remove_waiting(&mut self, connection: u64) {
        self.choosing.remove(&connection);
    }

    /// Connections that wait for a provider, oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.choosing.iter().copied()
    }

    /// The oldest connection from `from` on that may have a provider now. None while the service is paused.
    pub(crate) fn next_waiting(&self, from: u64) -> Option<u64> {
        self.choosing.range(from..).next().copied().filter(|_| !self.is_paused)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(crate) fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }
}

/// All services of a hub. Indices are stable; a removed service keeps its place.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
    by_urn: BTreeMap<Arc<str>, usize>,
    /// Those in the inventory, in its order.
    order: Vec<usize>,
    /// Live sessions of each identity and role.
    sessions: BTreeMap<(Arc<str>, Role), usize>,
}

/// What the certificate calls the peer: its Common Name, or else its URIs.
pub(crate) fn names(peer: &PeerIdentity) -> Vec<&str> {
    match &peer.common_name {
        Some(name) => vec![name],
        None => peer.uris.iter().map(String::as_str).collect(),
    }
}

impl Registry {
    /// Takes a new inventory, and says what changed.
    pub(crate) fn apply(&mut self, services: Vec<Service>) -> Vec<String> {
        let mut changes = Vec::new();
        let mut kept = vec![false; self.entries.len()];
        self.order.clear();
        for service in services {
            match self.by_urn.get(service.urn.as_str()).copied() {
                Some(index) => {
                    let Some(entry) = self.entries.get_mut(index) else { continue };
                    if let Some(kept) = kept.get_mut(index) {
                        *kept = true;
                    }
                    if entry.removed {
                        changes.push(format!("service {} added", service.urn));
                    } else if entry.service != service {
                        changes.push(format!("service {} changed", service.urn));
                    }
                    entry.removed = false;
                    entry.service = service;
                    self.order.push(index);
                }
                None => {
                    changes.push(format!("service {} added", service.urn));
                    let entry = Entry::new(service);
                    self.order.push(self.entries.len());
                    self.by_urn.insert(entry.urn.clone(), self.entries.len());
                    self.entries.push(entry);
                }
            }
        }
        for (entry, kept) in self.entries.iter_mut().zip(kept) {
            if !kept && !entry.removed {
                entry.removed = true;
                changes.push(format!("service {} removed", entry.urn));
            }
        }
        changes
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The service that an identity gets: the one it names, or the first of the inventory that it is entitled to, as after a restart (IDN-4).
    pub(crate) fn judge(&self, role: Role, names: &[&str], urn: &str) -> Result<usize, SessionCode> {
        if urn.is_empty() {
            let entitles = |index: &usize| self.entries.get(*index).is_some_and(|entry| entry.entitles(role, names));
            return self.order.iter().copied().find(entitles).ok_or(SessionCode::NOT_ENTITLED);
        }
        let index = self.by_urn.get(urn).copied();
        let known = index.and_then(|index| Some((index, self.entries.get(index).filter(|entry| !entry.removed)?)));
        let (index, entry) = known.ok_or(SessionCode::SERVICE_UNKNOWN)?;
        if entry.entitles(role, names) { Ok(index) } else { Err(SessionCode::NOT_ENTITLED) }
    }

    /// The service of that name, if the inventory has it.
    pub(crate) fn find(&self, urn: &str) -> Option<usize> {
        let index = *self.by_urn.get(urn)?;
        self.entries.get(index).is_some_and(|entry| !entry.removed).then_some(index)
    }

    /// Whether a session may keep its service after a reload.
    pub(crate) fn still_entitles(&self, index: usize, role: Role, names: &[&str]) -> bool {
        self.entries.get(index).is_some_and(|entry| entry.entitles(role, names))
    }

    /// Live sessions of an identity in a role.
    pub(crate) fn count(&self, identity: &Arc<str>, role: Role) -> usize {
        self.sessions.get(&(identity.clone(), role)).copied().unwrap_or(0)
    }

    pub(crate) fn enter(&mut self, identity: &Arc<str>, role: Role) {
        *self.sessions.entry((identity.clone(), role)).or_default() += 1;
    }

    pub(crate) fn leave(&mut self, identity: &Arc<str>, role: Role) {
        let key = (identity.clone(), role);
        if let Some(count) = self.sessions.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(urn: &str, providers: &[&str], consumers: &[&str]) -> Service {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Service {
            urn: urn.to_owned(),
            providers: owned(providers),
            consumers: owned(consumers),
            singleton: false,
            availability: None,
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry.apply(vec![service("a", &["p"], &["c"]), service("b", &["q", "p"], &["c", "d"])]);
        registry
    }

    #[test]
    fn only_the_definition_entitles() {
        use Role::{Consumer, Provider};
        let registry = registry();
        assert_eq!(registry.judge(Provider, &["p"], "a"), Ok(0));
        assert_eq!(registry.judge(Provider, &["p"], "b"), Ok(1));
        assert_eq!(registry.judge(Provider, &["p"], ""), Ok(0), "the first it is entitled to");
        assert_eq!(registry.judge(Consumer, &["d"], ""), Ok(1));
        assert_eq!(registry.judge(Provider, &["c"], "a"), Err(SessionCode::NOT_ENTITLED), "a consumer is no provider");
        assert_eq!(registry.judge(Consumer, &["nobody"], ""), Err(SessionCode::NOT_ENTITLED));
        assert_eq!(registry.judge(Consumer, &["c"], "z"), Err(SessionCode::SERVICE_UNKNOWN));
    }

    #[test]
    fn a_reload_takes_rights_away_and_gives_them_back() {
        let mut registry = registry();
        let changes = registry.apply(vec![service("b", &["q"], &["c", "d"]), service("e", &[], &[])]);
        assert_eq!(changes, ["service b changed", "service e added", "service a removed"]);
        assert!(!registry.still_entitles(1, Role::Provider, &["p"]));
        assert!(registry.still_entitles(1, Role::Provider, &["q"]));
        assert_eq!(registry.judge(Role::Consumer, &["c"], "a"), Err(SessionCode::SERVICE_UNKNOWN));
        assert_eq!(registry.apply(vec![service("a", &["p"], &["c"])]).len(), 3);
        assert_eq!(registry.judge(Role::Consumer, &["c"], "a"), Ok(0), "the same place as before");
    }

    #[test]
    fn who_names_no_service_gets_the_first_of_the_inventory_after_a_reload_as_after_a_restart() {
        let new = || vec![service("z", &["p"], &["c"]), service("b", &["p"], &["c"]), service("a", &["p"], &["c"])];
        let (mut reloaded, mut restarted) = (registry(), Registry::default());
        reloaded.apply(new());
        restarted.apply(new());
        for registry in [&reloaded, &restarted] {
            let index = registry.judge(Role::Consumer, &["c"], "").unwrap();
            assert_eq!(&**registry.get(index).unwrap().urn(), "z");
        }
        reloaded.apply(vec![service("b", &["p"], &["c"]), service("z", &["p"], &["c"])]);
        assert_eq!(reloaded.judge(Role::Consumer, &["c"], ""), Ok(1), "the other way round");
    }

    #[test]
    fn connections_wait_in_order_and_not_through_a_pause() {
        let mut entry = Entry::new(service("a", &["p"], &["c"]));
        [3, 1, 2].into_iter().for_each(|id| entry.add_waiting(id));
        assert_eq!((entry.next_waiting(0), entry.next_waiting(2), entry.next_waiting(4)), (Some(1), Some(2), None));
        entry.set_paused(true);
        assert_eq!(entry.next_waiting(0), None);
        entry.remove_waiting(1);
        assert_eq!(entry.waiting().collect::<Vec<_>>(), [2, 3], "they still wait");
    }

    #[test]
    fn only_a_singleton_has_an_incumbent() {
        let mut entry = Entry::new(service("a", &["p"], &["c"]));
        entry.roster_mut().enter(Handle::of_test(1), 100);
        assert_eq!(entry.incumbent(), None);
        entry.service.singleton = true;
        assert_eq!(entry.incumbent(), Some(Handle::of_test(1)));
    }

    #[test]
    fn sessions_are_counted_by_identity_and_role() {
        let mut registry = registry();
        let name: Arc<str> = "p".into();
        registry.enter(&name, Role::Provider);
        registry.enter(&name, Role::Provider);
        assert_eq!((registry.count(&name, Role::Provider), registry.count(&name, Role::Consumer)), (2, 0));
        registry.leave(&name, Role::Provider);
        registry.leave(&name, Role::Provider);
        assert!(registry.sessions.is_empty());
    }
}
