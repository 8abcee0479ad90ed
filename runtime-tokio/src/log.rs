//! Diagnostics on stderr.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

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

/// Sends diagnostics to stderr from now on. `RUST_LOG` chooses what is said; by default everything of level info and above.
pub fn init(format: Format) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(env::var("RUST_LOG").ok().as_deref()))
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

/// What is said. A library that `RUST_LOG` names says what it is asked for.
fn filter(asked: Option<&str>) -> EnvFilter {
    let of = |asked: &str| EnvFilter::try_new(format!("{LIBRARIES},{asked}"));
    let asked = asked.filter(|asked| !asked.is_empty());
    asked.and_then(|asked| of(asked).ok()).or_else(|| of("info").ok()).unwrap_or_default()
}

/// Says why a program ends, in the form of its other diagnostics, whatever `RUST_LOG` says.
pub fn fatal(format: Format, program: &str, error: &dyn fmt::Display) {
    let line = match format {
        Format::Text => format!("{program}: {error}"),
        Format::Json => serde_json::json!({"level": "ERROR", "message": format!("{program}: {error}")}).to_string(),
    };
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{line}");
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
}
