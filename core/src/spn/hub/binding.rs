//! From QUIC to the machines, and from the machines to QUIC.
//!
//! [`intake`] turns all input into events of machines, and [`exchange`] carries out their actions. Both work on parts that own their data, and
//! know only the parts below them: [`conn`] (connections and their payload) and [`services`] (the sessions of each service) use [`link`]
//! (sessions on the wire); [`pairings`] (requests to resume) and [`cluster`] (managed providers) use none. What a part needs besides is handed
//! to it with each call, as a [`Context`](super::context::Context).
//!
//! Where some questions are answered:
//!
//! - How a singleton's second provider is refused: `policy/newcomers.rs`.
//! - Where a cron start is decided: `policy/provision.rs`.
//! - How a provider's FIN reaches the consumer: `exchange/connection_actions.rs`.
//! - What happens when `pause_max` passes: that is the endpoint's, `endpoint/machines/connection/pause.rs`. The hub has no such time: requests to
//!   resume expire by `requests_timeout` in `intake/resume.rs`.

pub(super) mod cluster;
pub(super) mod conn;
pub(super) mod exchange;
pub(super) mod intake;
pub(super) mod link;
pub(super) mod pairings;
pub(super) mod services;
