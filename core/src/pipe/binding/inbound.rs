//! What came: bytes, and the messages in them.

use bytes::Bytes;

use crate::pipe::wire::{
    codec::{Codec, DecodeError, Receiver},
    message::Message,
};

#[derive(Debug)]
pub(super) struct Inbound<C> {
    receiver: Receiver<C>,
    /// Bytes that may wait while nothing is to be taken.
    unread_max: usize,
    /// There may be something to take.
    has_more: bool,
    /// The peer's direction has ended behind what has come.
    has_ended: bool,
    /// Bytes came that are no message: what comes behind them means nothing (WIR-4).
    read_closed: bool,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Message(Message),
    NoMessage(DecodeError),
    End,
}

impl<C: Codec> Inbound<C> {
    pub(super) fn new(codec: C, unread_max: usize) -> Self {
        Self { receiver: Receiver::new(codec), unread_max, has_more: false, has_ended: false, read_closed: false }
    }

    pub(super) fn codec(&self) -> &C {
        self.receiver.codec()
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !self.read_closed {
            self.receiver.push(bytes);
            self.has_more = true;
        }
    }

    /// The peer's direction has ended.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
        self.has_more = true;
    }

    /// Whether all that came was taken, and more may come.
    pub(super) fn wants_more(&self) -> bool {
        !self.has_more && !self.has_ended
    }

    /// Takes what is next. While the session is held, all waits, unless more came than the host was asked for.
    pub(super) fn next_arrival(&mut self, is_held: bool) -> Option<Arrival> {
        let waits = is_held && !self.has_ended && self.receiver.held() <= self.unread_max;
        if waits || !self.has_more {
            return None;
        }
        match if self.read_closed { Ok(None) } else { self.receiver.next_message() } {
            Ok(Some(message)) => {
                self.has_more = self.has_ended || self.receiver.held() > 0;
                Some(Arrival::Message(message))
            }
            Ok(None) => {
                self.has_more = false;
                self.has_ended.then_some(Arrival::End)
            }
            Err(error) => {
                self.read_closed = true;
                self.has_more = self.has_ended;
                Some(Arrival::NoMessage(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::wire::{codec::simple::Simple, message::Control};

    fn inbound(bytes: &'static [u8]) -> Inbound<Simple> {
        let mut inbound = Inbound::new(Simple::default(), 4);
        inbound.push(Bytes::from_static(bytes));
        inbound
    }

    fn ping() -> Option<Arrival> {
        Some(Arrival::Message(Control::ping().into()))
    }

    #[test]
    fn the_end_comes_once_and_behind_all_messages() {
        let mut inbound = inbound(b"*P\0\0*P\0\0*P");
        inbound.end();
        assert_eq!([(); 4].map(|()| inbound.next_arrival(false)), [ping(), ping(), Some(Arrival::End), None]);
        assert!(!inbound.wants_more());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut inbound = inbound(b"*P\0\0*P\0\0");
        assert_eq!([(); 2].map(|()| inbound.next_arrival(true)), [ping(), None]);
        assert!(!inbound.wants_more());
        assert_eq!(inbound.next_arrival(false), ping());
        assert!(inbound.wants_more());
    }

    #[test]
    fn nothing_comes_behind_what_is_no_message() {
        let mut inbound = inbound(b"\x01*P\0\0");
        assert!(matches!(inbound.next_arrival(false), Some(Arrival::NoMessage(_))));
        inbound.push(Bytes::from_static(b"*P\0\0"));
        assert_eq!(inbound.next_arrival(false), None);
        inbound.end();
        assert_eq!(inbound.next_arrival(false), Some(Arrival::End));
    }
}
