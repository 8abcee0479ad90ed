//! The programs as processes: started, ended, stopped, measured. Each life has a log of its own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// A running process; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    /// Which life of its seat it is, from 1.
    pub(super) life: usize,
    /// When it began.
    pub(super) began: Instant,
    log: PathBuf,
}

/// The resources of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Open file descriptors.
    pub files: usize,
    /// User and system time since its start.
    pub cpu: Duration,
}

impl Process {
    /// Starts a program. Records, on stdout, go where diagnostics do not: a file beside them, or nowhere.
    pub(super) fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: &[S],
        log: PathBuf,
        life: usize,
        records: bool,
    ) -> io::Result<Self> {
        let out = if records { File::create(log.with_extension("jsonl"))?.into() } else { Stdio::null() };
        let child = Command::new(program)
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Self { child, life, began: Instant::now(), log })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // One that has ended by itself is found by `has_ended`.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// How it ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its end, unless that takes longer.
    pub(super) async fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.has_ended();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a text in its log. Returns false if the text does not appear or the process ends.
    pub(super) async fn says(&mut self, words: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let has_ended = self.has_ended().is_some();
            if self.log().contains(words) {
                return true;
            }
            if has_ended || Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its whole log.
    pub(super) fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its current resources; `None` when it has ended.
    pub(super) fn figures(&self) -> Option<Figures> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory = memory.split_whitespace().next()?.parse().ok()?;
        let files = fs::read_dir(proc.join("fd")).ok()?.count();
        // Fields 14 and 15, in ticks of 10 ms; the name before them may hold blanks.
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
        Some(Figures { memory, files, cpu: Duration::from_millis(ticks * 10) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
