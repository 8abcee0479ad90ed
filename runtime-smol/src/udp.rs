//! UDP sockets in batches: `recvmmsg` with GRO in, GSO out.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    task::{Context, Poll, ready},
};

use async_io::Async;
use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use towline_core::quic::{EcnCodepoint, Received, Transmit};

/// What we ask the kernel for, in bytes: its default holds under a hundred packets and drops the rest under load.
const SOCKET_BUFFER: usize = 4 << 20;
/// One receive buffer: as much as GRO ever puts together.
const RECEIVE_BUFFER: usize = 1 << 16;
/// A batch of datagrams larger than this is handed on as it is, and a fresh buffer takes its place. Smaller ones are copied as a whole: no
/// fresh buffer has to be cleared for them, and what is kept of them pins no more than came.
const SPLIT_ABOVE: usize = RECEIVE_BUFFER / 2;

/// A UDP socket that belongs to a reactor.
pub(crate) struct Udp {
    socket: Async<UdpSocket>,
    /// There may be something to receive: until a try has found nothing.
    is_readable: bool,
    state: UdpSocketState,
    is_v6: bool,
    buffers: Vec<BytesMut>,
    metas: Vec<RecvMeta>,
}

impl Udp {
    /// Binds to `address`; an IPv6 wildcard takes IPv4 as well.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
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
            socket: Async::new_nonblocking(socket.into())?,
            is_readable: true,
            state,
            is_v6: address.is_ipv6(),
            buffers: (0..BATCH_SIZE).map(|_| BytesMut::zeroed(RECEIVE_BUFFER)).collect(),
            metas: vec![RecvMeta::default(); BATCH_SIZE],
        })
    }

    /// Any free port, IPv6 and IPv4 alike where the machine has both.
    pub(crate) fn bind_any() -> io::Result<Self> {
        Self::bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| Self::bind(([0, 0, 0, 0], 0).into()))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Segments that one send may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receives one batch, when there is one, and says whether there was.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: impl FnMut(Received),
    ) -> Poll<io::Result<()>> {
        let count = loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            let (socket, state) = (self.socket.get_ref(), &self.state);
            let mut slices: Vec<IoSliceMut<'_>> =
                self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let metas = &mut self.metas;
            match state.recv(socket.into(), &mut slices, metas) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                // An ICMP error of an earlier send; the peer's silence will tell.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        };
        for (buffer, meta) in self.buffers.iter_mut().zip(&self.metas).take(count) {
            let mut data = if meta.len > SPLIT_ABOVE {
                let mut full = std::mem::replace(buffer, BytesMut::zeroed(RECEIVE_BUFFER));
                full.truncate(meta.len);
                full
            } else {
                BytesMut::from(&buffer[..meta.len])
            };
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            let (remote, local_ip) = (canonical(meta.addr), meta.dst_ip.map(|ip| ip.to_canonical()));
            while !data.is_empty() {
                let data = data.split_to(meta.stride.clamp(1, data.len()));
                sink(Received { remote, local_ip, ecn, data });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what a binding wants sent; `Pending` when the socket is full.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit, contents: &[u8]) -> Poll<io::Result<()>> {
        let transmit = quinn_udp::Transmit {
            destination: self.to_family(transmit.destination),
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip.map(|ip| if self.is_v6 { mapped(ip) } else { ip }),
        };
        loop {
            match self.state.send(self.socket.get_ref().into(), &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                done => return Poll::Ready(done),
            }
        }
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
