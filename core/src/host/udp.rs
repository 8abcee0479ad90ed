//! UDP sockets in batches: `recvmmsg` with GRO in, GSO out.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use super::{runtime::UdpSocket, tcp::local_addr};
use crate::quic::{Ecn, Received, Transmit};

/// What we ask the kernel for, in bytes: its default holds under a hundred packets and drops the rest under load.
const SOCKET_BUFFER: usize = 4 << 20;
/// One receive buffer: as much as GRO ever puts together.
const RECEIVE_BUFFER: usize = 1 << 16;

/// A UDP socket that belongs to a reactor.
pub(super) struct Udp<S> {
    socket: S,
    state: UdpSocketState,
    is_v6: bool,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
}

impl<S: UdpSocket> Udp<S> {
    /// Binds to `address`; an IPv6 wildcard takes IPv4 as well.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        for (name, granted) in [
            ("net.core.rmem_max", socket.set_recv_buffer_size(SOCKET_BUFFER).and_then(|()| socket.recv_buffer_size())?),
            ("net.core.wmem_max", socket.set_send_buffer_size(SOCKET_BUFFER).and_then(|()| socket.send_buffer_size())?),
        ] {
            if granted < SOCKET_BUFFER {
                tracing::warn!(
                    granted,
                    wanted = SOCKET_BUFFER,
                    "small UDP buffer: packets will be lost under load; raise it with `sysctl -w {name}={SOCKET_BUFFER}`"
                );
            }
        }
        let state = UdpSocketState::new((&socket).into())?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: S::new(socket.into())?,
            state,
            is_v6: address.is_ipv6(),
            buffers: (0..BATCH_SIZE).map(|_| vec![0; RECEIVE_BUFFER]).collect(),
            metas: vec![RecvMeta::default(); BATCH_SIZE],
        })
    }

    /// Any free port, IPv6 and IPv4 alike where the machine has both.
    pub(super) fn bind_any() -> io::Result<Self> {
        Self::bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| Self::bind(([0, 0, 0, 0], 0).into()))
    }

    /// Where it is bound.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.socket)
    }

    /// Segments that one send may carry.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receives one batch, when there is one, and says whether there was.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: impl FnMut(Received),
    ) -> Poll<io::Result<()>> {
        let count = loop {
            let (state, buffers, metas) = (&self.state, &mut self.buffers, &mut self.metas);
            let received = ready!(self.socket.poll_receive(cx, |socket| {
                let mut slices: Vec<IoSliceMut<'_>> =
                    buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
                state.recv((&socket).into(), &mut slices, metas)
            }));
            match received {
                Ok(count) => break count,
                // An ICMP error of an earlier send. A lost peer shows by its silence.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        };
        for (buffer, meta) in self.buffers.iter().zip(&self.metas).take(count) {
            let ecn = meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
            let (remote, local_ip) = (canonical(meta.addr), meta.dst_ip.map(|ip| ip.to_canonical()));
            // Each has memory of its own: what is kept of one, for a reader that is slow, must not keep the others. And the buffers, which
            // the processor has at hand, are used again and again.
            for data in buffer.get(..meta.len).unwrap_or(buffer).chunks(meta.stride.max(1)) {
                sink(Received { remote, local_ip, ecn, data: BytesMut::from(data) });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what a binding wants sent; `Pending` when the socket is full.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        contents: &[u8],
    ) -> Poll<io::Result<()>> {
        let transmit = quinn_udp::Transmit {
            destination: self.to_family(transmit.destination),
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn.bits())),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip.map(|ip| if self.is_v6 { mapped(ip) } else { ip }),
        };
        let state = &self.state;
        self.socket.poll_send(cx, |socket| state.send((&socket).into(), &transmit))
    }

    fn to_family(&self, address: SocketAddr) -> SocketAddr {
        if self.is_v6 { SocketAddr::new(mapped(address.ip()), address.port()) } else { address }
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
