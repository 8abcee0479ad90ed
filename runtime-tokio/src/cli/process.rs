//! The process of a program: its runtime, limits, threads and children.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getrlimit, setrlimit, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

/// Upper bound of the limit of open files: commands inherit the limit, and some of them loop over all file descriptors.
const FILES: u64 = 1 << 20;
/// Limit of concurrent threads beside the program. A thread that hangs, for example on a network file system, keeps its place.
const MAX_BESIDE: usize = 16;
/// Delay before ended processes are reaped.
const GATHER: Duration = Duration::from_millis(50);

/// Runs a program in this thread. When its future has ended, this waits for nothing else: neither a name look-up nor a file that hangs.
///
/// # Errors
/// The runtime cannot be started, or the program has failed.
pub fn run<T, E: From<io::Error>>(program: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    raise_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // With a handler, a file at its size limit is an error, as a full disk is, and does not end the process.
        let _sizes = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        if getpid().is_init() {
            tokio::spawn(reap());
        }
        program.await
    });
    runtime.shutdown_background();
    result
}

/// Raises the soft limit of open files to the hard limit: each connection needs a file, and the usual soft limit is too low.
fn raise_files() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.map_or(FILES, |most| most.min(FILES));
    if now.current.is_some_and(|current| current < most) {
        // If this fails, the old limit applies.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..now });
    }
}

/// Runs a function in a thread of its own. The end of the program does not wait for that thread.
///
/// # Errors
/// The system has no thread, too many earlier ones still run, or the function has panicked.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    /// One of the [`MAX_BESIDE`] places.
    struct Place;
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Place {
        fn drop(&mut self) {
            TAKEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    let place = Place;
    if taken >= MAX_BESIDE {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many earlier attempts still hang"));
    }
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("beside".to_owned()).spawn(move || {
        let result = work();
        drop(place);
        // The caller may have dropped its future.
        let _ = done.send(result);
    })?;
    result.await.map_err(io::Error::other)
}

/// Children for which another part of the program waits.
static OWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Marks a child for which its owner waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Own(u32);

impl Own {
    /// Marks a child. The caller must not yield between the start of the child and this call.
    pub(crate) fn new(pid: u32) -> Self {
        OWN.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        Self(pid)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Reaps orphans: the first process of a container inherits them, and no other part of the program waits for them.
async fn reap() {
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        sleep(GATHER).await;
        for pid in ended_children() {
            let is_own =
                OWN.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid.as_raw_nonzero().get().unsigned_abs());
            if !is_own {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Children of this process that have ended and are not reaped.
fn ended_children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ended = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // PID (NAME) STATE PARENT …; a name may contain any character.
        let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        words.next() == Some("Z") && words.next().and_then(|parent| parent.parse().ok()) == Some(own)
    };
    pids.filter(is_ended).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_ended_child_is_found_until_it_is_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let is_there = || ended_children().iter().any(|found| found.as_raw_nonzero().get() == pid);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_there() {
            assert!(std::time::Instant::now() < deadline, "it never ends");
            thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(!is_there());
    }

    #[tokio::test]
    async fn what_hangs_beside_us_is_bounded_and_what_ends_makes_room() {
        let (release, waits) = std::sync::mpsc::channel::<()>();
        let waits = std::sync::Arc::new(Mutex::new(waits));
        let hang = || {
            let waits = waits.clone();
            tokio::spawn(beside(move || waits.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok()))
        };
        let hanging: Vec<_> = (0..MAX_BESIDE).map(|_| hang()).collect();
        // Other tests of this process may have taken some places.
        sleep(Duration::from_millis(50)).await;
        assert!(beside(|| ()).await.is_err());
        drop(release);
        for one in hanging {
            let _ = one.await.unwrap();
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while beside(|| ()).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "no place");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
