//! Where inventories come from: a file, or the inventory's HTTP interface (docs/protocols/spn.md, Inventory, INV-1, INV-5, INV-27).

mod http;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tokio::{
    net::unix::pipe,
    time::{Instant, timeout_at},
};
use towline_core::spn::inventory::{Finding, Inventory, read_with};

pub use http::HttpError;

use super::{process::beside, settings::text_of};

/// How long a load may take, as a whole.
const WHOLE: Duration = Duration::from_secs(30);
/// The longest inventory, all its parts together, in bytes;
const MAX_BYTES: usize = 64 << 20;
/// and as values, of which a small one is far longer in memory than in a file.
const MAX_VALUES: usize = 1_000_000;

/// Where an inventory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A YAML or JSON file.
    File(PathBuf),
    /// The base URL of an inventory, without trailing slash.
    Http(String),
}

/// An inventory as it was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What can be used.
    pub inventory: Inventory,
    /// What is wrong with the rest.
    pub findings: Vec<Finding>,
    /// A part of it could not be had, and may be there later.
    pub is_partial: bool,
}

/// Why there is no inventory at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is neither YAML nor JSON.
    #[error("{path} is neither YAML nor JSON: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// There is more of it than an inventory has.
    #[error("{path}: {message}")]
    TooMuch {
        /// The file.
        path: PathBuf,
        /// What it has too much of.
        message: String,
    },
    /// The list of realms cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The system has no certificate authorities for https.
    #[error("cannot load the system's certificate authorities for https: {0}")]
    Tls(io::Error),
    /// It took too long.
    #[error("reading {source_name} took longer than {} s", WHOLE.as_secs())]
    Slow {
        /// What it is.
        source_name: String,
    },
    /// The machine has no thread for it, or earlier loads hang.
    #[error("cannot load the inventory: {0}")]
    Thread(io::Error),
}

impl LoadError {
    /// Whether the inventory is a server's that may answer later: it is still starting, or out of reach for the moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => error.may_pass(),
            Self::File { .. }
            | Self::Syntax { .. }
            | Self::TooMuch { .. }
            | Self::Tls(_)
            | Self::Slow { .. }
            | Self::Thread(_) => false,
        }
    }
}

impl Source {
    /// A URL (`http:`, `https:`, `file:`) or a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Http(text.trim_end_matches('/').to_owned())
        } else {
            Self::File(text.strip_prefix("file://").unwrap_or(text).into())
        }
    }

    /// Loads the inventory. `token` is sent to an HTTP inventory (`Authorization: Bearer`). Dropping it ends it, and it has 30 s; nothing of it
    /// holds the caller's thread up for long.
    ///
    /// # Errors
    /// There is nothing to judge. An inventory with faults is no error.
    pub async fn load(&self, token: Option<&str>) -> Result<Loaded, LoadError> {
        let deadline = Instant::now() + WHOLE;
        let (value, missing) = match self {
            Self::File(path) => {
                let text = timeout_at(deadline, read(path)).await;
                let text = text.map_err(|_| LoadError::Slow { source_name: self.to_string() })??;
                let path = path.clone();
                (beside(move || parse(&path, text)).await.map_err(LoadError::Thread)??, BTreeMap::new())
            }
            Self::Http(base) => http::load(base, token, deadline).await?,
        };
        let judge = move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let (inventory, findings) = read_with(&value, &missing, now);
            Loaded { inventory, findings, is_partial: !missing.is_empty() }
        };
        beside(judge).await.map_err(LoadError::Thread)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Http(base) => f.write_str(base),
        }
    }
}

/// Reads a file, in a thread of its own: the disk may hang. A named pipe has its content when its writer has ended.
async fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::File { path: path.to_owned(), error };
    let from = path.to_owned();
    match beside(move || read_file(&from)).await.map_err(LoadError::Thread)?.map_err(failed)? {
        Some(text) => Ok(text),
        None => read_pipe(path).await.map_err(failed),
    }
}

/// `None`: it is a named pipe.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if fs::metadata(path)?.file_type().is_fifo() {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_BYTES { Err(too_long()) } else { Ok(Some(text)) }
}

/// Unlike a thread this one can be left waiting.
async fn read_pipe(path: &Path) -> io::Result<Vec<u8>> {
    let pipe = pipe::OpenOptions::new().open_receiver(path)?;
    let (mut text, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        // Not before: without a writer there is an end at once.
        pipe.readable().await?;
        match pipe.try_read(&mut part) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if text.len() > MAX_BYTES {
            return Err(too_long());
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_BYTES} bytes"))
}

fn parse(path: &Path, text: Vec<u8>) -> Result<Value, LoadError> {
    let text = text_of(text).map_err(|error| LoadError::File { path: path.to_owned(), error })?;
    // JSON is a subset of YAML, but its own reader names its faults better.
    let parsed = if text.trim_start().starts_with(['{', '[']) {
        few(text.as_bytes(), &AtomicUsize::new(0))
            .map_err(|message| LoadError::TooMuch { path: path.to_owned(), message })?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())
    };
    parsed.map_err(|message| LoadError::Syntax { path: path.to_owned(), message })
}

/// Counts the values of a JSON text, roughly and before they are there; says whether all that were counted are few enough.
fn few(text: &[u8], count: &AtomicUsize) -> Result<(), String> {
    let values = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if count.fetch_add(values, Ordering::Relaxed) + values > MAX_VALUES {
        return Err(format!("it has more than {MAX_VALUES} values"));
    }
    Ok(())
}
