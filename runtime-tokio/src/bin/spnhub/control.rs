//! `spnhub ctl`: an operator's requests to a running hub, over a local socket that only the hub's user can open.
//!
//! Each connection carries one request and one answer, each a line of JSON.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as Blocking,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{RwLock, mpsc, oneshot},
    time::timeout,
};
use towline_core::{host::AcceptPause, spn::hub::Status};
use towline_tokio::cli::log;

use super::say;

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 4096;
/// Time limit for reading a request, and for answering it.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Limit of requests that wait for the hubs.
const BACKLOG: usize = 16;

#[derive(Args)]
pub(crate) struct CtlArgs {
    /// The control socket of the hub, as in its option --control.
    #[arg(long, value_name = "PATH", env = "SPNHUB_CONTROL")]
    control: PathBuf,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Request,
}

/// A request of an operator.
#[derive(Debug, Clone, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub(crate) enum Request {
    /// Show the hubs, their sessions and connections, and their services.
    Status,
    /// Pause a service: its connections wait at their ends, for --pause-max of the agents (120 s), and new ones at the hub.
    Pause {
        /// URN of the service.
        service: String,
    },
    /// Unpause a service: its connections continue.
    Unpause {
        /// URN of the service.
        service: String,
    },
    /// Drain and end, as on SIGTERM.
    Drain,
    /// Reload the inventory, as on SIGUSR1.
    Reload,
}

/// The status of one hub, in an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HubStatus {
    pub(crate) realm: String,
    pub(crate) hub: String,
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Hubs(Vec<HubStatus>),
    Done(String),
    Failed(String),
}

/// A request, and the channel for its answer.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("cannot listen on {}: {error}", path.display())]
    Listen { path: PathBuf, error: io::Error },
    #[error("{} belongs to another hub, which is running: give this hub another --control PATH", .0.display())]
    InUse(PathBuf),
    #[error("{} is not a socket, and was left unchanged: give this hub another --control PATH", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot reach a hub at {}: {error} (was it started with --control, by this user?)", path.display())]
    Connect { path: PathBuf, error: io::Error },
    #[error("cannot read the hub's answer: {0} (is spnhub here of the same version as the hub?)")]
    Answer(io::Error),
    #[error(
        "the hub has not answered for {} s (is its process stopped?); it will ignore this request if it has not read it yet",
        .0.as_secs()
    )]
    Silent(Duration),
    #[error("the hub ended before it answered")]
    Ended,
}

/// The control socket. Dropping it removes its file.
pub(crate) struct Socket {
    path: PathBuf,
    /// Held for reading while a request is being answered.
    answering: Arc<RwLock<()>>,
}

impl Socket {
    /// Accepts no more requests, and waits until the executed ones are answered: a draining process must not end before it has answered `drain`.
    pub(crate) async fn close(self, requests: mpsc::Receiver<Asked>) {
        drop(requests);
        let _ = timeout(TIME_LIMIT, self.answering.write()).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on the socket, and returns the channel of requests.
pub(crate) fn listen(path: &Path) -> Result<(Socket, mpsc::Receiver<Asked>), ControlError> {
    let failed = |error| ControlError::Listen { path: path.to_owned(), error };
    // The socket of a killed hub is replaced. A socket on which a process listens, and a file that is no socket, are left unchanged.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NoSocket(path.to_owned())),
        Ok(_) => match Blocking::connect(path) {
            Ok(_) => return Err(ControlError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            // The socket of another user, or one whose backlog is full: a process listens on it.
            Err(error) => return Err(failed(error)),
        },
        Err(_) => {}
    }
    let listener = bind(path).map_err(failed)?;
    let (asked, requests) = mpsc::channel(BACKLOG);
    let answering = Arc::new(RwLock::new(()));
    let socket = Socket { path: path.to_owned(), answering: answering.clone() };
    tokio::spawn(async move {
        let mut pause = AcceptPause::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    pause.accepted();
                    tokio::spawn(serve(stream, asked.clone(), answering.clone()));
                }
                Err(error) => {
                    if pause.failed(Instant::now(), &error) {
                        tracing::warn!(%error, "cannot accept on the control socket; trying again");
                    }
                    if let Some(until) = pause.poll_timeout() {
                        tokio::time::sleep_until(until.into()).await;
                    }
                }
            }
        }
    });
    Ok((socket, requests))
}

/// Binds the socket such that no other user can open it at any time: it is created in a private directory, and moved after its mode is set.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = parent.join(format!(".spnhub-{}", std::process::id()));
    fs::create_dir(&private)?;
    let made = (|| {
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
        let there = private.join("socket");
        let listener = UnixListener::bind(&there)?;
        fs::set_permissions(&there, fs::Permissions::from_mode(0o600))?;
        // Unlike a rename, a link never replaces a file that another process has just created; but not every file system has links.
        match fs::hard_link(&there, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => fs::rename(&there, path)?,
            linked => linked?,
        }
        Ok(listener)
    })();
    let _ = fs::remove_dir_all(&private);
    made
}

/// Whether the other end has closed the socket. Polls the kernel directly: tokio may not know it yet.
fn has_left(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

async fn serve(mut stream: UnixStream, asked: mpsc::Sender<Asked>, answering: Arc<RwLock<()>>) {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let came = timeout(TIME_LIMIT, BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line)).await;
    // This process stood still, and `spnhub ctl` has reported meanwhile that the hub does not answer.
    if has_left(write.as_ref()) {
        return;
    }
    let _answering = answering.read().await;
    let answer = match came {
        Ok(Ok(_)) => match serde_json::from_str(&line) {
            Ok(request) => {
                let (answer, answered) = oneshot::channel();
                // A hub that is ending does not answer.
                let _ = asked.send((request, answer)).await;
                timeout(TIME_LIMIT, answered).await.ok().and_then(Result::ok)
            }
            Err(error) => Some(Answer::Failed(format!("malformed request: {error}"))),
        },
        Ok(Err(_)) | Err(_) => None,
    };
    if let Some(mut line) = answer.and_then(|answer| serde_json::to_vec(&answer).ok()) {
        line.push(b'\n');
        let _ = write.write_all(&line).await;
    }
}

/// Runs the client.
pub(crate) async fn run(args: CtlArgs) -> Result<ExitCode, ControlError> {
    let unreachable = |error| ControlError::Connect { path: args.control.clone(), error };
    let mut stream = UnixStream::connect(&args.control).await.map_err(unreachable)?;
    let mut request = serde_json::to_vec(&args.command).map_err(|error| ControlError::Answer(error.into()))?;
    request.push(b'\n');
    stream.write_all(&request).await.map_err(ControlError::Answer)?;
    let mut line = String::new();
    timeout(2 * TIME_LIMIT, BufReader::new(stream).read_line(&mut line))
        .await
        .map_err(|_| ControlError::Silent(2 * TIME_LIMIT))?
        .map_err(ControlError::Answer)?;
    if line.is_empty() {
        return Err(ControlError::Ended);
    }
    let answer: Answer = serde_json::from_str(&line).map_err(|error| ControlError::Answer(error.into()))?;
    let text = match &answer {
        Answer::Failed(why) => {
            log::say(&format!("spnhub ctl: {why}\n"));
            return Ok(ExitCode::from(1));
        }
        _ if args.json => line,
        Answer::Hubs(hubs) => hubs.iter().map(describe).collect(),
        Answer::Done(what) => format!("{what}\n"),
    };
    say(&text).map_err(ControlError::Answer)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(hub: &HubStatus) -> String {
    let HubStatus { realm, hub, address, status } = hub;
    let mut text = format!(
        "{realm}/{hub} on {address}: {} providers, {} consumers, {} connections, {} paused\n",
        status.providers, status.consumers, status.connections, status.paused
    );
    for service in &status.services {
        text += &format!("  {}: {} providers, {} connections", service.urn, service.providers, service.connections);
        text += if service.is_paused { ", paused" } else { "" };
        text += &service.managed.as_ref().map(|state| format!(", managed: {state}")).unwrap_or_default();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        fs::write(&path, "realms: []").unwrap();
        assert!(matches!(listen(&path), Err(ControlError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "realms: []");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(listen(&link), Err(ControlError::NoSocket(_))));
        assert!(matches!(listen(directory.path()), Err(ControlError::NoSocket(_))));
        fs::remove_file(&path).unwrap();
        // Dropping a listener leaves its file behind, as SIGKILL does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_socket, _requests) = listen(&path).expect("nobody listens there");
        assert!(matches!(listen(&path), Err(ControlError::InUse(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_obeyed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let (_socket, mut requests) = listen(&path).unwrap();
        // Nothing is accepted before this test waits for something, as if the process were stopped.
        let mut gone = Blocking::connect(&path).unwrap();
        gone.write_all(b"{\"command\":\"drain\"}\n").unwrap();
        drop(gone);
        let mut there = Blocking::connect(&path).unwrap();
        there.write_all(b"{\"command\":\"reload\"}\n").unwrap();
        let (request, _answer) = requests.recv().await.unwrap();
        assert!(matches!(request, Request::Reload), "{request:?}");
        assert!(requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_was_obeyed_is_answered_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let (socket, mut requests) = listen(&path).unwrap();
        let _says_nothing = Blocking::connect(&path).unwrap();
        let mut asker = Blocking::connect(&path).unwrap();
        asker.write_all(b"{\"command\":\"drain\"}\n").unwrap();
        let (_, answer) = requests.recv().await.unwrap();
        answer.send(Answer::Done("draining".to_owned())).unwrap();
        timeout(TIME_LIMIT / 2, socket.close(requests)).await.expect("who asks nothing is not waited for");
        asker.set_nonblocking(true).unwrap();
        let mut received = [0; 64];
        let length = asker.read(&mut received).expect("an answer, and at once");
        assert_eq!(&received[..length], b"{\"done\":\"draining\"}\n");
        assert!(!path.exists());
    }
}
