//! Diagnostics on stderr. A stderr that is full, closed or not read neither blocks nor ends the program: a separate thread writes the diagnostics
//! ([`crate::cli::lines`]), and repeated lines are counted ([`LogLimit`]).

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env, fmt,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    process::ExitCode,
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Instant,
};

use clap::{CommandFactory, Parser, ValueEnum};
use towline_core::host::{Held, LogLimit};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{MakeWriter, format, time::FormatTime},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::cli::lines::{Form, LineSender, Lines};

/// The libraries for QUIC and TLS warn about each packet of a peer. Such warnings could fill a disk; the important ones are logged as refusals.
const LIBRARIES: &str = "quinn_proto=error,rustls=error";

/// The format of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The process's sender of diagnostics.
static STDERR: OnceLock<LineSender<Diagnostics>> = OnceLock::new();

/// The diagnostics of a running program. Dropping this waits until they are written, as [`Lines`] does.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct Log {
    limit: LogLimit,
    format: Format,
    _lines: Option<Lines<Diagnostics>>,
}

/// Sends diagnostics, panics included, to stderr from now on. `RUST_LOG` sets the level; the default is info.
pub fn init(format: Format) -> Log {
    // Without a thread or a stderr, the program runs without diagnostics.
    let lines = Lines::to_stderr(Diagnostics(format)).ok();
    let stderr = STDERR.get_or_init(|| lines.as_ref().map_or_else(LineSender::none, Lines::sender)).clone();
    let (wake, woken) = channel();
    let limit = LogLimit::new(Instant::now, move || {
        let _ = wake.send(());
    });
    let reports = limit.clone();
    // Without this thread, the counts are written at the end.
    let _ = thread::Builder::new().name("log".to_owned()).spawn(move || report(&reports, format, &woken));
    let filter = filter(env::var("RUST_LOG").ok().as_deref());
    let layer = tracing_subscriber::fmt::layer().with_target(false).log_internal_errors(false).with_writer(stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // A second call has no effect.
    let _ = registry().with(filter).with(limit.clone()).with(layer).try_init();
    panic::set_hook(Box::new(move |panic| {
        say(&line(format, Level::ERROR, &panicked(panic)));
        // The process may end after this.
        flush();
    }));
    Log { limit, format, _lines: lines }
}

impl Drop for Log {
    fn drop(&mut self) {
        while let Some(held) = self.limit.poll_last(Instant::now()) {
            say(&held_line(self.format, &held));
        }
    }
}

/// The filter for a value of `RUST_LOG`. A library that the value names has the level given there.
fn filter(directives: Option<&str>) -> EnvFilter {
    let parse = |directives: &str| EnvFilter::try_new(format!("{LIBRARIES},{directives}"));
    let given = directives.filter(|directives| !directives.is_empty());
    given.and_then(|given| parse(given).ok()).or_else(|| parse("info").ok()).unwrap_or_default()
}

/// Writes the counts of suppressed lines when they are due.
fn report(limit: &LogLimit, format: Format, woken: &Receiver<()>) {
    loop {
        let waited = match limit.poll_timeout() {
            Some(due) => woken.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => woken.recv().map_err(RecvTimeoutError::from),
        };
        if waited == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        while let Some(held) = limit.poll_report(Instant::now()) {
            say(&held_line(format, &held));
        }
    }
}

fn held_line(format: Format, held: &Held) -> String {
    line(format, held.level, &held.message)
}

/// Parses the command line. Help goes to stdout, usage errors go to stderr.
///
/// # Errors
/// The exit code of the program, after help or a usage error.
pub fn arguments<C: Parser + CommandFactory>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if error.use_stderr() {
            let text = error.render();
            let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            // Diagnostics are not initialized yet. A thread writes this text, so that a stalled reader does not block the program.
            if let Ok(lines) = Lines::to_stderr(Diagnostics(Format::Text)) {
                lines.sender().send(text);
            }
        } else {
            // A reader that closes early, such as `head`, is no error.
            let _ = error.print();
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Writes a text to stderr unchanged, with its line breaks, whatever the level in `RUST_LOG`.
pub fn say(text: &str) {
    if let Some(stderr) = STDERR.get() {
        stderr.send(text.to_owned());
    }
}

/// Writes the error that ends a program, in the format of its diagnostics, whatever the level in `RUST_LOG`.
pub fn fatal(format: Format, program: &str, error: &dyn fmt::Display) {
    say(&match format {
        Format::Text => format!("{program}: {error}\n"),
        Format::Json => line(format, Level::ERROR, &format!("{program}: {error}")),
    });
}

/// Waits until all diagnostics are written, as [`LineSender::flush`] does.
fn flush() {
    if let Some(stderr) = STDERR.get() {
        // A failure to write to stderr cannot be reported.
        let _ = stderr.flush();
    }
}

/// A line in the format of `tracing`.
fn line(format: Format, level: Level, message: &str) -> String {
    let mut time = String::new();
    let _ = tracing_subscriber::fmt::time::SystemTime.format_time(&mut format::Writer::new(&mut time));
    match format {
        Format::Text => format!("{time} {level:>5} {message}\n"),
        Format::Json => {
            let line = serde_json::json!({"timestamp": time, "level": level.as_str(), "message": message});
            format!("{line}\n")
        }
    }
}

fn panicked(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    format!("the thread {name} panicked{place}: {message} (a fault of this program, please report it){trace}")
}

/// Diagnostics as lines.
struct Diagnostics(Format);

impl Form for Diagnostics {
    type Item = String;
    /// In bytes.
    const ROOM: usize = 4 << 20;

    fn weight(item: &String) -> usize {
        item.len() + size_of::<String>()
    }

    fn text(&mut self, item: &String) -> String {
        item.clone()
    }

    fn gap(&mut self, lost: u64) -> String {
        line(
            self.0,
            Level::WARN,
            &format!("{lost} diagnostic lines were lost: the reader of stderr has stalled, or writing failed"),
        )
    }
}

impl<'a> MakeWriter<'a> for LineSender<Diagnostics> {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Sends each write as one line.
struct LineWriter<'a>(&'a LineSender<Diagnostics>);

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, subscriber::with_default, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_written(directives: Option<&str>) -> usize {
        let out = Out::default();
        let writer = out.clone();
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter(directives)).with_writer(move || writer.clone()).finish();
        with_default(subscriber, || {
            warn!(target: "quinn_proto::connection", "illegal packet");
            warn!(target: "rustls::msgs::handshake", "Illegal SNI hostname received");
            info!("ours");
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        text.lines().count()
    }

    #[test]
    fn what_a_peer_sends_is_not_logged_packet_by_packet() {
        assert_eq!((lines_written(None), lines_written(Some("")), lines_written(Some("info"))), (1, 1, 1));
        assert_eq!(lines_written(Some("info,quinn_proto=warn")), 2, "unless RUST_LOG names the library");
        assert_eq!(lines_written(Some("off")), 0);
    }

    #[test]
    fn lines_of_our_own_look_like_the_others() {
        let text = line(Format::Text, Level::WARN, "12 \"lines\"");
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-11-26T20:00:00.000000Z".len(), "{time}");
        assert_eq!(rest, " WARN 12 \"lines\"\n");
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json, Level::ERROR, "a\nb")).unwrap();
        assert_eq!((json["level"].as_str(), json["message"].as_str()), (Some("ERROR"), Some("a\nb")));
    }
}
