//! Messages of Pipe RPC (docs/protocols/pipe.md, Framing, Messages, Values).

use bytes::{Bytes, BytesMut};

use crate::pipe::{
    codec::{Codec, Composed, DecodeError, Primitives, Receiver},
    json,
    message::Message,
    msgpack, simple,
};

/// Any bytes on a connection with MessagePackCodec.
pub(super) fn msgpack(data: &[u8]) {
    run::<msgpack::Items>(data);
}

/// Any bytes on a connection with SimpleCodec.
pub(super) fn simple(data: &[u8]) {
    run::<simple::Items>(data);
}

fn run<P: Primitives>(data: &[u8]) {
    let whole = read::<P>(std::iter::once(data));
    assert_eq!(read::<P>(data.chunks(1)), whole, "any segmentation gives the same");
    for message in whole.0 {
        let mut bytes = BytesMut::new();
        if Composed::<P>::default().encode(&message, &mut bytes).is_err() {
            // What is not UTF-8 takes three bytes for each of its own when it is written again (VAL-4).
            assert!(data.len() > 20_000, "what was read can be written: {message:?}");
            continue;
        }
        assert_eq!(read::<P>(std::iter::once(&*bytes)), (vec![message.clone()], None), "and read again");
        let line = json::to_line(&message);
        assert_eq!(json::from_line(&line).ok(), Some(message), "and so can its line: {line}");
    }
}

fn read<'a, P: Primitives>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<DecodeError>) {
    let (mut receiver, mut messages) = (Receiver::new(Composed::<P>::default()), Vec::new());
    for piece in pieces {
        receiver.push(Bytes::copy_from_slice(piece));
        loop {
            match receiver.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
