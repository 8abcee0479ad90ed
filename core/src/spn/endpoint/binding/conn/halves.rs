//! The two halves of the stream that carries a connection, as far as QUIC is concerned.

/// Which half is gone, and whether the machine asks for the end of both.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Halves {
    has_sent_end: bool,
    has_received_end: bool,
    is_awaited: bool,
}

impl Halves {
    /// Our half is gone: it was reset, or its end is acknowledged.
    pub(in crate::spn::endpoint) fn end_sending(&mut self) {
        self.has_sent_end = true;
    }

    /// The partner's half is gone: it was stopped or reset, or its end has been read.
    pub(in crate::spn::endpoint) fn end_receiving(&mut self) {
        self.has_received_end = true;
    }

    /// The machine asks for the end of both.
    pub(in crate::spn::endpoint) fn await_end(&mut self) {
        self.is_awaited = true;
    }

    /// Whether both are gone and the machine is to hear of it, which it does once.
    pub(in crate::spn::endpoint) fn take_end(&mut self) -> bool {
        let is_due = self.is_awaited && self.has_sent_end && self.has_received_end;
        self.is_awaited &= !is_due;
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_both_halves_is_reported_once_and_only_when_it_is_awaited() {
        let mut halves = Halves::default();
        halves.end_sending();
        halves.end_receiving();
        assert!(!halves.take_end(), "nobody waits for it");
        halves.await_end();
        assert!(halves.take_end() && !halves.take_end());
        let mut halves = Halves::default();
        halves.await_end();
        halves.end_receiving();
        assert!(!halves.take_end(), "one half is left");
        halves.end_sending();
        assert!(halves.take_end());
    }
}
