//! TCP servers and clients with habits, for tests of what goes through.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
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
            // What goes wrong here is seen at the other end.
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

/// Connects, with patience for reads and writes.
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
