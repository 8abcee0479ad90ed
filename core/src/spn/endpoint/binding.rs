//! From QUIC and the host to the machines, and from the machines to QUIC.
//!
//! Parts, which own their data and know neither each other's nor the endpoint's: [`link`] (sessions), [`conn`] (connections and what they keep),
//! [`queue`] (connections that look for a session), [`tombstones`] (what is left of connections that have ended). Two types join them: [`intake`]
//! takes what comes in from the hub and the host, [`exchange`] carries out what the machines decide.
//!
//! | where it is | what |
//! |---|---|
//! | `exchange/connection_actions.rs` | what a connection's machine asks for |
//! | `exchange/session_actions.rs` | what a session's machine asks for; which connection gets which session |
//! | `exchange/requests.rs` | requests to resume, and who is asked for a connection of which nothing was heard |
//! | `intake/frames.rs`, `intake/resume.rs` | what the hub says on the control stream |
//! | `intake/streams.rs`, `intake/legs.rs` | a provider's new streams; the streams after the first |
//! | `intake/payload.rs` | what the host reads and writes, and how a provider's FIN reaches the consumer |
//!
//! What happens when `pause_max` passes is in `machines/connection/pause.rs`.

pub(super) mod conn;
pub(super) mod exchange;
pub(super) mod intake;
pub(super) mod link;
pub(super) mod queue;
pub(super) mod tombstones;
