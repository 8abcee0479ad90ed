//! From JSON to an [`Inventory`], record by record.
//!
//! What a record cannot be without refuses it. What it can be without, and cannot be read, is a warning that says what is assumed in its
//! place; which is which stands in docs/protocols/spn.md, Inventory, INV-11 to INV-26.

mod availability;
mod optional;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use optional::says_disabled;
use serde_json::{Map, Value};

use super::{Finding, HubRecord, Inventory, Realm, Service, Severity, certificate};
use crate::quic::{Identity, Roots};

/// The UDP port of a hub that names none.
const DEFAULT_PORT: u16 = 4433;
/// X.520 allows no longer Common Name.
const MAX_COMMON_NAME: usize = 64;

/// So many findings of each severity are listed; the others are counted.
const MAX_FINDINGS: usize = 100;
/// The longest message of a finding, in bytes: it may quote what stands in the inventory.
const MAX_MESSAGE: usize = 500;

/// The members that a record may have, used or not. Any other one is perhaps misspelt.
mod members {
    pub(super) const ROOT: &[&str] = &["realms"];
    pub(super) const REALM: &[&str] = &[
        "name",
        "cacert",
        "disabled",
        "expiredAt",
        "hubs",
        "title",
        "description",
        "urn",
        "sessionTimeout",
        "administrators",
        "createdAt",
        "updatedAt",
        "deviceIdSigningKey",
        "deviceIdVerificationKey",
        "deviceIDSigningKey",
        "deviceIDVerificationKey",
    ];
    pub(super) const HUB: &[&str] = &[
        "name",
        "fqdn",
        "serverAddress",
        "serverPort",
        "serverCert",
        "serverCertKey",
        "services",
        "title",
        "description",
        "realm",
        "urn",
        "attributes",
        "createdAt",
        "updatedAt",
    ];
    pub(super) const SERVICE: &[&str] = &[
        "name",
        "urn",
        "provider",
        "consumers",
        "singleton",
        "availabilityManagement",
        "title",
        "description",
        "realm",
        "hub",
        "createdAt",
        "updatedAt",
    ];
    pub(super) const AVAILABILITY: &[&str] = &[
        "clusterManagerUrn",
        "serviceId",
        "ondemandStart",
        "ondemandStartOnConsumer",
        "ondemandStartOnPayload",
        "idleTimeout",
        "image",
        "command",
        "options",
        "env",
        "mountPoints",
        "startAt",
        "stopAt",
    ];
}

/// Takes out of an inventory what can be used, and says everything that is wrong with the rest. `now` is the time since 1970.
///
/// ```
/// use std::time::Duration;
/// use towline_core::spn::inventory::read;
///
/// let text = serde_json::json!({"realms": [{"name": "Home", "cacert": ""}]});
/// let (inventory, findings) = read(&text, Duration::ZERO);
/// assert!(inventory.realms.is_empty());
/// assert_eq!(findings[1].to_string(), "realms[0].cacert: no certificate in the PEM text");
/// ```
#[must_use]
pub fn read(value: &Value, now: Duration) -> (Inventory, Vec<Finding>) {
    read_with(value, &BTreeMap::new(), now)
}

/// The same for an inventory that comes in parts, some of which could not be had: `missing` says which list, e.g. `realms[0].hubs`, and why.
#[must_use]
pub fn read_with(value: &Value, missing: &BTreeMap<String, String>, now: Duration) -> (Inventory, Vec<Finding>) {
    let mut reader = Reader {
        now,
        missing,
        findings: Findings::default(),
        names: BTreeMap::new(),
        binds: Vec::new(),
        broken: BTreeSet::new(),
        strangers: BTreeSet::new(),
    };
    let mut inventory = reader.inventory(value);
    reader.tell_shared_addresses(&mut inventory);
    inventory.broken = reader.broken;
    (inventory, reader.findings.close())
}

/// The path of a finding that stands for many.
const ALL: &str = "inventory";

/// How many findings of that severity there are, with those that are counted only.
#[must_use]
pub fn count(findings: &[Finding], severity: Severity) -> usize {
    let more =
        |finding: &Finding| finding.message.split_once(" more ").and_then(|(more, _)| more.parse::<usize>().ok());
    let found = findings.iter().filter(|finding| finding.severity == severity);
    found.map(|finding| if finding.path == ALL { more(finding).unwrap_or(1) } else { 1 }).sum()
}

/// What is wrong, as far as it is listed.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    fn push(&mut self, severity: Severity, path: impl Into<String>, message: impl Into<String>) {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_FINDINGS {
            let mut message = message.into();
            if message.len() > MAX_MESSAGE {
                message.truncate(message.floor_char_boundary(MAX_MESSAGE));
                message.push('…');
            }
            self.list.push(Finding { severity, path: path.into(), message });
        }
    }

    fn close(mut self) -> Vec<Finding> {
        for (severity, count, name) in
            [(Severity::Error, self.errors, "errors"), (Severity::Warning, self.warnings, "warnings")]
        {
            if let Some(more @ 1..) = count.checked_sub(MAX_FINDINGS) {
                let message = format!("{more} more {name}");
                self.list.push(Finding { severity, path: ALL.to_owned(), message });
            }
        }
        self.list
    }
}

struct Reader<'a> {
    now: Duration,
    missing: &'a BTreeMap<String, String>,
    findings: Findings,
    /// Where each name of a list, or URN of a hub's services, has been seen.
    names: BTreeMap<(String, &'static str, String), String>,
    binds: Vec<Bind>,
    broken: BTreeSet<String>,
    /// Members that nobody knows, and of what kind of record; each is said once.
    strangers: BTreeSet<(&'static str, String)>,
}

/// Where a hub is to listen.
struct Bind {
    realm: String,
    hub: String,
    address: SocketAddr,
    path: String,
}

/// A record whose faults are counted: it is usable when there is none.
struct Record<'a> {
    path: String,
    members: &'a Map<String, Value>,
    is_good: bool,
    /// How bad a fault is: a warning where what the record belongs to works without it.
    severity: Severity,
}

impl Record<'_> {
    fn has(&self, member: &str) -> bool {
        !matches!(self.members.get(member), None | Some(Value::Null))
    }

    fn is_empty_list(&self, member: &str) -> bool {
        self.members.get(member).and_then(Value::as_array).is_some_and(Vec::is_empty)
    }
}

impl Reader<'_> {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Severity::Error, path, message);
    }

    fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Severity::Warning, path, message);
    }

    fn report(&mut self, severity: Severity, path: String, message: String) {
        match severity {
            Severity::Error => self.error(path, message),
            Severity::Warning => self.warning(path, message),
        }
    }

    fn fault(&mut self, record: &mut Record<'_>, member: &str, message: impl Into<String>) {
        record.is_good = false;
        let path = format!("{}.{member}", record.path);
        self.report(record.severity, path, message.into());
    }

    fn record<'a>(&mut self, path: String, value: &'a Value) -> Option<Record<'a>> {
        let Value::Object(members) = value else {
            let path = if path.is_empty() { "inventory".to_owned() } else { path };
            self.error(path, format!("expected an object, found {}", kind(value)));
            return None;
        };
        Some(Record { path, members, is_good: true, severity: Severity::Error })
    }

    /// Says which members nobody reads: each name once for each kind of record, where it is first.
    fn strangers(&mut self, record: &Record<'_>, kind: &'static str, known: &[&str]) {
        for member in record.members.keys().filter(|member| !known.contains(&member.as_str())) {
            if self.strangers.len() < MAX_FINDINGS && self.strangers.insert((kind, member.clone())) {
                let path = if record.path.is_empty() { "inventory" } else { &record.path };
                self.warning(path, format!("`{member}` is no member of a {kind}: ignored, here and elsewhere"));
            }
        }
    }

    /// Remembers a record that cannot be used.
    fn judge(&mut self, record: &Record<'_>, key: String) -> Option<()> {
        if !record.is_good {
            self.broken.insert(key);
        }
        record.is_good.then_some(())
    }

    /// A member that is a list of records; absent is empty. `None`: it cannot be had or is none, which is a fault.
    fn list<'a>(&mut self, record: &mut Record<'a>, name: &str) -> Option<Vec<(String, &'a Value)>> {
        let path = if record.path.is_empty() { name.to_owned() } else { format!("{}.{name}", record.path) };
        if let Some(why) = self.missing.get(&path) {
            record.is_good = false;
            self.report(record.severity, path, why.clone());
            return None;
        }
        match record.members.get(name) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => {
                Some(list.iter().enumerate().map(|(nth, value)| (format!("{path}[{nth}]"), value)).collect())
            }
            Some(other) => {
                record.is_good = false;
                let message = format!("expected a list, found {}", kind(other));
                self.report(record.severity, path, message);
                None
            }
        }
    }

    fn required(&mut self, record: &mut Record<'_>, member: &str) -> String {
        match record.members.get(member) {
            Some(Value::String(text)) => return text.clone(),
            None | Some(Value::Null) => self.fault(record, member, "missing"),
            Some(other) => self.fault(record, member, format!("expected a string, found {}", kind(other))),
        }
        String::new()
    }

    /// A string, or a list of strings.
    fn texts(&mut self, record: &mut Record<'_>, member: &str) -> Vec<String> {
        match record.members.get(member) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(list)) => {
                let texts: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                if texts.len() < list.len() {
                    self.fault(record, member, "expected strings only");
                }
                texts
            }
            Some(other) => {
                self.fault(record, member, format!("expected a list of strings, found {}", kind(other)));
                Vec::new()
            }
        }
    }

    fn name(&mut self, record: &mut Record<'_>) -> String {
        let name = self.required(record, "name");
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || !name.chars().all(is_allowed) {
            if record.has("name") {
                self.fault(record, "name", format!("`{name}`: expected letters, digits, `-`, `_`, `.` and `@`"));
            }
        } else {
            self.only(record, "name", &name);
        }
        name
    }

    /// A member whose value no other record of the same list may have.
    fn only(&mut self, record: &mut Record<'_>, member: &'static str, value: &str) {
        let list = record.path.rsplit_once('[').map_or("", |(list, _)| list);
        let key = (list.to_owned(), member, value.to_owned());
        if let Some(other) = self.names.insert(key, record.path.clone()) {
            self.fault(record, member, format!("`{value}` is the {member} of {other}, too"));
        }
    }

    fn inventory(&mut self, value: &Value) -> Inventory {
        let Some(mut root) = self.record(String::new(), value) else { return Inventory::default() };
        self.strangers(&root, "file", members::ROOT);
        if !root.has("realms") {
            self.error("realms", "missing: expected a list of realms");
            return Inventory::default();
        }
        let realms = self.list(&mut root, "realms");
        if realms.as_ref().is_some_and(Vec::is_empty) {
            self.warning("realms", "empty: nothing will run");
        }
        let realms = realms.into_iter().flatten().filter_map(|(path, value)| self.realm(path, value)).collect();
        Inventory { realms, broken: BTreeSet::new() }
    }

    fn realm(&mut self, path: String, value: &Value) -> Option<Realm> {
        let mut record = self.record(path, value)?;
        self.strangers(&record, "realm", members::REALM);
        let name = self.name(&mut record);
        if name == "master" {
            self.fault(&mut record, "name", "`master` is reserved");
        } else if name.chars().any(|c| c.is_ascii_uppercase() || "_.@".contains(c)) {
            let path = format!("{}.name", record.path);
            self.warning(path, format!("`{name}`: expected small letters, digits and `-`"));
        }
        let client_ca = self.required(&mut record, "cacert");
        if record.has("cacert") {
            if let Err(error) = Roots::from_pem(&client_ca) {
                self.fault(&mut record, "cacert", error.to_string());
            }
            for facts in certificate::facts(&client_ca) {
                let path = format!("{}.cacert", record.path);
                if !facts.is_ca {
                    self.warning(path.clone(), "the certificate is no CA: it verifies nobody but itself");
                }
                if let Some(Err(message) | Ok(message)) = facts.validity(self.now) {
                    self.warning(path, message);
                }
            }
        }
        let is_disabled = self.is_disabled(&record);
        let is_expired = self.is_expired(&record);
        let is_enabled = !is_disabled && !is_expired;
        let hubs = self.list(&mut record, "hubs");
        if is_enabled && hubs.as_ref().is_some_and(Vec::is_empty) {
            self.warning(record.path.clone(), "no hubs: nothing will run for this realm");
        }
        let hubs: Vec<HubRecord> =
            hubs.into_iter().flatten().filter_map(|(path, value)| self.hub(path, value, &name)).collect();
        // A realm that is off is off, whatever else is wrong with it.
        if is_enabled {
            self.judge(&record, name.clone())?;
        } else if name.is_empty() {
            return None;
        }
        Some(Realm { name, client_ca, is_enabled, hubs })
    }

    /// Two hubs cannot listen at one address. What does not run is in nobody's way.
    fn tell_shared_addresses(&mut self, inventory: &mut Inventory) {
        let mut taken: Vec<Bind> = Vec::new();
        for bind in std::mem::take(&mut self.binds) {
            let realm = inventory.realms.iter_mut().find(|realm| realm.name == bind.realm && realm.is_enabled);
            let Some(realm) = realm else { continue };
            let Some(other) = taken.iter().find(|other| overlap(other.address, bind.address)) else {
                if realm.hubs.iter().any(|hub| hub.name == bind.hub) {
                    taken.push(bind);
                }
                continue;
            };
            let at = if other.address == bind.address { String::new() } else { format!(" {}", other.address) };
            let message = format!("{} is the address{at} of {}, too", bind.address, other.path);
            realm.hubs.retain(|hub| hub.name != bind.hub);
            self.broken.insert(format!("{}/{}", bind.realm, bind.hub));
            self.error(format!("{}.serverPort", bind.path), message);
        }
    }

    fn hub(&mut self, path: String, value: &Value, realm: &str) -> Option<HubRecord> {
        let mut record = self.record(path, value)?;
        self.strangers(&record, "hub", members::HUB);
        let name = self.name(&mut record);
        let fqdn = self.optional_text(&record, "fqdn", "none is assumed").unwrap_or_default();
        let bind = self.bind(&mut record);
        let certificate = self.required(&mut record, "serverCert");
        let key = self.required(&mut record, "serverCertKey");
        let mut is_pair = true;
        if record.has("serverCert")
            && let Err(error) = Identity::check_chain(&certificate)
        {
            is_pair = false;
            self.fault(&mut record, "serverCert", error.to_string());
        }
        if record.has("serverCertKey")
            && let Err(error) = Identity::check_key(&key)
        {
            is_pair = false;
            self.fault(&mut record, "serverCertKey", error.to_string());
        }
        if is_pair
            && record.has("serverCert")
            && record.has("serverCertKey")
            && let Err(error) = Identity::from_pem(&certificate, &key)
        {
            self.fault(&mut record, "serverCertKey", error.to_string());
        }
        if let Some(leaf) = certificate::facts(&certificate).first() {
            match leaf.validity(self.now) {
                Some(Err(message)) => self.fault(&mut record, "serverCert", message),
                Some(Ok(message)) => self.warning(format!("{}.serverCert", record.path), message),
                None => {}
            }
            if !leaf.has_alt_name {
                let message = "the certificate has no Subject Alternative Name: no endpoint will believe it";
                self.warning(format!("{}.serverCert", record.path), message);
            }
        }
        let services = self.list(&mut record, "services");
        let services = services.into_iter().flatten();
        let services: Vec<Service> =
            services.filter_map(|(path, value)| self.service(path, value, realm, &name)).collect();
        self.shared_names(&record.path, &services);
        if let Some(address) = bind {
            let path = record.path.clone();
            self.binds.push(Bind { realm: realm.to_owned(), hub: name.clone(), address, path });
        }
        self.judge(&record, format!("{realm}/{name}"))?;
        Some(HubRecord { name, fqdn, bind: bind?, certificate, key, services })
    }

    /// Where a hub listens is never guessed: a guess opens a port that nobody has asked for, or takes that of another hub.
    fn bind(&mut self, record: &mut Record<'_>) -> Option<SocketAddr> {
        let ip = match record.members.get("serverAddress") {
            None | Some(Value::Null) => Some(IpAddr::from([0; 4])),
            Some(Value::String(text)) if text.is_empty() => Some(IpAddr::from([0; 4])),
            Some(value) => value.as_str().and_then(|text| text.parse::<IpAddr>().ok()),
        };
        if ip.is_none() {
            let found = found(record.members.get("serverAddress"));
            self.fault(record, "serverAddress", format!("{found}: expected an IP address"));
        }
        let port = match record.members.get("serverPort") {
            None | Some(Value::Null) => {
                self.warning(format!("{}.serverPort", record.path), format!("missing: {DEFAULT_PORT} is used"));
                Some(DEFAULT_PORT)
            }
            Some(value) => {
                let number = value.as_u64().or_else(|| self.quoted(record, "serverPort"));
                let port = number.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                if port.is_none() {
                    self.fault(record, "serverPort", format!("{value}: expected a port, 1 to 65535"));
                }
                port
            }
        };
        Some(SocketAddr::new(ip?, port?))
    }

    fn service(&mut self, path: String, value: &Value, realm: &str, hub: &str) -> Option<Service> {
        let mut record = self.record(path, value)?;
        self.strangers(&record, "service", members::SERVICE);
        let name = self.name(&mut record);
        let default_urn = format!("urn:chip-in:service:{realm}:{hub}:{name}");
        let assumed = format!("`{default_urn}` is assumed");
        let urn = self.optional_text(&record, "urn", &assumed).filter(|urn| !urn.is_empty()).unwrap_or(default_urn);
        self.only(&mut record, "urn", &urn);
        if !record.has("provider") || record.is_empty_list("provider") {
            self.fault(&mut record, "provider", "missing: expected the provider's Common Name");
        }
        let providers = self.texts(&mut record, "provider");
        if !record.has("consumers") {
            self.fault(&mut record, "consumers", "missing: expected a list of Common Names");
        }
        let consumers = self.texts(&mut record, "consumers");
        if record.is_empty_list("consumers") {
            self.warning(format!("{}.consumers", record.path), "empty: nobody may use this service");
        }
        for (member, name) in
            providers.iter().map(|name| ("provider", name)).chain(consumers.iter().map(|name| ("consumers", name)))
        {
            if name.is_empty() {
                self.fault(&mut record, member, "an empty Common Name");
            } else if name.chars().count() > MAX_COMMON_NAME {
                let message = format!("`{name}` is over {MAX_COMMON_NAME} characters, more than a Common Name has");
                self.warning(format!("{}.{member}", record.path), message);
            }
        }
        let singleton = self.is_singleton(&record);
        let availability = self.availability(&record);
        self.judge(&record, format!("{realm}/{hub}/{name}"))?;
        Some(Service { name, urn, providers, consumers, singleton, availability })
    }

    /// A certificate that is entitled to several services has to say which; `sc01` cannot.
    fn shared_names(&mut self, path: &str, services: &[Service]) {
        for (role, names) in [("provider", true), ("consumer", false)] {
            let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
            let mut told = BTreeSet::new();
            for service in services {
                for name in if names { &service.providers } else { &service.consumers } {
                    if let Some(first) = seen.insert(name, &service.name)
                        && first != service.name
                        && told.insert(name)
                    {
                        let message = format!(
                            "`{name}` is a {role} of `{first}` and of `{}`: it must name the service (SPN_SERVICE_URN), which sc01 cannot; without a name it gets the first",
                            service.name
                        );
                        self.warning(format!("{path}.services"), message);
                    }
                }
            }
        }
    }
}

/// Whether two sockets cannot be bound at once.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    // The IPv6 wildcard takes IPv4 as well.
    let takes = |all: IpAddr, other: IpAddr| all.is_unspecified() && (all.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

/// What stands there, for a message: in one line, and not all of a long text.
fn found(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    match value {
        Some(Value::String(text)) => {
            let plain = |c: char| if c.is_control() { ' ' } else { c };
            let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
            format!("`{}{cut}`", text.chars().take(LONGEST).map(plain).collect::<String>())
        }
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        Some(value @ (Value::Null | Value::Array(_) | Value::Object(_))) => kind(value).to_owned(),
        None => "nothing".to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
