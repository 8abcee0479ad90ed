//! Records: what a hub writes about each session and connection, at its start and at its end (docs/protocols/spn.md, Records, REC-1 to REC-6).

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize, Serializer};

use super::Role;
use crate::epoch::Epoch;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TerminateReason {
    /// The hub ended it, by lost entitlement or a session that took its place; or the hub was leaving.
    Shutdown,
    /// The endpoint ended it.
    TerminatedByPeer,
    /// A violation, a time-out or the network ended it.
    Error,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DisconnectReason {
    /// One end aborted.
    ClosedByPeer,
    /// Orderly end.
    Closed,
    /// Hub or network.
    Error,
}

/// A session, as both of its records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Hex of the hub's first QUIC connection id.
    pub id: String,
    /// Subject of the endpoint's certificate (RFC 4514).
    pub end_point: String,
    /// What the endpoint is.
    pub role: Role,
    /// The service it belongs to.
    pub service: Arc<str>,
}

/// A connection, as both of its records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// QUIC stream ids of the consumer's and of the provider's side, joined by `-`.
    pub id: String,
    /// The consumer's session.
    pub consumer: String,
    /// The provider's session.
    pub provider: String,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub at: Instant,
    /// Realm of the hub.
    pub realm: Arc<str>,
    /// Name of the hub.
    pub hub: Arc<str>,
    /// What happened.
    pub event: RecordEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordEvent {
    /// A session was established.
    StartSession(SessionRecord),
    /// It is over.
    EndSession {
        /// Which.
        session: SessionRecord,
        /// Connections made on it.
        connections: u64,
        /// How long it lasted.
        elapsed_ms: u64,
        /// Why it ended.
        reason: TerminateReason,
    },
    /// A connection has its provider.
    StartConnection(ConnectionRecord),
    /// It is over.
    EndConnection {
        /// Which.
        connection: ConnectionRecord,
        /// Payload bytes from consumer to provider.
        sent: u64,
        /// Payload bytes from provider to consumer.
        received: u64,
        /// How long it lasted.
        elapsed_ms: u64,
        /// Why it ended.
        reason: DisconnectReason,
    },
}

/// The fields of a line, in their order.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spn_session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spn_end_point: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spn_connection_id: Option<&'a str>,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "end_point_type")]
    end_point_type: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_urn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_side_spn_session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_side_spn_session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_connection_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_receive_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminate_reason: Option<TerminateReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<DisconnectReason>,
    realm: &'a str,
    hub: &'a str,
}

fn end_point_type<S: Serializer>(role: &Option<Role>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match role {
        Some(Role::Provider) => "serviceProvider",
        Some(Role::Consumer) | None => "serviceConsumer",
    })
}

impl<'a> Line<'a> {
    fn session(&mut self, session: &'a SessionRecord) {
        self.spn_session_id = Some(&session.id);
        self.spn_end_point = Some(&session.end_point);
        self.end_point_type = Some(session.role);
        self.service_urn = Some(&session.service);
    }

    fn connection(&mut self, connection: &'a ConnectionRecord) {
        self.spn_connection_id = Some(&connection.id);
        self.consumer_side_spn_session_id = Some(&connection.consumer);
        self.provider_side_spn_session_id = Some(&connection.provider);
    }
}

impl Record {
    /// The record as one JSON object, without a line end. `epoch` turns its time into a timestamp.
    #[must_use]
    pub fn to_json(&self, epoch: &Epoch) -> String {
        let mut line =
            Line { timestamp: epoch.rfc3339_at(self.at), realm: &self.realm, hub: &self.hub, ..Line::default() };
        match &self.event {
            RecordEvent::StartSession(session) => {
                line.event_type = "startSpnSession";
                line.session(session);
            }
            RecordEvent::EndSession { session, connections, elapsed_ms, reason } => {
                line.event_type = "endSpnSession";
                line.session(session);
                line.total_connection_count = Some(*connections);
                line.elapsed_time = Some(*elapsed_ms);
                line.terminate_reason = Some(*reason);
            }
            RecordEvent::StartConnection(connection) => {
                line.event_type = "startSpnConnection";
                line.connection(connection);
            }
            RecordEvent::EndConnection { connection, sent, received, elapsed_ms, reason } => {
                line.event_type = "endSpnConnection";
                line.connection(connection);
                line.total_sent_bytes = Some(*sent);
                line.total_receive_bytes = Some(*received);
                line.elapsed_time = Some(*elapsed_ms);
                line.disconnect_reason = Some(*reason);
            }
        }
        // Strings and numbers only: this cannot fail.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::first_instant;

    fn line(event: RecordEvent) -> String {
        let at = first_instant();
        let epoch = Epoch { instant: at, unix: Duration::from_millis(1_767_225_600_007) };
        Record { at: at + Duration::from_secs(1), realm: "r".into(), hub: "h".into(), event }.to_json(&epoch)
    }

    #[test]
    fn sessions() {
        let session = SessionRecord {
            id: "0102030405060708".into(),
            end_point: "CN=p,O=x".into(),
            role: Role::Provider,
            service: "urn:s".into(),
        };
        assert_eq!(
            line(RecordEvent::StartSession(session.clone())),
            r#"{"timestamp":"2026-01-01T00:00:01.007Z","spnSessionId":"0102030405060708","spnEndPoint":"CN=p,O=x","eventType":"startSpnSession","endPointType":"serviceProvider","serviceUrn":"urn:s","realm":"r","hub":"h"}"#
        );
        let session = SessionRecord { role: Role::Consumer, ..session };
        let reason = TerminateReason::TerminatedByPeer;
        assert_eq!(
            line(RecordEvent::EndSession { session, connections: 3, elapsed_ms: 4, reason }),
            r#"{"timestamp":"2026-01-01T00:00:01.007Z","spnSessionId":"0102030405060708","spnEndPoint":"CN=p,O=x","eventType":"endSpnSession","endPointType":"serviceConsumer","serviceUrn":"urn:s","totalConnectionCount":3,"elapsedTime":4,"terminateReason":"terminatedByPeer","realm":"r","hub":"h"}"#
        );
    }

    #[test]
    fn connections() {
        let connection = ConnectionRecord { id: "4-1".into(), consumer: "c".into(), provider: "p".into() };
        assert_eq!(
            line(RecordEvent::StartConnection(connection.clone())),
            r#"{"timestamp":"2026-01-01T00:00:01.007Z","spnConnectionId":"4-1","eventType":"startSpnConnection","consumerSideSpnSessionId":"c","providerSideSpnSessionId":"p","realm":"r","hub":"h"}"#
        );
        let reason = DisconnectReason::ClosedByPeer;
        assert_eq!(
            line(RecordEvent::EndConnection { connection, sent: 1, received: 2, elapsed_ms: 3, reason }),
            r#"{"timestamp":"2026-01-01T00:00:01.007Z","spnConnectionId":"4-1","eventType":"endSpnConnection","consumerSideSpnSessionId":"c","providerSideSpnSessionId":"p","totalSentBytes":1,"totalReceiveBytes":2,"elapsedTime":3,"disconnectReason":"closedByPeer","realm":"r","hub":"h"}"#
        );
    }
}
