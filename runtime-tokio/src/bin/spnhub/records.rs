//! Writes records, one JSON object a line, from a thread of its own: a slow disk or reader holds up no hub.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use towline_core::{quic::Epoch, spn::hub::Notice, spn::record::Record};
use towline_tokio::hub::epoch;

/// Records that wait to be written. A reader that falls further behind loses some, and hears how many.
const QUEUE: usize = 100_000;

/// Records in one write.
const BATCH: usize = 1000;

/// How long records gather before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// How long the end of the process waits for one more write of records.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Takes records and writes them.
pub(crate) struct Records {
    sender: Option<Sender<Record>>,
    queue: Arc<Queue>,
    /// Closed by the thread when it has written everything.
    written: Receiver<()>,
}

/// A hub's way to tell.
#[derive(Clone)]
pub(crate) struct Teller {
    sender: Sender<Record>,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Records that wait.
    length: AtomicUsize,
    /// Records that found no room since it was last said.
    lost: AtomicU64,
    /// Writes that were done.
    writes: AtomicU64,
}

impl Records {
    /// To a file, appended; or to stdout.
    pub(crate) fn start(file: Option<&Path>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (sender, receiver) = channel();
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        let (done, written) = channel();
        thread::Builder::new().name("records".to_owned()).spawn(move || {
            write(&receiver, out, &epoch(), &waiting);
            drop(done);
        })?;
        Ok(Self { sender: Some(sender), queue, written })
    }

    pub(crate) fn teller(&self) -> Option<Teller> {
        self.sender.clone().map(|sender| Teller { sender, queue: self.queue.clone() })
    }
}

impl Drop for Records {
    /// Waits until everything is written, as long as somebody reads it. All tellers must have gone.
    fn drop(&mut self) {
        self.sender = None;
        let mut writes = None;
        while self.written.recv_timeout(LAST_WORD) == Err(RecvTimeoutError::Timeout) {
            let now = Some(self.queue.writes.load(Ordering::Relaxed));
            if writes == now {
                tracing::error!("the last records were not written: nobody reads them");
                return;
            }
            writes = now;
        }
    }
}

impl Teller {
    /// Tells what a hub has to tell; says whether it has ended.
    pub(crate) fn tell(&self, notice: Notice) -> bool {
        match notice {
            Notice::Record(record) => {
                if self.queue.length.fetch_add(1, Ordering::Relaxed) < QUEUE {
                    // The thread ends only after the last teller.
                    let _ = self.sender.send(record);
                } else {
                    self.queue.length.fetch_sub(1, Ordering::Relaxed);
                    self.queue.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Notice::Refused(refusal) => tracing::warn!("{refusal}"),
            Notice::RefusalsSuppressed { count } => tracing::warn!(count, "more refusals in this second"),
            Notice::Stopped => return true,
        }
        false
    }
}

fn write(records: &Receiver<Record>, mut out: Box<dyn Write + Send>, epoch: &Epoch, queue: &Queue) {
    let mut is_broken = false;
    while let Ok(first) = records.recv() {
        // Under load this saves a wake-up and a write for every record; nobody waits for a line so impatiently.
        thread::sleep(GATHER);
        let mut lines = String::new();
        for record in std::iter::once(first).chain(records.try_iter().take(BATCH - 1)) {
            queue.length.fetch_sub(1, Ordering::Relaxed);
            lines.push_str(&record.to_json(epoch));
            lines.push('\n');
        }
        match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => is_broken = false,
            // Said once, until it works again.
            Err(error) if !std::mem::replace(&mut is_broken, true) => tracing::error!(%error, "cannot write records"),
            Err(_) => {}
        }
        queue.writes.fetch_add(1, Ordering::Relaxed);
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(lost, "records were lost: their reader is too slow");
        }
    }
}
