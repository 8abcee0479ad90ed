//! Cluster managers start and stop the providers that a hub requests (docs/protocols/spn.md, Starting and stopping providers, MNG-14 to MNG-16).
//!
//! Each scheme of `clusterManagerUrn` has a [`ClusterManager`]. This crate has one of them: [`Commands`], for `exec:`.
//!
//! ```
//! use std::sync::Arc;
//! use towline_core::spn::hub::ClusterTask;
//! use towline_tokio::cli::cluster::{ClusterError, ClusterManager, Clusters, Done};
//!
//! /// A person who starts our providers by hand.
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

/// Default time limit of a command.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The work of a cluster manager, as a future.
pub type Done<'a> = Pin<Box<dyn Future<Output = Result<(), ClusterError>> + Send + 'a>>;

/// Starts and stops providers. Its futures end when the provider is started or stopped, or when this has failed; each implementation sets its own
/// time limits.
pub trait ClusterManager: Send + Sync {
    /// Starts a provider. A provider that runs already is no error.
    fn start<'a>(&'a self, task: &'a ClusterTask) -> Done<'a>;
    /// Stops a provider. A provider that does not run is no error.
    fn stop<'a>(&'a self, task: &'a ClusterTask) -> Done<'a>;
}

/// Why a provider was not started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The inventory names a kind of cluster manager that is not available.
    #[error("no cluster manager for `{urn}`; available: {}", if known.is_empty() { "none" } else { known.as_str() })]
    NoBackEnd {
        /// `clusterManagerUrn`.
        urn: String,
        /// The available ones.
        known: String,
    },
    /// What follows `exec:` names no command.
    #[error("`{urn}`: expected exec:NAME, with the name of a file in {}", directory.display())]
    NoCommand {
        /// `clusterManagerUrn`.
        urn: String,
        /// The directory of commands.
        directory: PathBuf,
    },
    /// The `serviceId` is empty, or a command would take it for an option.
    #[error("serviceId `{0}`: expected a name that is not empty and does not begin with `-`")]
    ServiceId(String),
    /// The command could not be run.
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
        /// The time limit.
        limit: Duration,
    },
    /// An error of another cluster manager.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// The available cluster managers, by the scheme of `clusterManagerUrn`.
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
    /// Adds a cluster manager for URNs that begin with `scheme` and a colon.
    #[must_use]
    pub fn with(mut self, scheme: &str, manager: impl ClusterManager + 'static) -> Self {
        self.0.insert(scheme.to_owned(), Box::new(manager));
        self
    }

    /// The cluster manager that `clusterManagerUrn` names.
    ///
    /// # Errors
    /// It is not available.
    pub fn find(&self, urn: &str) -> Result<&dyn ClusterManager, ClusterError> {
        self.0.get(scheme(urn)).map(|manager| &**manager).ok_or_else(|| ClusterError::NoBackEnd {
            urn: urn.to_owned(),
            known: self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

/// `exec:NAME`: runs the command of that name in one directory, as `NAME start SERVICE_ID` or `NAME stop SERVICE_ID`.
///
/// The work is done when the command has ended with 0. The command reads the rest of the provider's `availabilityManagement` from its standard input,
/// as JSON with the inventory's own names. So the inventory chooses among the operator's commands, and cannot add any.
/// Both outputs of the command go to the stderr of this process.
#[derive(Debug)]
pub struct Commands {
    directory: PathBuf,
    limit: Duration,
}

#[derive(Clone, Copy)]
enum Operation {
    Start,
    Stop,
}

impl Commands {
    /// The commands in a directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, limit: COMMAND_LIMIT }
    }

    /// Sets the time limit of a command, 120 s by default. After that the command is killed, with all processes that it has started.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    async fn run(&self, operation: Operation, task: &ClusterTask) -> Result<(), ClusterError> {
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
        let mut child = spawn(&path, operation, &availability.service_id)
            .map_err(|error| ClusterError::Run { path: path.clone(), error })?;
        let mut group = ProcessGroup::new(&child);
        let (input, text) = (child.stdin.take(), command_input(task));
        let feed = async {
            if let Some(mut input) = input {
                // A command need not read its input.
                let _ = input.write_all(text.as_bytes()).await;
            }
            future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = timeout(self.limit, child.wait()) => ended,
            () = feed => return Ok(()),
        };
        if let Ok(Ok(_)) = ended {
            group.release();
        }
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ClusterError::Failed { path, status }),
            Ok(Err(error)) => Err(ClusterError::Run { path, error }),
            Err(_) => {
                group.kill();
                // The group stays armed until the killed command is reaped.
                let _ = child.wait().await;
                group.release();
                Err(ClusterError::TooLong { path, limit: self.limit })
            }
        }
    }
}

impl ClusterManager for Commands {
    fn start<'a>(&'a self, task: &'a ClusterTask) -> Done<'a> {
        Box::pin(self.run(Operation::Start, task))
    }

    fn stop<'a>(&'a self, task: &'a ClusterTask) -> Done<'a> {
        Box::pin(self.run(Operation::Stop, task))
    }
}

fn spawn(path: &Path, operation: Operation, service_id: &str) -> io::Result<Child> {
    // Stdout may be the output of records. A pipe does not work: a provider that the command leaves behind would lose the pipe's reader when this process ends.
    let out = io::stderr().as_fd().try_clone_to_owned()?;
    let operation = match operation {
        Operation::Start => "start",
        Operation::Stop => "stop",
    };
    Command::new(path)
        .args([operation, service_id])
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::inherit())
        // Signals from the terminal must reach this process only.
        .process_group(0)
        .spawn()
}

/// The process group of a command. Dropping it kills the command and all processes that it has started, unless the command has ended by itself: a
/// command that hangs must not outlive this process.
struct ProcessGroup {
    group: Option<Pid>,
    _own: Option<Own>,
}

impl ProcessGroup {
    fn new(child: &Child) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { group, _own: child.id().map(Own::new) }
    }

    /// The command has ended. The processes that it has left behind keep running.
    fn release(&mut self) {
        self.group = None;
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            // All processes of the group may have ended by now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The JSON text that a command reads.
fn command_input(task: &ClusterTask) -> String {
    let availability = &*task.availability;
    let mount = |(size, target): &(u64, String)| json!({"volumeSize": size, "target": target});
    let text = json!({
        "serviceUrn": &*task.service,
        "clusterManagerUrn": availability.cluster_manager,
        "serviceId": availability.service_id,
        "image": availability.image,
        "command": availability.command,
        "options": availability.options,
        "env": availability.env,
        "mountPoints": availability.mount_points.iter().map(mount).collect::<Vec<_>>(),
    });
    format!("{text}\n")
}

#[cfg(test)]
mod tests;
