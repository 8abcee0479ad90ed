//! QUIC (RFC 9000) as a binding: datagrams in, datagrams out; streams and control datagrams as typed events.
//!
//! A thin layer over `quinn-proto` and `rustls` with mutual TLS. One [`Endpoint`] is one UDP socket: it holds all connections of that socket,
//! as server, client or both. No I/O and no clock: `now` is an argument, and randomness comes from one seed.
//!
//! # Call contract
//!
//! 1. Feed a batch: [`Endpoint::handle_datagram`] for each datagram that came, [`Endpoint::handle_timeout`] when its time has come.
//! 2. Drain [`Endpoint::poll_event`], and act on streams as you like.
//! 3. Drain [`Endpoint::poll_transmit`] into the socket.
//! 4. Ask [`Endpoint::poll_timeout`] when to come back.
//!
//! Nothing here walks over all connections or streams: each is looked at after it was touched.

mod config;
mod congestion;
mod datagram;
mod endpoint;
mod event;
#[cfg(test)]
mod tests;

pub use crate::{
    epoch::Epoch,
    tls::{Clock, Identity, IdentityError, PeerIdentity, Roots},
};
pub use config::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig, reset_key};
pub use congestion::{Congestion, CongestionError};
pub use datagram::{Ecn, Received, StreamId, Transmit};
pub use endpoint::{Endpoint, Handle, TurnedAway};
pub(crate) use event::one_line;
pub use event::{CloseReason, ConnectError, Event, ReadOutcome, WriteOutcome};
