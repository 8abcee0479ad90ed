//! Limits how often the same line of a program's log is said (feature `log-limit`).

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::repeats::{Repeated, Repeats};

/// A line is a whole list's own if its target ends so: a reload says each change, whatever their number, and once.
const LIST: &str = "::list";
/// A sample is no longer, in characters.
const SAMPLE: usize = 200;

/// A layer that lets the first lines of each place in the program pass and counts those that follow, as [`Repeats`] does; `debug` and `trace`
/// pass, because the operator has asked for them, and so do events whose target ends with `::list`: they are bounded in another way.
///
/// The host says what [`LogLimit::poll_report`] gives when [`LogLimit::poll_timeout`] is due. It brings the clock, too, and `held` is called when
/// the first line of a window is held back: nothing need be polled before. A clone is the same one.
#[derive(Clone)]
pub struct LogLimit(Arc<Shared>);

struct Shared {
    repeats: Mutex<Repeats<(Identifier, Level)>>,
    clock: fn() -> Instant,
    held: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for LogLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLimit").finish_non_exhaustive()
    }
}

/// Lines of one place that were not said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Their level.
    pub level: Level,
    /// How many they were, and what one of them said, as a line of its own.
    pub message: String,
}

impl LogLimit {
    /// One with that clock. `held` must not block, nor log.
    pub fn new(clock: fn() -> Instant, held: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { repeats: Mutex::default(), clock, held: Box::new(held) }))
    }

    /// When the next report is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.repeats().poll_timeout()
    }

    /// The next report that is due.
    #[must_use]
    pub fn poll_report(&self, now: Instant) -> Option<Held> {
        self.repeats().poll_report(now).map(Held::from)
    }

    /// The next report, due or not: the program ends.
    #[must_use]
    pub fn poll_last(&self, now: Instant) -> Option<Held> {
        self.repeats().poll_last(now).map(Held::from)
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats<(Identifier, Level)>> {
        self.0.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_said(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target().ends_with(LIST) {
            return true;
        }
        let key = (metadata.callsite(), *metadata.level());
        let mut repeats = self.repeats();
        let was_quiet = repeats.poll_timeout().is_none();
        let is_said = repeats.is_said((self.0.clock)(), &key, || Sample::of(event));
        drop(repeats);
        if was_quiet && !is_said {
            (self.0.held)();
        }
        is_said
    }
}

impl From<Repeated<(Identifier, Level)>> for Held {
    fn from(repeated: Repeated<(Identifier, Level)>) -> Self {
        let level = repeated.key.as_ref().map_or(Level::WARN, |(_, level)| *level);
        Self { level, message: repeated.to_string() }
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.is_said(event)
    }
}

/// The message of an event.
#[derive(Default)]
struct Sample(String);

impl Sample {
    fn of(event: &Event<'_>) -> String {
        let mut sample = Self::default();
        event.record(&mut sample);
        sample.0.chars().take(SAMPLE).collect()
    }
}

impl Visit for Sample {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tracing::subscriber::with_default;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    /// Counts what it hears.
    struct Count(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn clock() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(crate::testing::first_instant)
    }

    #[test]
    fn each_place_has_its_limit_and_lists_have_none() {
        let (heard, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let wakes = held.clone();
        let limit = LogLimit::new(clock, move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        });
        let subscriber = registry().with(limit.clone()).with(Count(heard.clone()));
        let count = || heard.swap(0, Ordering::Relaxed);
        with_default(subscriber, || {
            let flood = |what: &str| (0..100).for_each(|nth| tracing::warn!(nth, "cannot {what}"));
            flood("go");
            assert_eq!((count(), held.load(Ordering::Relaxed)), (20, 1));
            tracing::warn!("another place");
            assert_eq!(count(), 1);
            (0..100).for_each(|nth| tracing::info!(target: "program::list", nth, "a change"));
            (0..100).for_each(|nth| tracing::debug!(nth, "asked for"));
            assert_eq!(count(), 200);
            assert_eq!(limit.poll_report(clock()), None);
            let report = limit.poll_report(clock() + Duration::from_secs(10)).expect("a report");
            assert_eq!((report.level, report.message.as_str()), (Level::WARN, "80 more times in 10 s: cannot go"));
            assert_eq!(limit.poll_last(clock()), None);
        });
    }
}
