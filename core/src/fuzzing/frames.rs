//! Control frames of SPN (docs/protocols/spn.md, Control stream, CTL-10).

use crate::spn::wire::frame::{Decoder, Frame};

/// Any bytes on a control stream.
pub(super) fn run(data: &[u8]) {
    let whole = decode(std::iter::once(data));
    assert_eq!(decode(data.chunks(1)), whole, "any segmentation gives the same");
    for frame in whole.0 {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let (again, fault) = decode(std::iter::once(&bytes[..]));
        assert_eq!((again, fault), (vec![frame], None), "what was read is written, and read again");
    }
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<String>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault.to_string())),
            }
        }
    }
    (frames, None)
}
