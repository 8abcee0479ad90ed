//! Protocols that keep things reachable over connections that break, as pure state machines.
//!
//! Two floors live here: **machines** (what a protocol decides: typed events in, typed actions out) and **bindings**
//! (what it looks like on a wire: bytes in, bytes out). Neither does I/O, reads a clock or draws a random number.
//!
//! # Where to begin
//!
//! | you want to | take | drive it as |
//! |---|---|---|
//! | run a hub in your own loop | [`spn::hub::Hub`] | a datagram binding |
//! | use or provide a service through hubs | [`spn::endpoint::Endpoint`] | a datagram binding |
//! | run the caching proxy | [`txn::proxy::Proxy`] | a byte-stream binding ([`net::StreamBinding`]) |
//! | fuzz, replay or explore a protocol | [`tools`], the machines in [`spn::hub::machines`], [`spn::endpoint::machines`], [`txn`] | a [`Machine`] |
//! | run a byte-stream binding over TLS | [`tls::Tls`] | a byte-stream binding |
//! | write a protocol of your own | [`machine`], and `docs/writing-a-machine.md` | |
//! | leave the loop to us | the crates `towline-tokio` and `towline-smol` | |
//!
//! A datagram binding is driven in four steps: datagrams and the deadline go in, datagrams come out, notices come out, and the loop sleeps
//! until the next deadline. This is a whole hub:
//!
//! ```no_run
//! use std::{
//!     io,
//!     net::UdpSocket,
//!     time::{Duration, Instant, SystemTime, UNIX_EPOCH},
//! };
//!
//! use towline_core::{
//!     Epoch, Received,
//!     spn::hub::{Config, Hub, Notice},
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let socket = UdpSocket::bind("192.0.2.1:4433")?;
//! let mut config = Config::new("realm", "hub", socket.local_addr()?);
//! config.certificate = std::fs::read_to_string("hub.pem")?;
//! config.key = std::fs::read_to_string("hub.key")?;
//! config.client_ca = std::fs::read_to_string("ca.pem")?;
//! // The services, and who may provide and use them: `config.services`.
//!
//! let start = Instant::now();
//! let seed = [0; 32]; // a real host asks its system for random bytes
//! let epoch = Epoch { instant: start, unix: SystemTime::now().duration_since(UNIX_EPOCH)? };
//! let mut hub = Hub::new(start, config, seed, epoch)?;
//! hub.set_max_segments(1); // this loop sends datagrams one by one
//!
//! let (mut datagram, mut out) = (vec![0; 65_536], Vec::new());
//! loop {
//!     // 1. What has come, and the deadline.
//!     let now = Instant::now();
//!     let wait = hub.poll_timeout().map_or(Duration::from_secs(1), |due| due.saturating_duration_since(now));
//!     socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
//!     match socket.recv_from(&mut datagram) {
//!         Ok((length, remote)) => {
//!             let data = datagram[..length].into();
//!             hub.handle_datagram(Instant::now(), Received { remote, local_ip: None, ecn: None, data });
//!         }
//!         Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
//!         Err(error) => return Err(error.into()),
//!     }
//!     let now = Instant::now();
//!     if hub.poll_timeout().is_some_and(|due| due <= now) {
//!         hub.handle_timeout(now);
//!     }
//!     // 2. What is to be sent.
//!     while let Some(transmit) = hub.poll_transmit(now, &mut out) {
//!         socket.send_to(&out, transmit.destination)?;
//!     }
//!     // 3. What there is to know, or to do.
//!     while let Some(notice) = hub.poll_notice() {
//!         match notice {
//!             Notice::Record(record) => println!("{}", record.to_json(&hub.epoch())),
//!             Notice::Stopped => return Ok(()),
//!             _ => {}
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! `core/examples/hub_on_mio.rs` is such a host with batches and a socket that never blocks.
//!
//! # Features
//!
//! - `pipe` (default): calls, messages and streams between two peers.
//! - `spn` (default): services behind a hub, over QUIC.
//! - `txn` (default): transactions, by way of a caching proxy.
//! - `tls`: TLS under any byte-stream binding; `spn` contains it.
//! - `host`: the loops that carry bytes between bindings and sockets, generic over a runtime.
//!
//! Without any, the pattern ([`machine`]), its [`tools`] and the vocabulary of byte streams ([`net`]) remain, for protocols of your own.

#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, reason = "a test may panic on all the rest"))]

// The example in `machine` is read as documentation, where the crate has its outside name.
extern crate self as towline_core;

pub mod epoch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "host")]
pub mod host;
pub mod machine;
pub mod net;
#[cfg(feature = "pipe")]
pub mod pipe;
#[cfg(feature = "spn")]
pub mod quic;
#[cfg(feature = "spn")]
pub mod spn;
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod tools;
#[cfg(feature = "txn")]
pub mod txn;

pub use epoch::Epoch;
pub use machine::Machine;
#[cfg(feature = "spn")]
pub use quic::{Received, Transmit};
#[cfg(feature = "tls")]
pub use tls::{Identity, Roots};
