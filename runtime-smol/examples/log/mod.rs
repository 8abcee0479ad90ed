//! Diagnostics of the library on stderr. Repeated lines are counted.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use towline_core::host::LogLimit;
use tracing_subscriber::{filter::LevelFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

/// Interval of the reports on suppressed lines.
const REPORT: Duration = Duration::from_secs(1);

pub(crate) fn init() {
    let limit = LogLimit::new(Instant::now, || {});
    let reports = limit.clone();
    let lines = fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false).log_internal_errors(false);
    registry().with(LevelFilter::INFO).with(limit).with(lines).init();
    thread::spawn(move || {
        loop {
            thread::sleep(REPORT);
            while let Some(held) = reports.poll_report(Instant::now()) {
                eprintln!("{:>5} {}", held.level, held.message);
            }
        }
    });
}
