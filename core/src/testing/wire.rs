//! A hub and the endpoints that a test plays, on a network that loses nothing.

use std::{net::SocketAddr, time::Instant};

use bytes::BytesMut;

use crate::{
    quic::{Endpoint, Received, Transmit},
    spn::hub::{Hub, Notice},
};

/// An endpoint that is played: a QUIC endpoint at an address.
pub(crate) trait Hand {
    fn address(&self) -> SocketAddr;
    fn quic(&mut self) -> &mut Endpoint;
    /// Takes what QUIC has to tell.
    fn take_events(&mut self);
}

/// Lets all datagrams through between a hub at `address` and its endpoints, and says how many there were.
pub(crate) fn settle<H: Hand>(
    now: Instant,
    address: SocketAddr,
    hub: &mut Hub,
    hands: &mut [H],
    mut notice: impl FnMut(Notice),
) -> usize {
    let (mut buffer, mut datagrams) = (Vec::new(), 0);
    loop {
        let mut sent = false;
        while let Some(transmit) = hub.poll_transmit(now, &mut buffer) {
            sent = true;
            if let Some(hand) = hands.iter_mut().find(|hand| hand.address() == transmit.destination) {
                for data in split(&buffer, &transmit) {
                    datagrams += 1;
                    hand.quic().handle_datagram(now, received(address, data));
                }
            }
        }
        while let Some(told) = hub.poll_notice() {
            notice(told);
        }
        for hand in &mut *hands {
            hand.take_events();
            let from = hand.address();
            while let Some(transmit) = hand.quic().poll_transmit(now, &mut buffer) {
                sent = true;
                for data in split(&buffer, &transmit) {
                    datagrams += 1;
                    hub.handle_datagram(now, received(from, data));
                }
            }
        }
        if !sent {
            return datagrams;
        }
    }
}

/// Moves the time to the next deadline of any of them, if there is one until `end`, and fires what is due. Says whether there was one.
pub(crate) fn fire<H: Hand>(now: &mut Instant, end: Instant, hub: &mut Hub, hands: &mut [H]) -> bool {
    let dues = hands.iter_mut().filter_map(|hand| hand.quic().poll_timeout()).chain(hub.poll_timeout());
    let Some(due) = dues.min().filter(|due| *due <= end) else { return false };
    *now = (*now).max(due);
    hub.handle_timeout(*now);
    for hand in hands {
        hand.quic().handle_timeout(*now);
    }
    true
}

/// The datagrams of one send call.
pub(crate) fn split<'a>(buffer: &'a [u8], transmit: &Transmit) -> impl Iterator<Item = &'a [u8]> {
    buffer.chunks(transmit.segment_size.unwrap_or(buffer.len().max(1)))
}

/// A datagram, as it comes out of a socket.
pub(crate) fn received(remote: SocketAddr, data: &[u8]) -> Received {
    Received { remote, local_ip: None, ecn: None, data: BytesMut::from(data) }
}
