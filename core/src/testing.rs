//! For tests only: the one clock reading of the core.

#[cfg(all(feature = "spn", any(test, feature = "fuzzing")))]
pub(crate) mod pki;
#[cfg(all(feature = "spn", any(test, feature = "fuzzing")))]
pub(crate) mod wire;

use std::time::Instant;

/// Where a test's virtual time begins. Everything after it is arithmetic.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "an `Instant` cannot be made in any other way")]
pub fn first_instant() -> Instant {
    Instant::now()
}
