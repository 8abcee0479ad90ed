//! Writes lines from a thread of its own: a full disk, a slow reader or a closed pipe neither blocks nor ends the program.
//!
//! Lines are whole: a line that could not be written completely is removed again. Lines that found no room, in the queue or on the
//! disk, are counted; a line with their number is written as soon as there is room.

mod output;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use output::Output;

/// Limit of items that the thread writes in one turn.
const BATCH: usize = 1000;
/// A system call writes at most so many bytes, or one item: a pipe writes as much atomically.
const WRITE_SIZE: usize = 4096;
/// Delay before a write, in which more items are collected.
const GATHER: Duration = Duration::from_millis(20);
/// Interval of attempts to write the number of lost items.
const RETRY: Duration = Duration::from_secs(1);
/// How long a flush waits for the next write,
const FLUSH_STALL: Duration = Duration::from_millis(500);
/// and for all writes.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The items that are written, and their text.
pub trait Form: Send + 'static {
    /// The items.
    type Item: Send + 'static;

    /// Limit of waiting items, in the unit of [`Form::weight`]. Further items are lost, and counted.
    const ROOM: usize;

    /// The share of [`Form::ROOM`] that an item needs.
    fn weight(_item: &Self::Item) -> usize {
        1
    }

    /// The text at the beginning of an empty file.
    fn head(&mut self) -> String {
        String::new()
    }

    /// The text of an item, with its line breaks; empty if the item is not written.
    fn text(&mut self, item: &Self::Item) -> String;

    /// The text in the place of lost items; empty for none.
    fn gap(&mut self, lost: u64) -> String;

    /// Reports a problem by another way than these lines.
    fn trouble(&mut self, _trouble: Trouble<'_>) {}

    /// Reports that the process ends before the last items are written.
    fn unwritten() {}
}

/// A problem with the output.
#[derive(Debug)]
pub enum Trouble<'a> {
    /// Writing fails. Reported once, until a write succeeds again.
    Write(&'a io::Error),
    /// The file was renamed or removed, and cannot be opened again. Reported once, until it can.
    Reopen(&'a io::Error),
    /// So many items were lost.
    Lost(u64),
}

/// The writer of items. Dropping it waits until everything is written: at most 5 s, and not longer than the output accepts data.
pub struct Lines<F: Form>(LineSender<F>);

/// Sends items to the writer.
pub struct LineSender<F: Form> {
    messages: Sender<Message<F::Item>>,
    queue: Arc<Queue>,
}

enum Message<T> {
    Item(T),
    /// Open the file again.
    Reopen,
    /// Drop the sender when everything before this message is written.
    Mark(Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    /// The weight of waiting items.
    weight: AtomicUsize,
    /// Items that found no room since the last report.
    lost: AtomicU64,
    /// Number of writes so far.
    writes: AtomicU64,
}

impl<F: Form> Lines<F> {
    /// Starts a writer: it appends to a file, or writes to stdout. A file that is renamed or removed is opened again.
    ///
    /// # Errors
    /// The file cannot be opened, or the system has no thread.
    pub fn start(file: Option<&Path>, form: F) -> io::Result<Self> {
        let output = match file {
            Some(path) => Output::open(path)?,
            None => Output::of(io::stdout())?,
        };
        Self::to(output, form)
    }

    /// Starts a writer to stderr.
    ///
    /// # Errors
    /// There is no stderr, or the system has no thread.
    pub fn to_stderr(form: F) -> io::Result<Self> {
        Self::to(Output::of(io::stderr())?, form)
    }

    fn to(output: Output, form: F) -> io::Result<Self> {
        let (messages, inbox) = channel();
        let queue = Arc::new(Queue::default());
        let writer = Writer { form, output, queue: queue.clone(), lost: 0, write_failed: false, reopen_failed: false };
        thread::Builder::new().name("lines".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self(LineSender { messages, queue }))
    }

    /// A sender of items.
    #[must_use]
    pub fn sender(&self) -> LineSender<F> {
        self.0.clone()
    }

    /// Opens the file again, even if it was not renamed.
    pub fn reopen(&self) {
        let _ = self.0.messages.send(Message::Reopen);
    }
}

impl<F: Form> Drop for Lines<F> {
    fn drop(&mut self) {
        if !self.0.flush() {
            F::unwritten();
        }
    }
}

impl<F: Form> LineSender<F> {
    /// A sender without a writer.
    pub(crate) fn none() -> Self {
        Self { messages: channel().0, queue: Arc::default() }
    }

    /// Queues an item, and never waits.
    pub fn send(&self, item: F::Item) {
        let weight = F::weight(&item);
        if self.queue.weight.fetch_add(weight, Ordering::Relaxed) < F::ROOM {
            // The thread ends after the last sender.
            let _ = self.messages.send(Message::Item(item));
        } else {
            self.queue.weight.fetch_sub(weight, Ordering::Relaxed);
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all queued items are written: at most 5 s, and not longer than the output accepts data. Returns whether they are written.
    #[must_use]
    pub fn flush(&self) -> bool {
        let (mark, passed) = channel();
        let _ = self.messages.send(Message::Mark(mark));
        let began = Instant::now();
        let mut writes = None;
        while passed.recv_timeout(FLUSH_STALL) == Err(RecvTimeoutError::Timeout) {
            let now = Some(self.queue.writes.load(Ordering::Relaxed));
            if writes == now || began.elapsed() >= FLUSH_LIMIT {
                return false;
            }
            writes = now;
        }
        true
    }
}

impl<F: Form> fmt::Debug for Lines<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&self.0).finish()
    }
}

impl<F: Form> fmt::Debug for LineSender<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSender").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl<F: Form> Clone for LineSender<F> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), queue: self.queue.clone() }
    }
}

/// The text of items, for a write.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    /// The end of each item in `text`.
    ends: Vec<usize>,
}

impl Batch {
    fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.ends.push(self.text.len());
    }
}

struct Writer<F> {
    form: F,
    output: Output,
    queue: Arc<Queue>,
    /// Lost items that are not reported yet.
    lost: u64,
    /// The failure of a write was reported,
    write_failed: bool,
    /// or the failure to open the file again.
    reopen_failed: bool,
}

impl<F: Form> Writer<F> {
    fn run(mut self, inbox: &Receiver<Message<F::Item>>) {
        self.begin();
        let mut batch = Batch::default();
        loop {
            let first = if self.lost > 0 {
                match inbox.recv_timeout(RETRY) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    message => message.ok(),
                }
            } else {
                match inbox.recv() {
                    Err(_) => return,
                    message => message.ok(),
                }
            };
            let mut marks = Vec::new();
            let mut reopen = false;
            if let Some(first) = first {
                // Under load this saves a wake-up and a write for each line; the delay does not matter to readers.
                if matches!(first, Message::Item(_)) {
                    thread::sleep(GATHER);
                }
                for message in std::iter::once(first).chain(inbox.try_iter().take(BATCH - 1)) {
                    match message {
                        Message::Item(item) => {
                            self.queue.weight.fetch_sub(F::weight(&item), Ordering::Relaxed);
                            batch.push(&self.form.text(&item));
                        }
                        Message::Reopen => reopen = true,
                        Message::Mark(mark) => marks.push(mark),
                    }
                }
            }
            self.follow(reopen);
            self.lost += self.queue.lost.swap(0, Ordering::Relaxed);
            self.write(&batch);
            batch.text.clear();
            batch.ends.clear();
            // Items lost meanwhile are reported without waiting for the next item.
            self.lost += self.queue.lost.swap(0, Ordering::Relaxed);
            if self.lost > 0 && !self.write_failed {
                self.write(&batch);
            }
        }
    }

    /// Writes the number of lost items, then a batch. Items that cannot be written are lost.
    fn write(&mut self, batch: &Batch) {
        let lost = self.lost;
        let mut written = Ok(());
        if lost > 0 {
            let gap = self.form.gap(lost);
            written = self.pieces(&Batch { ends: vec![gap.len()], text: gap.into_bytes() }).1;
            if written.is_ok() {
                self.lost = 0;
                self.form.trouble(Trouble::Lost(lost));
            }
        }
        if written.is_ok() {
            let (done, result) = self.pieces(batch);
            self.lost += (batch.ends.len() - done) as u64;
            written = result;
        } else {
            self.lost += batch.ends.len() as u64;
        }
        match written {
            Ok(()) => self.write_failed = false,
            Err(error) if !std::mem::replace(&mut self.write_failed, true) => self.form.trouble(Trouble::Write(&error)),
            Err(_) => {}
        }
    }

    /// Writes the items of a batch until a write fails. Returns the number of written items.
    fn pieces(&mut self, batch: &Batch) -> (usize, io::Result<()>) {
        let (mut item, mut start) = (0, 0);
        while let Some(rest) = batch.ends.get(item..).filter(|rest| !rest.is_empty()) {
            let fitting = rest.iter().take_while(|end| **end - start <= WRITE_SIZE).count().max(1);
            let ends: Vec<usize> = rest.iter().take(fitting).map(|end| end - start).collect();
            let length = ends.last().copied().unwrap_or_default();
            let Some(piece) = batch.text.get(start..start + length) else { break };
            let queue = &self.queue;
            let progress = || {
                queue.writes.fetch_add(1, Ordering::Relaxed);
            };
            match self.output.write(piece, &ends, progress) {
                Ok(()) => (item, start) = (item + fitting, start + length),
                Err((whole, error)) => return (item + whole, Err(error)),
            }
        }
        (item, Ok(()))
    }

    /// Opens the file again if it was renamed or removed, or if `force` is set.
    fn follow(&mut self, force: bool) {
        match self.output.follow(force) {
            Ok(is_new) => {
                self.reopen_failed = false;
                if is_new {
                    self.begin();
                }
            }
            Err(error) if !std::mem::replace(&mut self.reopen_failed, true) => {
                self.form.trouble(Trouble::Reopen(&error))
            }
            Err(_) => {}
        }
    }

    fn begin(&mut self) {
        if self.output.is_empty() {
            let head = self.form.head();
            if !head.is_empty() {
                // If this fails, the first item fails as well, and that is reported.
                let _ = self.output.write(head.as_bytes(), &[head.len()], || {});
            }
        }
    }
}
