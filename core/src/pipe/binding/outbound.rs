//! What is to go: messages that wait, and the one write that is under way.

use bytes::Bytes;

use crate::pipe::{
    policy::{
        load::{Limits, Load, Report},
        queue::SendQueue,
    },
    wire::{
        codec::{Codec, EncodeError},
        message::Message,
    },
};

#[derive(Debug)]
pub(super) struct Outbound {
    queue: SendQueue,
    /// What waits and what is under way.
    load: Load,
    /// Messages and bytes of the write that is under way.
    writing: Option<(usize, usize)>,
    write_max: usize,
}

impl Outbound {
    pub(super) fn new(limits: Limits, write_max: usize) -> Self {
        Self { queue: SendQueue::default(), load: Load::new(limits), writing: None, write_max }
    }

    /// A message waits from here on. What it says of the load is for the application.
    pub(super) fn push<C: Codec>(
        &mut self,
        codec: &C,
        priority: i8,
        message: &Message,
    ) -> Result<Option<Report>, EncodeError> {
        let len = self.queue.push(priority, |out| codec.encode(message, out))?;
        Ok(self.load.add(len))
    }

    /// The next write; none while one is under way.
    pub(super) fn poll_write(&mut self) -> Option<Bytes> {
        if self.writing.is_some() {
            return None;
        }
        let (bytes, messages) = self.queue.take(self.write_max)?;
        self.writing = Some((messages, bytes.len()));
        Some(bytes)
    }

    /// The write that was under way has left.
    pub(super) fn on_sent(&mut self) -> Option<Report> {
        let (messages, bytes) = self.writing.take()?;
        self.load.sub(messages, bytes)
    }

    /// Forgets what has not begun to leave.
    pub(super) fn drop_queue(&mut self) -> Option<Report> {
        self.queue.clear();
        let (messages, bytes) = self.writing.unwrap_or_default();
        self.load.sub(self.load.messages() - messages, self.load.bytes() - bytes)
    }

    /// Whether all has left.
    pub(super) fn is_idle(&self) -> bool {
        self.writing.is_none() && self.queue.is_empty()
    }

    /// Whether as much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.load.is_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::wire::{codec::simple::Simple, message::Control};

    #[test]
    fn one_write_is_under_way_and_counts_until_it_has_left() {
        let limits = Limits { soft_messages: 2, ..Limits::WRITE };
        let (mut outbound, codec) = (Outbound::new(limits, 100), Simple::default());
        let ping = Message::from(Control::ping());
        assert_eq!(outbound.push(&codec, 0, &ping), Ok(None));
        assert_eq!(outbound.push(&codec, 0, &ping), Ok(Some(Report::On)));
        assert_eq!(outbound.poll_write().as_deref(), Some(&b"*P\0\0*P\0\0"[..]), "both in one");
        assert_eq!(outbound.push(&codec, 0, &ping), Ok(None));
        assert!(outbound.poll_write().is_none() && outbound.is_full() && !outbound.is_idle());
        assert_eq!(outbound.on_sent(), Some(Report::Off));
        assert_eq!(outbound.on_sent(), None, "nothing was under way");
        assert_eq!(outbound.drop_queue(), None);
        assert!(outbound.is_idle());
    }
}
