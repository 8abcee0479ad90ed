//! Who may come in, and who is there: services, their entitlements and their providers (docs/protocols/spn.md, Identity, IDN-3 and IDN-4, and Hub session).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::availability::Availability;
use crate::{
    quic::{Handle, PeerIdentity},
    spn::{Role, hub::binding::cluster::Managed, wire::code},
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
    /// How its provider is started and stopped, if that is the hub's business.
    pub availability: Option<Availability>,
}

/// A provider session of a service.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::hub) struct Provider {
    pub(in crate::spn::hub) session: Handle,
    pub(in crate::spn::hub) weight: u16,
    /// Its open connections.
    pub(in crate::spn::hub) open: u32,
    /// The number of the first list of providers that it is on, since it came or was heard again; [`UNLISTED`] while it is given up or
    /// its weight is 0.
    pub(in crate::spn::hub) number: u64,
    /// QUIC gives it no stream at the moment.
    pub(in crate::spn::hub) out_of_credit: bool,
    /// It has got something, and has acknowledged nothing for a few round trips.
    pub(in crate::spn::hub) is_silent: bool,
}

/// Of a provider that is on no list.
pub(in crate::spn::hub) const UNLISTED: u64 = u64::MAX;

/// A service and who is there for it.
#[derive(Debug)]
pub(in crate::spn::hub) struct Entry {
    pub(in crate::spn::hub) urn: Arc<str>,
    service: Service,
    /// Oldest first.
    pub(in crate::spn::hub) providers: Vec<Provider>,
    /// How often that has changed.
    pub(in crate::spn::hub) number: u64,
    /// The one newcomer that waits for a singleton's provider.
    pub(in crate::spn::hub) held: Option<Handle>,
    /// Consumers that wait for the first provider.
    pub(in crate::spn::hub) early: BTreeSet<Handle>,
    /// Its provider, if the hub starts and stops it.
    pub(in crate::spn::hub) managed: Option<Managed>,
    /// Connections without provider, oldest first.
    pub(in crate::spn::hub) choosing: BTreeSet<u64>,
    /// Its connections are paused, and nothing is begun or resumed.
    pub(in crate::spn::hub) is_paused: bool,
    /// No longer in the inventory.
    removed: bool,
}

impl Entry {
    fn new(service: Service) -> Self {
        Self {
            urn: service.urn.as_str().into(),
            service,
            providers: Vec::new(),
            number: 0,
            held: None,
            early: BTreeSet::new(),
            managed: None,
            choosing: BTreeSet::new(),
            is_paused: false,
            removed: false,
        }
    }

    fn entitles(&self, role: Role, names: &[&str]) -> bool {
        let entitled = match role {
            Role::Provider => &self.service.providers,
            Role::Consumer => &self.service.consumers,
        };
        !self.removed && entitled.iter().any(|name| names.contains(&name.as_str()))
    }

    /// What the inventory says of starting and stopping its provider.
    pub(in crate::spn::hub) fn availability(&self) -> Option<&Availability> {
        self.service.availability.as_ref().filter(|_| !self.removed)
    }

    /// A singleton's provider that is in the way of another: one of weight 0 is not (PRV-1).
    pub(in crate::spn::hub) fn incumbent(&self) -> Option<Handle> {
        let in_the_way = self.providers.iter().find(|provider| provider.weight > 0)?;
        self.service.singleton.then_some(in_the_way.session)
    }

    pub(in crate::spn::hub) fn provider(&mut self, session: Handle) -> Option<&mut Provider> {
        self.providers.iter_mut().find(|provider| provider.session == session)
    }
}

/// All services of a hub. Indices are stable; a removed service keeps its place.
#[derive(Debug, Default)]
pub(in crate::spn::hub) struct Registry {
    entries: Vec<Entry>,
    by_urn: BTreeMap<Arc<str>, usize>,
    /// Those in the inventory, in its order.
    order: Vec<usize>,
    /// Live sessions of each identity and role.
    sessions: BTreeMap<(Arc<str>, Role), usize>,
}

/// What the certificate calls the peer: its Common Name, or else its URIs.
pub(in crate::spn::hub) fn names(peer: &PeerIdentity) -> Vec<&str> {
    match &peer.common_name {
        Some(name) => vec![name],
        None => peer.uris.iter().map(String::as_str).collect(),
    }
}

impl Registry {
    /// Takes a new inventory, and says what changed.
    pub(in crate::spn::hub) fn apply(&mut self, services: Vec<Service>) -> Vec<String> {
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

    pub(in crate::spn::hub) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(in crate::spn::hub) fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(in crate::spn::hub) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    pub(in crate::spn::hub) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The service that an identity gets: the one it names, or the first of the inventory that it is entitled to, as after a restart (IDN-4).
    pub(in crate::spn::hub) fn judge(&self, role: Role, names: &[&str], urn: &str) -> Result<usize, u64> {
        if urn.is_empty() {
            let entitles = |index: &usize| self.entries.get(*index).is_some_and(|entry| entry.entitles(role, names));
            return self.order.iter().copied().find(entitles).ok_or(code::NOT_ENTITLED);
        }
        let index = self.by_urn.get(urn).copied();
        let known = index.and_then(|index| Some((index, self.entries.get(index).filter(|entry| !entry.removed)?)));
        let (index, entry) = known.ok_or(code::SERVICE_UNKNOWN)?;
        if entry.entitles(role, names) { Ok(index) } else { Err(code::NOT_ENTITLED) }
    }

    /// The service of that name, if the inventory has it.
    pub(in crate::spn::hub) fn find(&self, urn: &str) -> Option<usize> {
        let index = *self.by_urn.get(urn)?;
        self.entries.get(index).is_some_and(|entry| !entry.removed).then_some(index)
    }

    /// Whether a session may keep its service after a reload.
    pub(in crate::spn::hub) fn still_entitles(&self, index: usize, role: Role, names: &[&str]) -> bool {
        self.entries.get(index).is_some_and(|entry| entry.entitles(role, names))
    }

    /// Live sessions of an identity in a role.
    pub(in crate::spn::hub) fn count(&self, identity: &Arc<str>, role: Role) -> usize {
        self.sessions.get(&(identity.clone(), role)).copied().unwrap_or(0)
    }

    pub(in crate::spn::hub) fn enter(&mut self, identity: &Arc<str>, role: Role) {
        *self.sessions.entry((identity.clone(), role)).or_default() += 1;
    }

    pub(in crate::spn::hub) fn leave(&mut self, identity: &Arc<str>, role: Role) {
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
        assert_eq!(registry.judge(Provider, &["c"], "a"), Err(code::NOT_ENTITLED), "a consumer is no provider");
        assert_eq!(registry.judge(Consumer, &["nobody"], ""), Err(code::NOT_ENTITLED));
        assert_eq!(registry.judge(Consumer, &["c"], "z"), Err(code::SERVICE_UNKNOWN));
    }

    #[test]
    fn a_reload_takes_rights_away_and_gives_them_back() {
        let mut registry = registry();
        let changes = registry.apply(vec![service("b", &["q"], &["c", "d"]), service("e", &[], &[])]);
        assert_eq!(changes, ["service b changed", "service e added", "service a removed"]);
        assert!(!registry.still_entitles(1, Role::Provider, &["p"]));
        assert!(registry.still_entitles(1, Role::Provider, &["q"]));
        assert_eq!(registry.judge(Role::Consumer, &["c"], "a"), Err(code::SERVICE_UNKNOWN));
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
            assert_eq!(&*registry.get(index).unwrap().urn, "z");
        }
        reloaded.apply(vec![service("b", &["p"], &["c"]), service("z", &["p"], &["c"])]);
        assert_eq!(reloaded.judge(Role::Consumer, &["c"], ""), Ok(1), "the other way round");
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
