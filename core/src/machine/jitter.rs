//! Times that differ from machine to machine, so that those which have lost the same thing do not come back all at once.

use std::time::Duration;

/// Scatters times by a fifth. It needs no secret, only to differ; a seed says it all.
///
/// ```
/// use std::time::Duration;
/// use towline_core::machine::Jitter;
///
/// let time = Jitter::new(7).scatter(Duration::from_secs(1));
/// assert!((800..=1200).contains(&time.as_millis()));
/// ```
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// The scatter of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time that is 20 % shorter or longer at most, and no less than a millisecond.
    pub fn scatter(&mut self, time: Duration) -> Duration {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis((ms.saturating_mul(800 + mixed % 401) / 1_000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_scattered_by_a_fifth_and_no_more() {
        let mut jitter = Jitter::new(3);
        let times: Vec<u128> = (0..1000).map(|_| jitter.scatter(Duration::from_secs(1)).as_millis()).collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!((800..820).contains(least) && (1180..=1200).contains(most), "{least} to {most}");
        assert_eq!(jitter.scatter(Duration::ZERO), Duration::from_millis(1));
        assert!(jitter.scatter(Duration::MAX) > Duration::from_secs(1));
    }
}
