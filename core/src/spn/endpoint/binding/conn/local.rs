//! The host's side of a connection: what it waits for, whether it may write, and how it was shown the end.

use crate::spn::endpoint::{
    config::{ConnId, Notice},
    ports::Ports,
};
use crate::spn::wire::code::StreamCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Open,
    Finished,
    Stopped(StreamCode),
}

/// Why the host may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum NoWrite {
    Finished,
    Stopped(StreamCode),
}

/// The host's side of a connection.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Local {
    id: ConnId,
    /// The host has acted on it: a provider's was dialled, then.
    is_open: bool,
    /// The host found nothing when it read, or no room when it wrote, and gets a notice.
    wants_read: bool,
    wants_write: bool,
    writing: Writing,
    has_written: bool,
    has_read: bool,
    /// CLOSE_REQ went out, or an abort was left for the partner.
    is_cut: bool,
    /// The reset that the host was shown.
    reset: Option<StreamCode>,
}

impl Local {
    /// Of a connection that the host has opened, or that it is yet to take.
    pub(in crate::spn::endpoint) fn new(id: ConnId, is_open: bool) -> Self {
        Self {
            id,
            is_open,
            wants_read: false,
            wants_write: false,
            writing: Writing::Open,
            has_written: false,
            has_read: false,
            is_cut: false,
            reset: None,
        }
    }

    /// The host acts on it. Says whether it does so for the first time.
    pub(in crate::spn::endpoint) fn open(&mut self) -> bool {
        !std::mem::replace(&mut self.is_open, true)
    }

    pub(in crate::spn::endpoint) fn want_read(&mut self) {
        self.wants_read = true;
    }

    /// There may be something to read: says so if the host waits for it.
    pub(in crate::spn::endpoint) fn note_readable(&mut self, ports: &mut Ports) {
        if std::mem::take(&mut self.wants_read) {
            ports.notify(Notice::Readable(self.id));
        }
    }

    pub(in crate::spn::endpoint) fn want_write(&mut self, wants: bool) {
        self.wants_write = wants;
    }

    /// There may be room: says so if the host waits for it.
    pub(in crate::spn::endpoint) fn note_writable(&mut self, ports: &mut Ports) {
        if std::mem::take(&mut self.wants_write) {
            ports.notify(Notice::Writable(self.id));
        }
    }

    /// Whether the host may write.
    pub(in crate::spn::endpoint) fn may_write(&self) -> Result<(), NoWrite> {
        match self.writing {
            Writing::Open => Ok(()),
            Writing::Finished => Err(NoWrite::Finished),
            Writing::Stopped(code) => Err(NoWrite::Stopped(code)),
        }
    }

    /// The host writes no more. Says whether it could until now.
    pub(in crate::spn::endpoint) fn finish(&mut self) -> bool {
        let is_open = self.writing == Writing::Open;
        if is_open {
            self.writing = Writing::Finished;
        }
        is_open
    }

    /// Its bytes are wanted no more. The host hears of it.
    pub(in crate::spn::endpoint) fn stop(&mut self, code: StreamCode, ports: &mut Ports) {
        self.writing = Writing::Stopped(code);
        ports.notify(Notice::Stopped(self.id, code));
    }

    /// Bytes of the host were sent. Says whether they are the first.
    pub(in crate::spn::endpoint) fn note_written(&mut self) -> bool {
        !std::mem::replace(&mut self.has_written, true)
    }

    pub(in crate::spn::endpoint) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The host has read bytes. Says whether they are the first.
    pub(in crate::spn::endpoint) fn note_read(&mut self) -> bool {
        !std::mem::replace(&mut self.has_read, true)
    }

    /// It is broken off, and the partner hears of it.
    pub(in crate::spn::endpoint) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// It is broken off, and the host will be shown a reset.
    pub(in crate::spn::endpoint) fn reset(&mut self, code: StreamCode) {
        self.reset = Some(code);
    }

    /// Whether the host is shown a reset, or will be.
    pub(in crate::spn::endpoint) fn is_reset(&self) -> bool {
        self.reset.is_some()
    }

    /// Whether it was broken off, by whichever side.
    pub(in crate::spn::endpoint) fn is_broken(&self) -> bool {
        self.is_cut || self.reset.is_some()
    }

    /// The last of it that the host hears.
    pub(in crate::spn::endpoint) fn end(&self, ports: &mut Ports) {
        ports.notify(match self.reset {
            Some(code) => Notice::Reset(self.id, code),
            None => Notice::Ended(self.id),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConnId = ConnId { index: 1, generation: 2 };

    #[test]
    fn the_host_gets_a_notice_for_what_it_waits_for_and_one_only() {
        let (mut local, mut ports) = (Local::new(ID, false), Ports::of_test());
        assert!(local.open() && !local.open());
        local.note_readable(&mut ports);
        local.note_writable(&mut ports);
        assert_eq!(ports.take_notice(), None, "it waits for nothing");
        local.want_read();
        local.want_write(true);
        for _ in 0..2 {
            local.note_readable(&mut ports);
            local.note_writable(&mut ports);
        }
        let notices = [(); 3].map(|()| ports.take_notice());
        assert_eq!(notices, [Some(Notice::Readable(ID)), Some(Notice::Writable(ID)), None]);
        assert!(local.note_read() && !local.note_read() && local.note_written() && !local.note_written());
        assert!(local.has_written());
    }

    #[test]
    fn it_writes_until_it_has_finished_or_is_stopped() {
        let (mut local, mut ports) = (Local::new(ID, true), Ports::of_test());
        assert_eq!(local.may_write(), Ok(()));
        assert!(local.finish() && !local.finish());
        assert_eq!(local.may_write(), Err(NoWrite::Finished));
        local.stop(StreamCode(9), &mut ports);
        assert_eq!(
            (local.may_write(), ports.take_notice()),
            (Err(NoWrite::Stopped(StreamCode(9))), Some(Notice::Stopped(ID, StreamCode(9))))
        );
    }

    #[test]
    fn the_last_notice_says_whether_it_was_reset() {
        let mut ports = Ports::of_test();
        let mut local = Local::new(ID, true);
        local.cut();
        assert!(local.is_broken() && !local.is_reset());
        local.end(&mut ports);
        let mut local = Local::new(ID, true);
        local.reset(StreamCode(3));
        assert!(local.is_broken() && local.is_reset());
        local.end(&mut ports);
        assert_eq!(
            [(); 2].map(|()| ports.take_notice()),
            [Some(Notice::Ended(ID)), Some(Notice::Reset(ID, StreamCode(3)))]
        );
    }
}
