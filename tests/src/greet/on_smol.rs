//! The same connection on smol.

use std::{io, time::Instant};

use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use super::{
    binding::Connection,
    machine::{Config, Outcome},
};

/// Serves one client to its end.
pub async fn serve(mut tcp: TcpStream, config: Config) -> Outcome {
    let mut connection = Connection::new(Instant::now(), config);
    let mut buffer = [0; 1024];
    loop {
        if let Some(outcome) = connection.outcome() {
            return outcome;
        }
        let due = connection.poll_timeout();
        let moved = async { Some(turn(&mut connection, &mut tcp, &mut buffer).await) };
        let moved = futures_lite::future::or(moved, async {
            until(due).await;
            None
        });
        let (moved, now) = (moved.await, Instant::now());
        match moved {
            Some(Ok(())) => {}
            Some(Err(_)) => connection.handle_error(now),
            None => connection.handle_timeout(now),
        }
    }
}

/// Waits for the socket, and tells what it did.
async fn turn(connection: &mut Connection, tcp: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    if let Some(output) = connection.poll_output() {
        let len = tcp.write(output).await?;
        connection.handle_written(Instant::now(), len);
    } else if let Some(max) = connection.wants_input() {
        let most = max.min(buffer.len());
        match tcp.read(&mut buffer[..most]).await? {
            0 => connection.handle_eof(Instant::now()),
            len => connection.handle_input(Instant::now(), Bytes::copy_from_slice(&buffer[..len])),
        }
    }
    Ok(())
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => drop(smol::Timer::at(due).await),
        None => std::future::pending().await,
    }
}
