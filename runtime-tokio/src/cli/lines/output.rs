//! The output of lines: a file, or the inherited stdout or stderr. This module takes no lock of the standard library's streams: other writers
//! to these streams, such as a panic, would wait for a stalled reader.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, poll};

pub(super) struct Output {
    file: File,
    /// The path, if this process has opened the file.
    path: Option<PathBuf>,
    /// Device and inode.
    identity: (u64, u64),
    is_regular: bool,
    /// The file ends with a part of a line that could not be removed.
    is_torn: bool,
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Output {
    /// Opens a file for appending.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Opening a named pipe for writing would wait for its reader. Opening it for reading and writing does not, and writes succeed without a reader.
        let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        let file = OpenOptions::new().create(!is_pipe).append(true).read(is_pipe).open(path)?;
        Self::new(file, Some(path.to_owned()))
    }

    /// An inherited stream.
    pub(super) fn of(stream: impl AsFd) -> io::Result<Self> {
        Self::new(File::from(stream.as_fd().try_clone_to_owned()?), None)
    }

    fn new(file: File, path: Option<PathBuf>) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (identity, is_regular) = (identity(&metadata), metadata.is_file());
        Ok(Self { file, path, identity, is_regular, is_torn: false })
    }

    /// Whether the file is empty; outputs other than regular files count as empty.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_regular || self.path.is_none() || self.file.metadata().is_ok_and(|found| found.len() == 0)
    }

    /// Opens the file again if its path has another file, or none, or if `force` is set. Returns whether it was opened.
    pub(super) fn follow(&mut self, force: bool) -> io::Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        let is_there = fs::metadata(path).is_ok_and(|found| identity(&found) == self.identity);
        if is_there && !force {
            return Ok(false);
        }
        let new = Self::open(path)?;
        // The same file opened again keeps its torn end.
        let is_torn = self.is_torn && new.identity == self.identity;
        *self = Self { is_torn, ..new };
        Ok(true)
    }

    /// Writes items; `ends` has the end of each item. An error has the number of items that were written completely; a part of the next one is
    /// removed again.
    pub(super) fn write(
        &mut self,
        items: &[u8],
        ends: &[usize],
        progress: impl Fn(),
    ) -> Result<(), (usize, io::Error)> {
        if self.is_torn {
            self.push(b"\n", &progress).map_err(|(_, error)| (0, error))?;
            self.is_torn = false;
        }
        self.push(items, progress).map_err(|(written, error)| {
            let whole = ends.iter().take_while(|end| **end <= written).count();
            let start = whole.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or_default();
            let part = (written - start) as u64;
            if part > 0 && !self.remove_last(part) {
                self.is_torn = true;
            }
            (whole, error)
        })
    }

    fn push(&mut self, bytes: &[u8], progress: impl Fn()) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The process that passed the stream on may have made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut one = [PollFd::new(&self.file, PollFlags::OUT)];
                    if let Err(error) = poll(&mut one, None)
                        && error != rustix::io::Errno::INTR
                    {
                        return Err((written, error.into()));
                    }
                }
                Err(error) => return Err((written, error)),
            }
            progress();
        }
        Ok(())
    }

    /// Removes the last bytes, unless another process has appended to the file since. Returns whether they were removed.
    fn remove_last(&mut self, count: u64) -> bool {
        if !self.is_regular {
            return false;
        }
        let removed = self.file.stream_position().and_then(|position| {
            if self.file.metadata()?.len() != position {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            self.file.set_len(position - count)?;
            self.file.seek(SeekFrom::Start(position - count))
        });
        removed.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(path: &Path, text: &[u8]) {
        OpenOptions::new().append(true).open(path).and_then(|mut other| other.write_all(text)).unwrap();
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_and_where_it_cannot_be_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = Output::open(&path).unwrap();
        output.write(b"one\ntw", &[4, 6], || {}).unwrap();
        assert!(output.remove_last(2));
        output.write(b"three\nfo", &[6, 8], || {}).unwrap();
        appended(&path, b"other\n");
        assert!(!output.remove_last(2), "somebody else's line is no part of ours");
        appended(&path, b"fi");
        output.is_torn = true;
        output.write(b"six\n", &[4], || {}).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nthree\nfoother\nfi\nsix\n");
    }
}
