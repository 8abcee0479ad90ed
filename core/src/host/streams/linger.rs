//! The end in good order of a byte stream that the loop has left: a kernel does it for sockets.

use std::{
    future::{Future, poll_fn},
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::host::{
    byte_stream::ByteStream,
    runtime::{Alarm, Runtime},
};

/// How long the peer may take for its own end. Afterwards it sees a reset.
const LINGER: Duration = Duration::from_secs(60);
/// Most bytes of one read that are thrown away.
const READ: usize = 64 * 1024;

/// Ends the writing direction, and waits for the peer's end. At most `unread` bytes that still come are thrown away.
pub(super) fn end<R: Runtime>(
    mut stream: Box<dyn ByteStream>,
    unread: usize,
) -> impl Future<Output = ()> + Send + 'static {
    let due = R::now() + LINGER;
    async move {
        let (mut alarm, mut left, mut is_finished) = (R::Alarm::new(), unread, false);
        poll_fn(|cx| {
            if alarm.poll(cx, due) {
                return Poll::Ready(());
            }
            if !is_finished {
                is_finished = ready!(stream.poll_finish(cx)).is_ok();
            }
            if is_finished { poll_discard(&mut *stream, cx, &mut left) } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// Reads until the end, a failure, or more than is to be thrown away.
fn poll_discard(stream: &mut dyn ByteStream, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
    loop {
        match ready!(stream.poll_read(cx, READ)) {
            Ok(bytes) if !bytes.is_empty() && bytes.len() <= *left => *left -= bytes.len(),
            Ok(_) | Err(_) => return Poll::Ready(()),
        }
    }
}
