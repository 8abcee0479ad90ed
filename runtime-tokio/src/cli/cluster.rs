//! Cluster managers: what starts and stops the providers that a hub asks for (docs/protocols/spn.md, Starting and stopping providers, MNG-14 to MNG-16).
//!
//! One [`ClusterManager`] for each kind of `clusterManagerUrn`, found by its scheme. This crate has one of them: [`Commands`], for `exec:`.
//!
//! ```
//! use std::sync::Arc;
//! use towline_core::spn::hub::ClusterTask;
//! use towline_tokio::cli::cluster::{ClusterError, ClusterManager, Clusters, Done};
//!
//! /// Whoever is asked to run our providers by hand.
//! struct Operator;
//!
//! impl ClusterManager for Operator {
//!     fn start<'a>(&'a self, task: &'a ClusterTask) -> Done<'a> {
//!         Box::pin(async move {
//!             println!("please start {}", task.availability.service_id);
//!             Ok(())
//!         })
//!     }
//!     fn stop<'a>(&'a self, _task: &'a ClusterTask) -> Done<'a> {
//!         Box::pin(async { Err(ClusterError::Other("operators never stop anything".into())) })
//!     }
//! }
//!
//! let clusters = Clusters::default().with("operator", Operator);
//! assert!(clusters.find("operator:night-shift").is_ok());
//! assert_eq!(clusters.find("docker:").err().unwrap().to_string(), "no cluster manager for `docker:`; available: operator");
//! ```

use std::{
    collections::BTreeMap,
    fmt, future, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    pin::Pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};
use towline_core::spn::hub::ClusterTask;

use crate::cli::process::Own;

/// How long a command may take, unless told.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// What a cluster manager does, while it does it.
pub type Done<'a> = Pin<Box<dyn Future<Output = Result<(), ClusterError>> + Send + 'a>>;

/// Starts and stops providers. It answers when the thing is done, or cannot be; how long it tries is its own affair.
pub trait ClusterManager: Send + Sync {
    /// Starts a provider. One that runs already is no error.
    fn start<'a>(&'a self, task: &'a ClusterTask) -> Done<'a>;
    /// Stops a provider. One that does not run is no error.
    fn stop<'a>(&'a self, task: &'a ClusterTask) -> Done<'a>;
}

/// Why a provider was not started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The inventory names a kind of cluster manager that is not here.
    #[error("no cluster manager for `{urn}`; available: {}", if known.is_empty() { "none" } else { known.as_str() })]
    NoBackEnd {
        /// `clusterManagerUrn`.
        urn: String,
        /// Those that are here.
        known: String,
    },
    /// What follows `exec:` names no command.
    #[error("`{urn}`: expected exec:NAME, with the name of a file in {}", directory.display())]
    NoCommand {
        /// `clusterManagerUrn`.
        urn: String,
        /// Where commands are.
        directory: PathBuf,
    },
    /// A command would take it for an option.
    #[error("serviceId `{0}`: expected a name that is not empty and does not begin with `-`")]
    ServiceId(String),
    /// The command did not even begin.
    #[error("cannot run {}: {error}", path.display())]
    Run {
        /// The command.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The command failed.
    #[error("{}: {status}; its output is above", path.display())]
    Failed {
        /// The command.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command took too long.
    #[error("{} did not end within {} s and was killed", path.display(), limit.as_secs())]
    TooLong {
        /// The command.
        path: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// What another cluster manager has to say.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// The cluster managers that are here, by the scheme of `clusterManagerUrn`.
#[derive(Default)]
pub struct Clusters(BTreeMap<String, Box<dyn ClusterManager>>);

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The part of `clusterManagerUrn` that chooses the cluster manager.
#[must_use]
pub fn scheme(urn: &str) -> &str {
    urn.split_once(':').map_or(urn, |(scheme, _)| scheme)
}

impl Clusters {
    /// One more, for URNs that begin with `scheme` and a colon.
    #[must_use]
    pub fn with(mut self, scheme: &str, manager: impl ClusterManager + 'static) -> Self {
        self.0.insert(scheme.to_owned(), Box::new(manager));
        self
    }

    /// The one that `clusterManagerUrn` names.
    ///
    /// # Errors
    /// When it is not here.
    pub fn find(&self, urn: &str) -> Result<&dyn ClusterManager, ClusterError> {
        self.0.get(scheme(urn)).map(|manager| &**manager).ok_or_else(|| ClusterError::NoBackEnd {
            urn: urn.to_owned(),
            known: self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

/// `exec:NAME`: runs the command of that name in one directory, as `NAME start SERVICE_ID` or `NAME stop SERVICE_ID`.
///
/// It is done when the command has ended with 0. Everything else that the inventory says of the provider is on its standard input, as JSON
/// with the inventory's own names; so the inventory chooses among the operator's commands, and cannot bring any of its own.
/// What the command writes, to either output, goes to our stderr.
#[derive(Debug)]
pub struct Commands {
    directory: PathBuf,
    limit: Duration,
}

#[derive(Clone, Copy)]
enum Deed {
    Start,
    Stop,
}

impl Commands {
    /// Those in a directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, limit: COMMAND_LIMIT }
    }

    /// A command may take so long, and is then killed with all that it has started; 120 s unless told.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    async fn run(&self, deed: Deed, task: &ClusterTask) -> Result<(), ClusterError> {
        let availability = &*task.availability;
        let urn = &availability.cluster_manager;
        let name = urn.split_once(':').map_or("", |(_, name)| name);
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(ClusterError::NoCommand { urn: urn.clone(), directory: self.directory.clone() });
        }
        if availability.service_id.is_empty() || availability.service_id.starts_with('-') {
            return Err(ClusterError::ServiceId(availability.service_id.clone()));
        }
        let path = self.directory.join(name);
        let mut child = spawn(&path, deed, &availability.service_id)
            .map_err(|error| ClusterError::Run { path: path.clone(), error })?;
        let mut leash = Leash::new(&child);
        let (input, text) = (child.stdin.take(), told(task));
        let feed = async {
            if let Some(mut input) = input {
                // It need not read.
                let _ = input.write_all(text.as_bytes()).await;
            }
            future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = timeout(self.limit, child.wait()) => ended,
            () = feed => return Ok(()),
        };
        if let Ok(Ok(_)) = ended {
            leash.let_go();
        }
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ClusterError::Failed { path, status }),
            Ok(Err(error)) => Err(ClusterError::Run { path, error }),
            Err(_) => {
                leash.kill();
                // Only now is it gone for good.
                let _ = child.wait().await;
                leash.let_go();
                Err(ClusterError::TooLong { path, limit: self.limit })
            }
        }
    }
}

impl ClusterManager for Commands {
    fn start<'a>(&'a self, task: &'a ClusterTask) -> Done<'a> {
        Box::pin(self.run(Deed::Start, task))
    }

    fn stop<'a>(&'a self, task: &'a ClusterTask) -> Done<'a> {
        Box::pin(self.run(Deed::Stop, task))
    }
}

fn spawn(path: &Path, deed: Deed, service_id: &str) -> io::Result<Child> {
    // Stdout may be where records go. Pipes are no choice: a provider that the command leaves behind would lose its reader with it.
    let out = io::stderr().as_fd().try_clone_to_owned()?;
    let deed = match deed {
        Deed::Start => "start",
        Deed::Stop => "stop",
    };
    Command::new(path)
        .args([deed, service_id])
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::inherit())
        // Signals from our terminal are for us.
        .process_group(0)
        .spawn()
}

/// Kills a command with all that it has started, unless it has ended by itself: one that hangs shall not outlive us.
struct Leash {
    group: Option<Pid>,
    _own: Option<Own>,
}

impl Leash {
    fn new(child: &Child) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { group, _own: child.id().map(Own::new) }
    }

    /// It has ended; what it has left behind is to go on.
    fn let_go(&mut self) {
        self.group = None;
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            // All of it may have ended by now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the command reads.
fn told(task: &ClusterTask) -> String {
    let it = &*task.availability;
    let mount = |(size, target): &(u64, String)| json!({"volumeSize": size, "target": target});
    let text = json!({
        "serviceUrn": &*task.service,
        "clusterManagerUrn": it.cluster_manager,
        "serviceId": it.service_id,
        "image": it.image,
        "command": it.command,
        "options": it.options,
        "env": it.env,
        "mountPoints": it.mount_points.iter().map(mount).collect::<Vec<_>>(),
    });
    format!("{text}\n")
}

#[cfg(test)]
mod tests;
