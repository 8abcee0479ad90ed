//! The body of a fuzz target: any bytes are a life of the connection.

use std::time::Duration;

use bytes::Bytes;
use towline_core::testing::first_instant;

use super::{
    binding::Connection,
    machine::{Config, Outcome},
};

/// Lives a life. The first byte of each step says what happens, the second how much of it.
///
/// # Panics
/// When an invariant is broken.
pub fn connection(data: &[u8]) {
    let config = Config::default();
    let (mut now, mut sent, mut written) = (first_instant(), Vec::new(), Vec::new());
    let mut connection = Connection::new(now, config.clone());
    for step in data.chunks(2) {
        let (what, much) = (step[0] % 4, usize::from(step.get(1).copied().unwrap_or(0)));
        match (what, connection.wants_input(), connection.poll_output()) {
            (0, Some(max), _) => {
                // A byte that is often an LF.
                let byte = if much.is_multiple_of(7) { b'\n' } else { much as u8 };
                let bytes = vec![byte; max.min(much + 1)];
                sent.extend_from_slice(&bytes);
                connection.handle_input(now, Bytes::from(bytes));
            }
            (1, _, Some(output)) => {
                let len = output.len().min(much + 1);
                written.extend_from_slice(&output[..len]);
                connection.handle_written(now, len);
            }
            (2, _, _) => {
                now += Duration::from_millis(much as u64 * 100);
                connection.handle_timeout(now);
            }
            (3, Some(_), _) if much == 0 => connection.handle_eof(now),
            (3, _, _) if much == 1 => connection.handle_error(now),
            _ => {}
        }
        assert!(connection.outcome().is_some() || connection.poll_timeout().is_some(), "it waits without a deadline");
        assert!(sent.len() <= config.name_max + 1, "it reads more than a name");
    }
    let greeting = [b"hello ", sent.split(|&byte| byte == b'\n').next().unwrap_or_default(), b"\n"].concat();
    assert!(greeting.starts_with(&written), "it says what it was not asked");
    assert!(connection.outcome() != Some(Outcome::Greeted) || written == greeting, "half a greeting is none");
}
