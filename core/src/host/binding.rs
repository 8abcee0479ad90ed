//! Hubs and endpoints, as a loop with one UDP socket sees them.

use std::time::Instant;

use crate::{
    quic::{Epoch, Received, Transmit},
    spn::{endpoint::Endpoint, hub::Hub},
};

/// What a binding of datagrams has, whatever it binds.
pub trait Binding {
    /// Whether datagrams are to be read at the moment; they wait in the socket.
    fn is_reading(&self) -> bool {
        true
    }
    /// Takes a datagram from the socket.
    fn handle_datagram(&mut self, now: Instant, received: Received);
    /// Fires what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// When something is due next.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The next datagrams to send.
    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit>;
    /// Takes what both clocks show now: the wall clock may have been set.
    fn set_epoch(&mut self, now: Instant, epoch: Epoch);
    /// Segments that one send call may carry (GSO).
    fn set_max_segments(&mut self, segments: usize);
}

macro_rules! binding {
    ($type:ty $(, $reading:item)?) => {
        impl Binding for $type {
            $($reading)?
            fn handle_datagram(&mut self, now: Instant, received: Received) {
                self.handle_datagram(now, received);
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }
            fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
                self.poll_transmit(now, buffer)
            }
            fn set_epoch(&mut self, now: Instant, epoch: Epoch) {
                self.set_epoch(now, epoch);
            }
            fn set_max_segments(&mut self, segments: usize) {
                self.set_max_segments(segments);
            }
        }
    };
}

binding!(
    Hub,
    fn is_reading(&self) -> bool {
        !self.is_starting()
    }
);
binding!(Endpoint);
