//! The inventory: realms, their hubs, and their services (docs/protocols/spn.md, Inventory, INV-6).
//!
//! It comes as JSON, or as YAML read into JSON. [`read`] takes out of it what can be used and says everything that is wrong, in one go.
//! Each record is judged on its own: a bad service drops that service, a bad hub that hub, a bad realm that realm.

mod certificate;
mod read;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, net::SocketAddr};

pub use read::{count, read, read_with, says_disabled};

use super::hub;

/// Everything that can be used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// In the order in which they came.
    pub realms: Vec<Realm>,
    /// What is there but cannot be used, as `realm`, `realm/hub` or `realm/hub/service`: on a reload it keeps its old state.
    pub broken: BTreeSet<String>,
}

/// Endpoints, hubs and services that believe one certificate authority.
#[derive(Debug, Clone, PartialEq)]
pub struct Realm {
    /// Part of URNs.
    pub name: String,
    /// Certificate authorities of its endpoints, PEM.
    pub client_ca: String,
    /// Neither disabled nor expired.
    pub is_enabled: bool,
    /// Its hubs.
    pub hubs: Vec<HubRecord>,
}

/// A hub of a realm: one UDP socket.
#[derive(Debug, Clone, PartialEq)]
pub struct HubRecord {
    /// Its name in the realm.
    pub name: String,
    /// What endpoints resolve.
    pub fqdn: String,
    /// Where it listens.
    pub bind: SocketAddr,
    /// Its certificate chain, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// Its services.
    pub services: Vec<Service>,
}

/// A service of a hub.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name at the hub.
    pub name: String,
    /// Its name everywhere.
    pub urn: String,
    /// Identities that may provide it.
    pub providers: Vec<String>,
    /// Identities that may use it.
    pub consumers: Vec<String>,
    /// One provider session at a time.
    pub singleton: bool,
    /// How its provider is started and stopped.
    pub availability: Option<hub::Availability>,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but perhaps not as meant.
    Warning,
    /// The record cannot be used.
    Error,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is, e.g. `realms[0].hubs[1].serverCert`.
    pub path: String,
    /// What it is, and what was expected.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl HubRecord {
    /// The settings of this hub, with the defaults for all that the inventory does not say.
    #[must_use]
    pub fn config(&self, realm: &Realm) -> hub::Config {
        let mut config = hub::Config::new(&realm.name, &self.name, self.bind);
        config.certificate.clone_from(&self.certificate);
        config.key.clone_from(&self.key);
        config.client_ca.clone_from(&realm.client_ca);
        config.services = self.services.iter().map(Service::definition).collect();
        config
    }
}

impl Service {
    fn definition(&self) -> hub::Service {
        hub::Service {
            urn: self.urn.clone(),
            providers: self.providers.clone(),
            consumers: self.consumers.clone(),
            singleton: self.singleton,
            availability: self.availability.clone(),
        }
    }
}
