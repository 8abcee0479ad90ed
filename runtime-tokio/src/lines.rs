//! Writes lines from a thread of its own: a slow disk or reader holds up nothing else.

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

/// Items that wait to be written. A reader that falls further behind loses some, and hears how many.
const QUEUE: usize = 100_000;

/// Items in one write.
const BATCH: usize = 1000;

/// How long items gather before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// How long the end of the process waits for one more write.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Takes items of a log and writes them. Dropped, it waits until everything is written, as long as somebody reads it.
#[derive(Debug)]
pub struct Lines<T> {
    sender: Option<Sender<T>>,
    queue: Arc<Queue>,
    /// Closed by the thread when it has written everything.
    written: Receiver<()>,
}

/// A way to write items; all of them must have gone before the [`Lines`] is dropped.
#[derive(Debug)]
pub struct Teller<T> {
    sender: Sender<T>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Items that wait.
    length: AtomicUsize,
    /// Items that found no room since it was last said.
    lost: AtomicU64,
    /// Writes that were done.
    writes: AtomicU64,
}

impl<T: Send + 'static> Lines<T> {
    /// To a file, appended; or to stdout. `text` is how an item is written, its line break included.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn start(file: Option<&Path>, text: impl Fn(&T) -> String + Send + 'static) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (sender, receiver) = channel();
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        let (done, written) = channel();
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            write(&receiver, out, &text, &waiting);
            drop(done);
        })?;
        Ok(Self { sender: Some(sender), queue, written })
    }

    /// A way to write; none once it is being dropped.
    #[must_use]
    pub fn teller(&self) -> Option<Teller<T>> {
        self.sender.clone().map(|sender| Teller { sender, queue: self.queue.clone() })
    }
}

impl<T> Drop for Lines<T> {
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

impl<T> Teller<T> {
    /// Hands an item over, and never waits.
    pub fn tell(&self, item: T) {
        if self.queue.length.fetch_add(1, Ordering::Relaxed) < QUEUE {
            // The thread ends only after the last teller.
            let _ = self.sender.send(item);
        } else {
            self.queue.length.fetch_sub(1, Ordering::Relaxed);
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), queue: self.queue.clone() }
    }
}

fn write<T>(items: &Receiver<T>, mut out: Box<dyn Write + Send>, text: &impl Fn(&T) -> String, queue: &Queue) {
    let mut is_broken = false;
    while let Ok(first) = items.recv() {
        // Under load this saves a wake-up and a write for every line; nobody waits for one so impatiently.
        thread::sleep(GATHER);
        let mut lines = String::new();
        for item in std::iter::once(first).chain(items.try_iter().take(BATCH - 1)) {
            queue.length.fetch_sub(1, Ordering::Relaxed);
            lines.push_str(&text(&item));
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
