//! How a service's provider is started and stopped. A service works without: whoever provides it may be started by anybody.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Reader, Record, Severity, kind, members};
use crate::spn::hub::{Availability, Schedule};

/// When something happens, as far as it can be read.
enum Times {
    Never,
    At(Box<Schedule>),
    Unreadable,
}

impl Reader<'_> {
    /// What the record of a service says of its provider. Where that cannot be used the service is managed by nobody.
    ///
    /// What the cluster manager is given is used whole or not at all: a provider without one of its options, variables or volumes
    /// could be less shut in than it was to be, or work beside its data.
    pub(super) fn availability(&mut self, service: &Record<'_>) -> Option<Availability> {
        let path = format!("{}.availabilityManagement", service.path);
        let availability = match service.members.get("availabilityManagement") {
            None | Some(Value::Null) => return None,
            Some(Value::Object(members)) => {
                let record = Record { path: path.clone(), members, is_good: true, severity: Severity::Warning };
                self.strangers(&record, "availabilityManagement", members::AVAILABILITY);
                self.management(record)
            }
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_))) => {
                self.warning(path.clone(), format!("expected an object, found {}", kind(other)));
                None
            }
        };
        if availability.is_none() {
            let message = "cannot be used: the service is offered, but its provider is neither started nor stopped";
            self.warning(path, message);
        }
        availability
    }

    fn management(&mut self, mut record: Record<'_>) -> Option<Availability> {
        let cluster_manager = self.required(&mut record, "clusterManagerUrn");
        let service_id = self.required(&mut record, "serviceId");
        let absent = "taken as false";
        let on_demand = self.flag(&record, "ondemandStart", false, absent);
        let on_consumer = self.flag(&record, "ondemandStartOnConsumer", false, absent);
        let on_payload = self.flag(&record, "ondemandStartOnPayload", false, absent);
        if on_demand.or(on_consumer).or(on_payload).is_none() {
            let message = "no ondemandStart…: the provider is started when the inventory is loaded";
            self.warning(record.path.clone(), message);
        }
        // `ondemandStart` means both, unless one of them is named.
        let (on_consumer, on_payload) = match (on_demand, on_consumer, on_payload) {
            (Some(true), Some(false), None) => (false, true),
            (Some(true), None, Some(false)) => (true, false),
            (Some(true), None, None) | (Some(true), Some(false), Some(false)) => (true, true),
            (_, on_consumer, on_payload) => (on_consumer == Some(true), on_payload == Some(true)),
        };
        let idle_timeout_s = self.idle_timeout(&record);
        let is_on_demand = on_consumer || on_payload;
        if idle_timeout_s > 0 && !is_on_demand {
            let message = "has no effect: only a provider that is started on demand is stopped when idle";
            self.warning(format!("{}.idleTimeout", record.path), message);
        }
        let (start_at, stop_at) = self.hours(&record, is_on_demand);
        let image = self.given_text(&mut record, "image");
        let command = self.given_texts(&mut record, "command");
        let options = self.given_texts(&mut record, "options");
        let env = self.env(&mut record);
        let mount_points = self.mount_points(&mut record);
        record.is_good.then_some(Availability {
            cluster_manager,
            service_id,
            on_consumer,
            on_payload,
            start_at,
            stop_at,
            idle_timeout_s,
            image,
            command,
            options,
            env,
            mount_points,
        })
    }

    fn idle_timeout(&mut self, record: &Record<'_>) -> u64 {
        match record.members.get("idleTimeout") {
            None | Some(Value::Null) => 0,
            // A negative one is never, too.
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.as_u64().unwrap_or(0),
            Some(Value::String(text)) if text.trim().is_empty() => 0,
            Some(Value::Number(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                self.quoted(record, "idleTimeout").unwrap_or_else(|| {
                    self.assume(record, "idleTimeout", "seconds", "an idle provider is not stopped");
                    0
                })
            }
        }
    }

    /// When the clock starts and stops the provider.
    fn hours(&mut self, record: &Record<'_>, is_on_demand: bool) -> (Option<Schedule>, Option<Schedule>) {
        let start = self.times(record, "startAt", "the clock does not start the provider");
        let stop = self.times(record, "stopAt", "the clock does not stop the provider");
        match (start, stop) {
            // It would be stopped, and started by nobody ever again.
            (Times::Unreadable, Times::At(_)) if !is_on_demand => {
                let message = "has no effect while startAt cannot be read: the provider would not be started again";
                self.warning(format!("{}.stopAt", record.path), message);
                (None, None)
            }
            (start, stop) => (start.schedule(), stop.schedule()),
        }
    }

    /// A cron pattern. The stock inventory has empty ones where there is none.
    fn times(&mut self, record: &Record<'_>, member: &str, assumed: &str) -> Times {
        let value = match record.members.get(member) {
            None | Some(Value::Null) => return Times::Never,
            Some(Value::String(text)) if text.trim().is_empty() => return Times::Never,
            Some(value) => value,
        };
        match value.as_str().map(str::parse::<Schedule>) {
            Some(Ok(schedule)) => Times::At(Box::new(schedule)),
            Some(Err(error)) => {
                self.warning(format!("{}.{member}", record.path), format!("{error}; {assumed}"));
                Times::Unreadable
            }
            None => {
                self.assume(record, member, "a cron pattern", assumed);
                Times::Unreadable
            }
        }
    }

    /// A text for the cluster manager.
    fn given_text(&mut self, record: &mut Record<'_>, member: &str) -> String {
        let Some(value) = record.members.get(member).filter(|value| !value.is_null()) else { return String::new() };
        let path = format!("{}.{member}", record.path);
        let text = self.scalar(path, value);
        if text.is_none() {
            self.fault(record, member, format!("expected a string, found {}", kind(value)));
        }
        text.unwrap_or_default()
    }

    /// Texts for the cluster manager: one, or a list.
    fn given_texts(&mut self, record: &mut Record<'_>, member: &str) -> Vec<String> {
        match record.members.get(member) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let path = format!("{}.{member}", record.path);
                let texts: Vec<String> = (list.iter().enumerate())
                    .filter_map(|(nth, value)| self.scalar(format!("{path}[{nth}]"), value))
                    .collect();
                if texts.len() < list.len() {
                    self.fault(record, member, "expected strings only");
                }
                texts
            }
            Some(Value::Object(_)) => {
                self.fault(record, member, "expected a list of strings, found an object");
                Vec::new()
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => vec![self.given_text(record, member)],
        }
    }

    fn env(&mut self, record: &mut Record<'_>) -> BTreeMap<String, String> {
        match record.members.get("env") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(members)) => {
                let path = format!("{}.env", record.path);
                let texts = members
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), self.scalar(format!("{path}.{name}"), value)?)));
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

    /// A string, or what YAML has taken for something else because it was not in quotes.
    fn scalar(&mut self, path: String, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => {
                // Without the value: it may be a secret.
                let message = "is used in its plain form; in quotes it is used as it is written";
                self.warning(path, format!("expected a string, found {}: it {message}", kind(value)));
                Some(value.to_string())
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn mount_points(&mut self, parent: &mut Record<'_>) -> Vec<(u64, String)> {
        let list = self.list(parent, "mountPoints");
        let mut points = Vec::new();
        for (path, value) in list.into_iter().flatten() {
            let Value::Object(members) = value else {
                parent.is_good = false;
                self.warning(path, format!("expected an object, found {}", kind(value)));
                continue;
            };
            let mut record = Record { path, members, is_good: true, severity: parent.severity };
            // Both spellings are in use.
            let member = if record.has("volumeSize") { "volumeSize" } else { "volume_size" };
            let size = record.members.get(member).and_then(Value::as_u64).or_else(|| self.quoted(&record, member));
            let size = size.filter(|size| (1..=100).contains(size));
            if size.is_none() {
                self.fault(&mut record, "volumeSize", "expected GiB, 1 to 100");
            }
            let target = self.required(&mut record, "target");
            parent.is_good &= record.is_good;
            points.extend(size.map(|size| (size, target)));
        }
        points
    }
}

impl Times {
    fn schedule(self) -> Option<Schedule> {
        match self {
            Self::At(schedule) => Some(*schedule),
            Self::Never | Self::Unreadable => None,
        }
    }
}
