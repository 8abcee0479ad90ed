//! Loads inventories from a file, or over the inventory's HTTP interface (docs/protocols/spn.md, Inventory, INV-1, INV-5, INV-27).

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

/// Time limit of a whole load.
const WHOLE: Duration = Duration::from_secs(30);
/// Limit of an inventory, all its parts together, in bytes;
const MAX_BYTES: usize = 64 << 20;
/// and in values: a small value takes far more memory than space in a file.
const MAX_VALUES: usize = 1_000_000;

/// The source of an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A YAML or JSON file.
    File(PathBuf),
    /// The base URL of an inventory, without trailing slash.
    Http(String),
}

/// A loaded inventory.
#[derive(Debug)]
pub struct Loaded {
    /// The usable part.
    pub inventory: Inventory,
    /// The faults of the rest.
    pub findings: Vec<Finding>,
    /// Whether loading a part has failed; a later attempt may succeed.
    pub is_partial: bool,
}

/// Loading the inventory failed.
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
    /// The inventory is larger than the limits.
    #[error("{path}: {message}")]
    TooMuch {
        /// The file.
        path: PathBuf,
        /// The limit that it exceeds.
        message: String,
    },
    /// Loading the list of realms failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The system has no certificate authorities for https.
    #[error("cannot load the system's certificate authorities for https: {0}")]
    Tls(io::Error),
    /// The load took too long.
    #[error("reading {source_name} took longer than {} s", WHOLE.as_secs())]
    Slow {
        /// The source of the inventory.
        source_name: String,
    },
    /// The system has no thread for the load, or too many earlier loads hang.
    #[error("cannot load the inventory: {0}")]
    Thread(io::Error),
}

impl LoadError {
    /// Whether a later attempt may succeed: the server is still starting, or unreachable for the moment.
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

    /// Loads the inventory within 30 s. `token` is sent to an HTTP inventory (`Authorization: Bearer`). Dropping the future ends the load. The
    /// load does not block the caller's thread.
    ///
    /// # Errors
    /// Nothing could be loaded. An inventory with faults is no error.
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

/// Reads a file, in a thread of its own: the disk may hang. A named pipe is read until its writer closes it.
async fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::File { path: path.to_owned(), error };
    let from = path.to_owned();
    match beside(move || read_file(&from)).await.map_err(LoadError::Thread)?.map_err(failed)? {
        Some(text) => Ok(text),
        None => read_pipe(path).await.map_err(failed),
    }
}

/// Reads a file; `None` for a named pipe.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if fs::metadata(path)?.file_type().is_fifo() {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_BYTES { Err(too_long()) } else { Ok(Some(text)) }
}

/// Reads a named pipe. Unlike a thread, this future can be dropped while it waits.
async fn read_pipe(path: &Path) -> io::Result<Vec<u8>> {
    let pipe = pipe::OpenOptions::new().open_receiver(path)?;
    let (mut text, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        // Wait first: without a writer, a read returns the end of the file at once.
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
    // JSON is a subset of YAML, but the JSON parser has better error messages.
    let parsed = if text.trim_start().starts_with(['{', '[']) {
        limit_values(text.as_bytes(), &AtomicUsize::new(0))
            .map_err(|message| LoadError::TooMuch { path: path.to_owned(), message })?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())
    };
    parsed.map_err(|message| LoadError::Syntax { path: path.to_owned(), message })
}

/// Counts the values of a JSON text, roughly and before it is parsed. Fails if the sum of all counts is over the limit.
fn limit_values(text: &[u8], count: &AtomicUsize) -> Result<(), String> {
    let values = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if count.fetch_add(values, Ordering::Relaxed) + values > MAX_VALUES {
        return Err(format!("it has more than {MAX_VALUES} values"));
    }
    Ok(())
}
