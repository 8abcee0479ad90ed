//! Writes lines from a thread of its own: a full disk, a slow reader or one that has gone holds up nothing and ends nothing.
//!
//! Lines are whole: of one that could not be written completely nothing is left behind. Those that found no room, in the queue or on the
//! disk, are counted, and a line says how many they were as soon as one can be written.

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

/// Items in one turn of the thread.
const BATCH: usize = 1000;
/// A system call writes so many bytes, or one item: as many as a pipe takes as one piece.
const PIECE: usize = 4096;
/// How long items gather before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is tried again to say what was lost.
const RETRY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for one more write,
const LAST_WORD: Duration = Duration::from_millis(500);
/// and for all of them.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is written, and how.
pub trait Form: Send + 'static {
    /// What is handed over.
    type Item: Send + 'static;

    /// How much may wait to be written, in the unit of [`Form::weight`]. More is lost, and counted.
    const ROOM: usize;

    /// What an item takes of [`Form::ROOM`].
    fn weight(_item: &Self::Item) -> usize {
        1
    }

    /// What stands first in a file that is empty.
    fn head(&mut self) -> String {
        String::new()
    }

    /// An item as it is written, its line breaks included; empty, if it is not.
    fn text(&mut self, item: &Self::Item) -> String;

    /// What stands in the place of items that were lost; empty, if nothing does.
    fn gap(&mut self, lost: u64) -> String;

    /// Something has happened that somebody should hear of elsewhere.
    fn trouble(&mut self, _trouble: Trouble<'_>) {}

    /// The process ends, and nobody has taken the last items.
    fn unwritten() {}
}

/// What can happen to lines.
#[derive(Debug)]
pub enum Trouble<'a> {
    /// They cannot be written. Said once, until they can again.
    Write(&'a io::Error),
    /// The file was renamed or removed, and cannot be opened anew. Said once, until it can again.
    Reopen(&'a io::Error),
    /// So many items were lost.
    Lost(u64),
}

/// Takes items and writes them. Dropped, it waits until everything is written, as long as somebody takes it, but at most 5 s.
pub struct Lines<F: Form>(Teller<F>);

/// A way to write items.
pub struct Teller<F: Form> {
    messages: Sender<Message<F::Item>>,
    queue: Arc<Queue>,
}

enum Message<T> {
    Item(T),
    /// Open the file anew.
    Reopen,
    /// Drop this when everything before it is written.
    Mark(Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    /// The weight of what waits.
    weight: AtomicUsize,
    /// Items that found no room since it was last said.
    lost: AtomicU64,
    /// Writes that were done.
    writes: AtomicU64,
}

impl<F: Form> Lines<F> {
    /// To a file, appended; or to stdout. A file that is renamed or removed is opened anew.
    ///
    /// # Errors
    /// A file that cannot be opened, or no thread.
    pub fn start(file: Option<&Path>, form: F) -> io::Result<Self> {
        let output = match file {
            Some(path) => Output::open(path)?,
            None => Output::of(io::stdout())?,
        };
        Self::to(output, form)
    }

    /// To stderr.
    ///
    /// # Errors
    /// No stderr, or no thread.
    pub fn to_stderr(form: F) -> io::Result<Self> {
        Self::to(Output::of(io::stderr())?, form)
    }

    fn to(output: Output, form: F) -> io::Result<Self> {
        let (messages, inbox) = channel();
        let queue = Arc::new(Queue::default());
        let writer = Writer { form, output, queue: queue.clone(), lost: 0, is_broken: false, is_astray: false };
        thread::Builder::new().name("lines".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self(Teller { messages, queue }))
    }

    /// A way to write.
    #[must_use]
    pub fn teller(&self) -> Teller<F> {
        self.0.clone()
    }

    /// Opens the file anew, though it may be where it was.
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

impl<F: Form> Teller<F> {
    /// One that tells nobody.
    pub(crate) fn none() -> Self {
        Self { messages: channel().0, queue: Arc::default() }
    }

    /// Hands an item over, and never waits.
    pub fn tell(&self, item: F::Item) {
        let weight = F::weight(&item);
        if self.queue.weight.fetch_add(weight, Ordering::Relaxed) < F::ROOM {
            // The thread ends after the last teller.
            let _ = self.messages.send(Message::Item(item));
        } else {
            self.queue.weight.fetch_sub(weight, Ordering::Relaxed);
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written that was told, as long as somebody takes it, but at most 5 s; says whether it is.
    #[must_use]
    pub fn flush(&self) -> bool {
        let (mark, passed) = channel();
        let _ = self.messages.send(Message::Mark(mark));
        let began = Instant::now();
        let mut writes = None;
        while passed.recv_timeout(LAST_WORD) == Err(RecvTimeoutError::Timeout) {
            let now = Some(self.queue.writes.load(Ordering::Relaxed));
            if writes == now || began.elapsed() >= LAST_WORDS {
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

impl<F: Form> fmt::Debug for Teller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl<F: Form> Clone for Teller<F> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), queue: self.queue.clone() }
    }
}

/// Items as they are written.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    /// Where each item ends.
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
    /// Items that are lost, and not said yet.
    lost: u64,
    /// It was said that nothing can be written,
    is_broken: bool,
    /// or that the file cannot be opened anew.
    is_astray: bool,
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
                // Under load this saves a wake-up and a write for every line; nobody waits for one so impatiently.
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
            // What has been lost meanwhile need not wait for the next item.
            self.lost += self.queue.lost.swap(0, Ordering::Relaxed);
            if self.lost > 0 && !self.is_broken {
                self.write(&batch);
            }
        }
    }

    /// Writes what was lost, and a batch. What cannot be written is lost.
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
            Ok(()) => self.is_broken = false,
            Err(error) if !std::mem::replace(&mut self.is_broken, true) => self.form.trouble(Trouble::Write(&error)),
            Err(_) => {}
        }
    }

    /// Writes the items of a batch, until one cannot be; says how many were.
    fn pieces(&mut self, batch: &Batch) -> (usize, io::Result<()>) {
        let (mut item, mut start) = (0, 0);
        while let Some(rest) = batch.ends.get(item..).filter(|rest| !rest.is_empty()) {
            let fitting = rest.iter().take_while(|end| **end - start <= PIECE).count().max(1);
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

    /// Goes to where the file is now.
    fn follow(&mut self, at_any_rate: bool) {
        match self.output.follow(at_any_rate) {
            Ok(is_new) => {
                self.is_astray = false;
                if is_new {
                    self.begin();
                }
            }
            Err(error) if !std::mem::replace(&mut self.is_astray, true) => self.form.trouble(Trouble::Reopen(&error)),
            Err(_) => {}
        }
    }

    fn begin(&mut self) {
        if self.output.is_empty() {
            let head = self.form.head();
            if !head.is_empty() {
                // Should it fail, so will the first item, and that is said.
                let _ = self.output.write(head.as_bytes(), &[head.len()], || {});
            }
        }
    }
}
