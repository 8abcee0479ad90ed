//! Diagnostics on stderr. Whatever is the matter with stderr, they block nothing and end nothing: a thread of its own writes them
//! ([`crate::cli::lines`]), and lines that come again and again are counted ([`LogLimit`]).

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

use crate::cli::lines::{Form, Lines, Teller};

/// The libraries under us warn of what a peer sends, packet by packet. Nobody shall fill a disk with that; what counts is told as a refusal.
const LIBRARIES: &str = "quinn_proto=error,rustls=error";

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Where the process writes diagnostics.
static STDERR: OnceLock<Teller<Diagnostics>> = OnceLock::new();

/// Diagnostics, for as long as the program runs. Dropped, it waits until they are written, as long as somebody takes them.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct Log {
    limit: LogLimit,
    format: Format,
    _lines: Option<Lines<Diagnostics>>,
}

/// Sends diagnostics to stderr from now on, panics included. `RUST_LOG` chooses what is said; by default everything of level info and above.
pub fn init(format: Format) -> Log {
    // Without a thread or a stderr there are no diagnostics, and everything else.
    let lines = Lines::to_stderr(Diagnostics(format)).ok();
    let stderr = STDERR.get_or_init(|| lines.as_ref().map_or_else(Teller::none, Lines::teller)).clone();
    let (wake, woken) = channel();
    let limit = LogLimit::new(Instant::now, move || {
        let _ = wake.send(());
    });
    let reports = limit.clone();
    // Without it the counts are said at the end.
    let _ = thread::Builder::new().name("log".to_owned()).spawn(move || report(&reports, format, &woken));
    let filter = filter(env::var("RUST_LOG").ok().as_deref());
    let layer = tracing_subscriber::fmt::layer().with_target(false).log_internal_errors(false).with_writer(stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // Of two only the first counts.
    let _ = registry().with(filter).with(limit.clone()).with(layer).try_init();
    panic::set_hook(Box::new(move |panic| {
        say(&line(format, Level::ERROR, &panicked(panic)));
        // It may be the last thing that this process does.
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

/// What is said. A library that `RUST_LOG` names says what it is asked for.
fn filter(asked: Option<&str>) -> EnvFilter {
    let of = |asked: &str| EnvFilter::try_new(format!("{LIBRARIES},{asked}"));
    let asked = asked.filter(|asked| !asked.is_empty());
    asked.and_then(|asked| of(asked).ok()).or_else(|| of("info").ok()).unwrap_or_default()
}

/// Says what was held back, when it is time.
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

/// Reads the command line. Whoever has asked for help has it on stdout; what is wrong with it is said on stderr.
///
/// # Errors
/// What the program ends with.
pub fn arguments<C: Parser + CommandFactory>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if error.use_stderr() {
            let text = error.render();
            let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            // Nothing of the program is there yet, only a thread to write, so that a reader who stands still does not hold it up.
            if let Ok(lines) = Lines::to_stderr(Diagnostics(Format::Text)) {
                lines.teller().tell(text);
            }
        } else {
            // A reader that leaves early has seen enough.
            let _ = error.print();
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Says something on stderr as it stands, lines with their breaks, whatever `RUST_LOG` says.
pub fn say(text: &str) {
    if let Some(stderr) = STDERR.get() {
        stderr.tell(text.to_owned());
    }
}

/// Says why a program ends, in the form of its other diagnostics, whatever `RUST_LOG` says.
pub fn fatal(format: Format, program: &str, error: &dyn fmt::Display) {
    say(&match format {
        Format::Text => format!("{program}: {error}\n"),
        Format::Json => line(format, Level::ERROR, &format!("{program}: {error}")),
    });
}

/// Waits until what was said is written, as long as somebody takes it.
fn flush() {
    if let Some(stderr) = STDERR.get() {
        // Nobody is there to hear that nobody is there.
        let _ = stderr.flush();
    }
}

/// A line in the form that `tracing` gives its own.
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
            &format!("{lost} diagnostic lines were lost: nobody read them, or they could not be written"),
        )
    }
}

impl<'a> MakeWriter<'a> for Teller<Diagnostics> {
    type Writer = Told<'a>;

    fn make_writer(&'a self) -> Told<'a> {
        Told(self)
    }
}

/// Takes one line in one piece.
struct Told<'a>(&'a Teller<Diagnostics>);

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.tell(String::from_utf8_lossy(bytes).into_owned());
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

    fn said(asked: Option<&str>) -> usize {
        let out = Out::default();
        let writer = out.clone();
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter(asked)).with_writer(move || writer.clone()).finish();
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
        assert_eq!((said(None), said(Some("")), said(Some("info"))), (1, 1, 1));
        assert_eq!(said(Some("info,quinn_proto=warn")), 2, "unless it is asked for");
        assert_eq!(said(Some("off")), 0);
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
