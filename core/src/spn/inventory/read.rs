//! From JSON to an [`Inventory`], record by record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Availability, Finding, HubRecord, Inventory, Realm, Service, Severity, certificate};
use crate::quic::{Identity, IdentityError, Roots};

/// The UDP port of a hub that names none.
const DEFAULT_PORT: u16 = 4433;
/// X.520 allows no longer Common Name.
const MAX_COMMON_NAME: usize = 64;

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
    let mut reader =
        Reader { now, findings: Vec::new(), names: BTreeMap::new(), binds: BTreeMap::new(), broken: BTreeSet::new() };
    let mut inventory = reader.inventory(value);
    inventory.broken = reader.broken;
    (inventory, reader.findings)
}

struct Reader {
    now: Duration,
    findings: Vec<Finding>,
    /// Where each name of a list has been seen.
    names: BTreeMap<(String, String), String>,
    /// Which hub has which address.
    binds: BTreeMap<SocketAddr, String>,
    broken: BTreeSet<String>,
}

/// A record whose faults are counted: it is usable when there is none.
struct Record<'a> {
    path: String,
    members: &'a Map<String, Value>,
    is_good: bool,
}

impl Reader {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Error, path: path.into(), message: message.into() });
    }

    fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Warning, path: path.into(), message: message.into() });
    }

    fn fault(&mut self, record: &mut Record<'_>, member: &str, message: impl Into<String>) {
        record.is_good = false;
        let path = format!("{}.{member}", record.path);
        self.error(path, message);
    }

    fn record<'a>(&mut self, path: String, value: &'a Value) -> Option<Record<'a>> {
        let Value::Object(members) = value else {
            self.error(path, format!("expected an object, found {}", kind(value)));
            return None;
        };
        Some(Record { path, members, is_good: true })
    }

    /// Remembers a record that cannot be used.
    fn judge(&mut self, record: &Record<'_>, key: String) -> Option<()> {
        if !record.is_good {
            self.broken.insert(key);
        }
        record.is_good.then_some(())
    }

    /// A member that is a list of records; absent is empty.
    fn list<'a>(&mut self, path: &str, name: &str, members: &'a Map<String, Value>) -> Vec<(String, &'a Value)> {
        match members.get(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let prefix = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                list.iter().enumerate().map(|(nth, value)| (format!("{prefix}[{nth}]"), value)).collect()
            }
            Some(other) => {
                self.error(format!("{path}.{name}"), format!("expected a list, found {}", kind(other)));
                Vec::new()
            }
        }
    }

    fn text(&mut self, record: &mut Record<'_>, member: &str) -> Option<String> {
        match record.members.get(member) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                self.fault(record, member, format!("expected a string, found {}", kind(other)));
                None
            }
        }
    }

    fn required(&mut self, record: &mut Record<'_>, member: &str) -> String {
        let is_absent = matches!(record.members.get(member), None | Some(Value::Null));
        if is_absent {
            self.fault(record, member, "missing");
        }
        self.text(record, member).unwrap_or_default()
    }

    fn flag(&mut self, record: &mut Record<'_>, member: &str) -> Option<bool> {
        match record.members.get(member) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                self.fault(record, member, format!("expected true or false, found {}", kind(other)));
                None
            }
        }
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

    fn name(&mut self, record: &mut Record<'_>, list: &str) -> String {
        let name = self.required(record, "name");
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || !name.chars().all(is_allowed) {
            if record.members.contains_key("name") {
                self.fault(record, "name", format!("`{name}`: expected letters, digits, `-`, `_`, `.` and `@`"));
            }
        } else if let Some(other) = self.names.insert((list.to_owned(), name.clone()), record.path.clone()) {
            self.fault(record, "name", format!("`{name}` is the name of {other}, too"));
        }
        name
    }

    fn inventory(&mut self, value: &Value) -> Inventory {
        let Some(root) = self.record(String::new(), value) else { return Inventory::default() };
        if !root.members.contains_key("realms") {
            self.error("realms", "missing: expected a list of realms");
            return Inventory::default();
        }
        let realms = self.list("", "realms", root.members);
        if realms.is_empty() {
            self.warning("realms", "empty: nothing will run");
        }
        let realms = realms.into_iter().filter_map(|(path, value)| self.realm(path, value)).collect();
        Inventory { realms, broken: BTreeSet::new() }
    }

    fn realm(&mut self, path: String, value: &Value) -> Option<Realm> {
        let mut record = self.record(path, value)?;
        let name = self.name(&mut record, "realms");
        if name == "master" {
            self.fault(&mut record, "name", "`master` is reserved");
        } else if name.chars().any(|c| c.is_ascii_uppercase() || "_.@".contains(c)) {
            let path = format!("{}.name", record.path);
            self.warning(path, format!("`{name}`: expected small letters, digits and `-`"));
        }
        let client_ca = self.required(&mut record, "cacert");
        if record.members.contains_key("cacert") {
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
        let is_disabled = self.flag(&mut record, "disabled").unwrap_or(false);
        let is_expired = self.is_expired(&mut record);
        let hubs = self.list(&record.path, "hubs", record.members);
        if hubs.is_empty() {
            self.warning(record.path.clone(), "no hubs: nothing will run for this realm");
        }
        let hubs = hubs.into_iter().filter_map(|(path, value)| self.hub(path, value, &name)).collect();
        self.judge(&record, name.clone())?;
        Some(Realm { name, client_ca, is_enabled: !is_disabled && !is_expired, hubs })
    }

    fn is_expired(&mut self, record: &mut Record<'_>) -> bool {
        let Some(text) = self.text(record, "expiredAt").filter(|text| !text.is_empty()) else { return false };
        match OffsetDateTime::parse(&text, &Rfc3339) {
            Ok(at) if at.unix_timestamp() <= self.now.as_secs() as i64 => {
                self.warning(format!("{}.expiredAt", record.path), format!("{text} is past: the realm is off"));
                true
            }
            Ok(_) => false,
            Err(_) => {
                self.fault(record, "expiredAt", format!("`{text}`: expected a time like 2027-01-31T00:00:00Z"));
                false
            }
        }
    }

    fn hub(&mut self, path: String, value: &Value, realm: &str) -> Option<HubRecord> {
        let mut record = self.record(path, value)?;
        let name = self.name(&mut record, &format!("hubs of {realm}"));
        let fqdn = self.text(&mut record, "fqdn").unwrap_or_default();
        let bind = self.bind(&mut record);
        let certificate = self.required(&mut record, "serverCert");
        let key = self.required(&mut record, "serverCertKey");
        if record.members.contains_key("serverCert") && record.members.contains_key("serverCertKey") {
            if let Err(error) = Identity::from_pem(&certificate, &key) {
                let member = match error {
                    IdentityError::NoKey | IdentityError::Key(_) | IdentityError::Mismatch => "serverCertKey",
                    IdentityError::NoCertificate
                    | IdentityError::Pem(_)
                    | IdentityError::Certificate(_)
                    | IdentityError::Root(_)
                    | IdentityError::Tls(_) => "serverCert",
                };
                self.fault(&mut record, member, error.to_string());
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
        }
        let services = self.list(&record.path, "services", record.members);
        let scope = format!("{realm} {name}");
        let services: Vec<Service> =
            services.into_iter().filter_map(|(path, value)| self.service(path, value, realm, &name, &scope)).collect();
        self.shared_names(&record.path, &services);
        self.judge(&record, format!("{realm}/{name}"))?;
        Some(HubRecord { name, fqdn, bind, certificate, key, services })
    }

    fn bind(&mut self, record: &mut Record<'_>) -> SocketAddr {
        let address = self.text(record, "serverAddress").unwrap_or_else(|| "0.0.0.0".to_owned());
        let ip = address.parse::<IpAddr>().unwrap_or_else(|_| {
            self.fault(record, "serverAddress", format!("`{address}`: expected an IP address"));
            IpAddr::from([0, 0, 0, 0])
        });
        let port = match record.members.get("serverPort") {
            None | Some(Value::Null) => {
                self.warning(format!("{}.serverPort", record.path), format!("missing: {DEFAULT_PORT} is used"));
                DEFAULT_PORT
            }
            Some(value) => {
                value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or_else(|| {
                    self.fault(record, "serverPort", format!("{value}: expected a port, 1 to 65535"));
                    DEFAULT_PORT
                })
            }
        };
        let bind = SocketAddr::new(ip, port);
        if let Some(other) = self.binds.insert(bind, record.path.clone()) {
            self.fault(record, "serverPort", format!("{bind} is the address of {other}, too"));
        }
        bind
    }

    fn service(&mut self, path: String, value: &Value, realm: &str, hub: &str, scope: &str) -> Option<Service> {
        let mut record = self.record(path, value)?;
        let name = self.name(&mut record, &format!("services of {scope}"));
        let default_urn = format!("urn:chip-in:service:{realm}:{hub}:{name}");
        let urn = self.text(&mut record, "urn").filter(|urn| !urn.is_empty()).unwrap_or(default_urn);
        let providers = self.texts(&mut record, "provider");
        if providers.is_empty() && record.is_good {
            self.fault(&mut record, "provider", "missing: expected the provider's Common Name");
        }
        if !record.members.contains_key("consumers") {
            self.fault(&mut record, "consumers", "missing: expected a list of Common Names");
        }
        let consumers = self.texts(&mut record, "consumers");
        if consumers.is_empty() && record.is_good {
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
        let singleton = self.flag(&mut record, "singleton").unwrap_or(false);
        let availability = match record.members.get("availabilityManagement") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let availability = self.availability(format!("{}.availabilityManagement", record.path), value);
                record.is_good &= availability.is_some();
                availability
            }
        };
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

    fn availability(&mut self, path: String, value: &Value) -> Option<Availability> {
        let mut record = self.record(path, value)?;
        let cluster_manager = self.required(&mut record, "clusterManagerUrn");
        let service_id = self.required(&mut record, "serviceId");
        let on_demand = self.flag(&mut record, "ondemandStart");
        let on_consumer = self.flag(&mut record, "ondemandStartOnConsumer");
        let on_payload = self.flag(&mut record, "ondemandStartOnPayload");
        if on_demand.or(on_consumer).or(on_payload).is_none() {
            let message = "no ondemandStart…: the provider is started when the inventory is loaded";
            self.warning(record.path.clone(), message);
        }
        // `ondemandStart` alone means both.
        let both = on_demand == Some(true) && on_consumer.is_none() && on_payload.is_none();
        let idle = record.members.get("idleTimeout").cloned().unwrap_or(Value::Null);
        let idle_timeout_s = match &idle {
            Value::Null => 0,
            // A negative one is never, too.
            Value::Number(number) if number.is_i64() || number.is_u64() => number.as_u64().unwrap_or(0),
            Value::Number(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                self.fault(&mut record, "idleTimeout", format!("expected seconds, found {}", kind(&idle)));
                0
            }
        };
        let image = self.text(&mut record, "image").unwrap_or_default();
        let command = self.texts(&mut record, "command");
        let options = self.texts(&mut record, "options");
        let env = self.env(&mut record);
        let mount_points = self.mount_points(&record);
        record.is_good.then_some(Availability {
            cluster_manager,
            service_id,
            on_consumer: both || on_consumer.unwrap_or(false),
            on_payload: both || on_payload.unwrap_or(false),
            idle_timeout_s,
            image,
            command,
            options,
            env,
            mount_points: mount_points?,
        })
    }

    fn env(&mut self, record: &mut Record<'_>) -> BTreeMap<String, String> {
        match record.members.get("env") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(members)) => {
                let texts = members.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                let env: BTreeMap<_, _> = texts.collect();
                if env.len() < members.len() {
                    self.fault(record, "env", "expected strings only");
                }
                env
            }
            Some(other) => {
                self.fault(record, "env", format!("expected an object of strings, found {}", kind(other)));
                BTreeMap::new()
            }
        }
    }

    fn mount_points(&mut self, parent: &Record<'_>) -> Option<Vec<(u64, String)>> {
        let list = self.list(&parent.path, "mountPoints", parent.members);
        let mut points = Vec::new();
        for (path, value) in list {
            let mut record = self.record(path, value)?;
            // Both spellings are in use.
            let size = record.members.get("volumeSize").or_else(|| record.members.get("volume_size"));
            let size = size.and_then(Value::as_u64).filter(|size| (1..=100).contains(size));
            if size.is_none() {
                self.fault(&mut record, "volumeSize", "expected GiB, 1 to 100");
            }
            let target = self.required(&mut record, "target");
            if !record.is_good {
                return None;
            }
            points.push((size?, target));
        }
        Some(points)
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
