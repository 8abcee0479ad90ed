//! Heads of requests (docs/protocols/txn.md, Wire rules).

use arbitrary::Unstructured;
use bytes::Bytes;

use super::below;
use crate::txn::{
    request::{HeadReader, NAME_MAX, Progress, Request, parse},
    transaction::KeyMode,
};

const MAX: usize = 2050;

/// The first byte says whether the reader is strict, some more how the head is cut; the rest is the head.
pub(super) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let is_strict = data.arbitrary().unwrap_or(false);
    let cuts: [u8; 4] = data.arbitrary().unwrap_or_default();
    let head = Bytes::copy_from_slice(data.take_rest());

    let whole = read(&head, [head.len()], is_strict);
    let cut = cuts.iter().map(|&cut| below(&mut Unstructured::new(&[cut]), head.len() + 1));
    assert_eq!(read(&head, cut, is_strict), whole, "any segmentation gives the same (D1)");
    assert_eq!(read(&head, 0..head.len(), is_strict), whole, "byte by byte, too");

    let Ok(Some(request)) = whole else { return };
    for name in [&request.server, &request.file] {
        assert!((1..=NAME_MAX).contains(&name.len()), "W2");
        assert!(name.iter().all(|&byte| byte > b' ' && byte != 0x7f), "D8");
    }
    for forwarded in [request.head(), request.head_as_spaced()] {
        assert!(forwarded.len() <= MAX, "W2");
        let again = parse(forwarded.clone(), true).expect("what is forwarded is a head");
        assert_eq!((&again.server, &again.file), (&request.server, &request.file), "the origin reads what we read");
        for key in [KeyMode::File, KeyMode::ServerAndFile] {
            assert_eq!(key.key(&again), key.key(&request), "and what is kept is what was asked for (K1)");
        }
        assert_eq!(again.head(), request.head(), "by its names alone (O2)");
    }
}

/// What comes of a head, cut at these places in their order; `None`: it is not complete.
fn read(
    head: &Bytes,
    cuts: impl IntoIterator<Item = usize>,
    is_strict: bool,
) -> Result<Option<Request>, crate::txn::request::Malformed> {
    let mut cuts: Vec<usize> = cuts.into_iter().chain([head.len()]).collect();
    cuts.sort_unstable();
    let mut reader = HeadReader::new(MAX, is_strict);
    let mut from = 0;
    for to in cuts {
        let piece = head.slice(from..to);
        from = to;
        if piece.is_empty() {
            continue;
        }
        match reader.push(piece)? {
            Progress::Complete { request, .. } => return Ok(Some(request)),
            Progress::More(room) => assert!(room > 0, "a reader that wants nothing"),
        }
    }
    Ok(None)
}
