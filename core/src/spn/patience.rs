//! How long a sign of life may take before silence means something: one measure for hubs and providers (docs/protocols/spn.md, Choosing a provider,
//! PRV-12 and PRV-16).

use std::time::Duration;

/// How many round trips an acknowledgement may take,
const ROUND_TRIPS: u32 = 4;
/// but at least so long: it may be delayed, and a packet may be lost;
pub(super) const LEAST: Duration = Duration::from_millis(250);
/// and at most so long.
const MOST: Duration = Duration::from_secs(1);
/// Whoever is called so much later than it asked for stood still: answers may wait in its socket, and what they answer may be taken back there.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// How long a session with that round-trip time may take.
pub(super) fn patience(rtt: Option<Duration>) -> Duration {
    (rtt.unwrap_or_default() * ROUND_TRIPS).clamp(LEAST, MOST)
}
