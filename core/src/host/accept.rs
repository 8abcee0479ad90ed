//! When a listener that has run out of file descriptors tries again.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::net::AcceptFault;

/// The first pause,
const FIRST: Duration = Duration::from_millis(100);
/// and the longest.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses of a listener. A listener with clients in its backlog is always ready: without them its loop would ask again at once, for ever.
#[derive(Debug, Default)]
pub struct AcceptPause {
    until: Option<Instant>,
    /// The last one's length.
    last: Duration,
    /// A failure has been said, and nothing was accepted since.
    is_said: bool,
}

impl AcceptPause {
    /// Whether nothing is to be accepted now.
    #[must_use]
    pub fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the next try is due, while there is a pause.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// One was accepted; says whether that ends a want that had been said.
    pub fn accepted(&mut self) -> bool {
        std::mem::take(self).is_said
    }

    /// None could be accepted; says whether that is new, and so to be said. When the next try would fail alike there is a pause.
    pub fn failed(&mut self, now: Instant, error: &io::Error) -> bool {
        match AcceptFault::from(error) {
            // Only this one client's affair.
            AcceptFault::Aborted | AcceptFault::Interrupted => return false,
            AcceptFault::Files | AcceptFault::Memory | AcceptFault::Other => {}
        }
        self.last = (self.last * 2).clamp(FIRST, LONGEST);
        self.until = Some(now + self.last);
        !std::mem::replace(&mut self.is_said, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn pauses_grow_and_end_with_the_first_success() {
        let (mut pause, start) = (AcceptPause::default(), first_instant());
        assert!(!pause.is_on(start) && !pause.accepted());
        let mut now = start;
        let no_files = io::Error::from_raw_os_error(24);
        for (nth, length) in [100, 200, 400, 800, 1000, 1000].into_iter().enumerate() {
            assert_eq!(pause.failed(now, &no_files), nth == 0, "said once");
            let end = now + Duration::from_millis(length);
            assert_eq!(pause.poll_timeout(), Some(end));
            assert!(pause.is_on(end - Duration::from_millis(1)) && !pause.is_on(end));
            now = end;
        }
        assert!(pause.accepted(), "its end is to be said");
        assert_eq!((pause.accepted(), pause.poll_timeout()), (false, None));
        assert!(pause.failed(now, &no_files));
        assert_eq!(pause.poll_timeout(), Some(now + FIRST));
        let mut pause = AcceptPause::default();
        assert!(!pause.failed(now, &io::ErrorKind::ConnectionAborted.into()) && !pause.is_on(now));
    }
}
