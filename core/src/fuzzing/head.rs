//! Heads of requests (docs/protocols/txn.md, Wire rules).

use arbitrary::Unstructured;
use bytes::Bytes;

use super::below;
use crate::txn::request::{HeadReader, NAME_MAX, Progress, Request, parse};

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

    let Ok(Some(Request { server, file, head: taken })) = whole else { return };
    assert!(head.starts_with(&taken) && taken.ends_with(b"\r\n\r\n") && taken.len() <= MAX, "as it came, and no more");
    for name in [&server, &file] {
        assert!((1..=NAME_MAX).contains(&name.len()), "W2");
        assert!(name.iter().all(|&byte| byte > b' ' && byte != 0x7f), "D8");
    }
    let again = parse(taken.clone(), is_strict).expect("what was forwarded is a head");
    assert_eq!(again, Request { server, file, head: taken }, "the origin reads what we read");
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
