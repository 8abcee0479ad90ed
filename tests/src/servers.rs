//! TCP servers and clients with various behaviours, for tests of connections.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};
use socket2::SockRef;

use crate::programs::PATIENCE;

/// Serves every connection with `habit`, each in a thread.
pub fn serve(habit: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let habit = habit.clone();
            // Errors show at the other end.
            thread::spawn(move || drop(habit(tcp)));
        }
    });
    address
}

/// Sends everything back, and ends when the client has ended.
pub fn echo(tcp: TcpStream) -> io::Result<()> {
    io::copy(&mut &tcp, &mut &tcp)?;
    tcp.shutdown(Shutdown::Write)
}

/// Connects, with time limits for reads and writes.
#[must_use]
pub fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).expect("a connection");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    tcp.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    tcp
}

/// Closes with RST.
pub fn abort(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("linger");
}

/// `length` bytes that depend on `seed`.
pub struct Pattern {
    state: u64,
    left: u64,
}

impl Pattern {
    /// A source of bytes.
    #[must_use]
    pub fn new(seed: u64, length: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: length }
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (buffer.len() as u64).min(self.left) as usize;
        for chunk in buffer[..length].chunks_mut(8) {
            // xorshift64
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let bytes = self.state.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// SHA-256 of everything that comes, and how much it was.
pub fn digest(mut reader: impl Read) -> io::Result<(u64, Vec<u8>)> {
    let (mut sha, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((total, sha.finalize().to_vec())),
            length => {
                sha.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

/// Writes everything of a pattern.
pub fn send(tcp: &TcpStream, mut pattern: Pattern) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match pattern.read(&mut buffer)? {
            0 => return Ok(()),
            length => (&*tcp).write_all(&buffer[..length])?,
        }
    }
}

/// A name server that knows one name, and answers with a TTL of 0.
pub struct NameServer {
    /// The address of the server.
    pub address: SocketAddr,
    listed: Arc<Mutex<Vec<IpAddr>>>,
}

impl NameServer {
    /// Starts it. `name` has its dots.
    ///
    /// # Panics
    /// Without a socket.
    #[must_use]
    pub fn start(name: &str, addresses: &[IpAddr]) -> Self {
        Self::start_as(name, addresses, false)
    }

    /// The same, but it does not answer for any other name.
    ///
    /// # Panics
    /// Without a socket.
    #[must_use]
    pub fn start_silent(name: &str, addresses: &[IpAddr]) -> Self {
        Self::start_as(name, addresses, true)
    }

    fn start_as(name: &str, addresses: &[IpAddr], is_silent: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let address = socket.local_addr().expect("its address");
        let listed = Arc::new(Mutex::new(addresses.to_vec()));
        let mut known: Vec<u8> = Vec::new();
        for label in name.split('.') {
            known.push(label.len() as u8);
            known.extend(label.as_bytes());
        }
        known.push(0);
        let answers = listed.clone();
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if is_silent && !query[..length].get(12..).is_some_and(|question| question.starts_with(&known)) {
                    continue;
                }
                if let Some(reply) =
                    reply(&query[..length], &known, &answers.lock().unwrap_or_else(PoisonError::into_inner))
                {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, listed }
    }

    /// From now on, these are the addresses.
    pub fn list(&self, addresses: &[IpAddr]) {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }
}

/// RFC 1035 §4.1: a header of 12 bytes, then the question: labels, type, class; then an answer for each address.
fn reply(query: &[u8], known: &[u8], listed: &[IpAddr]) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let end = question.iter().position(|&byte| byte == 0)? + 5;
    let kind = *question.get(end - 3)?;
    let is_known = question.starts_with(known);
    let answers: Vec<Vec<u8>> = listed
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(address), 1) if is_known => Some(address.octets().to_vec()),
            (IpAddr::V6(address), 28) if is_known => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0]);
    reply.extend(&question[..end]);
    for data in answers {
        reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
        reply.extend(data);
    }
    Some(reply)
}

/// A network address translator in front of one UDP server: each client behind it has an outer port of its own, which can change.
pub struct Nat {
    /// The address for clients.
    pub address: SocketAddr,
    outers: Outers,
}

/// Outer ports by client.
type Outers = Arc<Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>>;

impl Nat {
    /// Starts it.
    ///
    /// # Panics
    /// Without sockets.
    #[must_use]
    pub fn start(server: SocketAddr) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), server)
    }

    /// The same, with the address that clients are to send to.
    ///
    /// # Panics
    /// Without sockets, or when the address is taken.
    #[must_use]
    pub fn start_at(address: SocketAddr, server: SocketAddr) -> Self {
        let inner = Arc::new(UdpSocket::bind(address).expect("a UDP socket"));
        let nat = Self { address: inner.local_addr().expect("its address"), outers: Arc::default() };
        let outers = nat.outers.clone();
        thread::spawn(move || {
            let mut datagram = [0; 65536];
            while let Ok((length, client)) = inner.recv_from(&mut datagram) {
                let outer = {
                    let mut outers = outers.lock().unwrap_or_else(PoisonError::into_inner);
                    let outer = outers.entry(client).or_insert_with(|| {
                        let outer = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a UDP socket"));
                        carry_back(client, &outer, &inner, server);
                        outer
                    });
                    outer.clone()
                };
                let _ = outer.send_to(&datagram[..length], server);
            }
        });
        nat
    }

    /// Gives each client another outer port with its next datagram; what is sent to the old one is lost.
    pub fn change(&self) {
        self.outers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Carries what comes to a client's outer port back to it, until it gets another one.
fn carry_back(client: SocketAddr, outer: &Arc<UdpSocket>, inner: &Arc<UdpSocket>, server: SocketAddr) {
    let (outer, inner) = (Arc::downgrade(outer), inner.clone());
    thread::spawn(move || {
        let mut datagram = [0; 65536];
        while let Some(outer) = outer.upgrade() {
            let _ = outer.set_read_timeout(Some(Duration::from_millis(200)));
            let Ok((length, from)) = outer.recv_from(&mut datagram) else { continue };
            // An outer port is closed with its last sender.
            if from == server && Arc::strong_count(&outer) > 1 {
                let _ = inner.send_to(&datagram[..length], client);
            }
        }
    });
}
