//! The head of a request: `server SP file SP CR LF CR LF` (docs/protocols/txn.md, Wire rules).

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The longest name, in bytes (rule W2).
pub const NAME_MAX: usize = 1024;

const TERMINATOR: &[u8] = b"\r\n\r\n";

/// The longest head in which the space before the terminator has room (rule W2).
const HEAD_MAX: usize = 2050;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The server that owns the file; bytes, compared as bytes (W6).
    pub server: Bytes,
    /// The file.
    pub file: Bytes,
    /// The client has left out the space before the terminator, which means nothing.
    pub is_bare: bool,
}

impl Request {
    /// The head that the origin gets (O2). It is made of the two names and of nothing else: what the cache keeps under a server and a file
    /// is the answer to exactly that question, however the client has put it.
    #[must_use]
    pub fn head(&self) -> Bytes {
        // With its space the longest head would be none any more.
        self.written(self.server.len() + self.file.len() + 2 + TERMINATOR.len() > HEAD_MAX)
    }

    /// The same, but without the space before the terminator if the client has left it out: as the original does.
    #[must_use]
    pub fn head_as_spaced(&self) -> Bytes {
        if self.is_bare { self.written(true) } else { self.head() }
    }

    fn written(&self, is_bare: bool) -> Bytes {
        let mut head = BytesMut::with_capacity(self.server.len() + self.file.len() + 2 + TERMINATOR.len());
        head.put_slice(&self.server);
        head.put_u8(b' ');
        head.put_slice(&self.file);
        head.put_slice(if is_bare { b"" } else { b" " });
        head.put_slice(TERMINATOR);
        head.freeze()
    }
}

/// Why a head is none (W2 to W4, D2, D3, D8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// No terminator within the longest head.
    #[error("no CR LF CR LF within the longest head")]
    TooLong,
    /// Fewer than two names.
    #[error("expected a server and a file before CR LF CR LF")]
    TooFewNames,
    /// More than two names, where that is not allowed.
    #[error("expected a server and a file, and nothing else, before CR LF CR LF")]
    TooManyNames,
    /// A name of more than [`NAME_MAX`] bytes.
    #[error("a name is longer than {NAME_MAX} bytes")]
    LongName,
    /// A byte below 0x20, or 0x7F, in a name.
    #[error("a name holds a control byte")]
    ControlByte,
}

/// What a piece of a head amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// There is more to come: at most this many bytes.
    More(usize),
    /// The head is complete.
    Complete {
        /// What it asks for.
        request: Request,
        /// Bytes that came behind it, and mean nothing (W5).
        surplus: usize,
    },
}

/// Gathers a head from pieces of any size; no byte is looked at twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadReader {
    max: usize,
    is_strict: bool,
    held: BytesMut,
    /// How many bytes of the terminator have been seen in a row.
    matched: usize,
}

impl HeadReader {
    /// A reader of heads of at most `max` bytes. A strict one takes no third name.
    #[must_use]
    pub fn new(max: usize, is_strict: bool) -> Self {
        Self { max, is_strict, held: BytesMut::new(), matched: 0 }
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// When no head can come of it any more.
    pub fn push(&mut self, piece: Bytes) -> Result<Progress, Malformed> {
        let room = self.max.saturating_sub(self.held.len());
        let Some(end) = piece.iter().take(room).position(|&byte| self.is_last(byte)).map(|last| last + 1) else {
            if piece.len() >= room {
                return Err(Malformed::TooLong);
            }
            self.held.extend_from_slice(&piece);
            return Ok(Progress::More(room - piece.len()));
        };
        let surplus = piece.len() - end;
        // Most heads come in one piece, and stay where they are.
        let head = if self.held.is_empty() {
            piece.slice(..end)
        } else {
            self.held.extend_from_slice(&piece[..end]);
            self.held.split().freeze()
        };
        parse(head, self.is_strict).map(|request| Progress::Complete { request, surplus })
    }

    /// Whether this byte is the last one of a terminator.
    fn is_last(&mut self, byte: u8) -> bool {
        self.matched = match (self.matched, byte) {
            (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
            (_, b'\r') => 1,
            _ => 0,
        };
        self.matched == TERMINATOR.len()
    }
}

/// Takes a head apart, its terminator included.
///
/// # Errors
/// When it is malformed.
pub fn parse(head: Bytes, is_strict: bool) -> Result<Request, Malformed> {
    let names = head.strip_suffix(TERMINATOR).ok_or(Malformed::TooLong)?;
    if names.iter().any(|byte| byte.is_ascii_control()) {
        return Err(Malformed::ControlByte);
    }
    let mut tokens = names.split(|&byte| byte == b' ').filter(|token| !token.is_empty());
    let (Some(server), Some(file)) = (tokens.next(), tokens.next()) else { return Err(Malformed::TooFewNames) };
    if is_strict && tokens.next().is_some() {
        return Err(Malformed::TooManyNames);
    }
    if server.len() > NAME_MAX || file.len() > NAME_MAX {
        return Err(Malformed::LongName);
    }
    let (server, file) = (head.slice_ref(server), head.slice_ref(file));
    Ok(Request { server, file, is_bare: names.last() != Some(&b' ') })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::txn::transaction::KeyMode;

    const MAX: usize = HEAD_MAX;

    fn read(head: &[u8], is_strict: bool) -> Result<(Vec<u8>, Vec<u8>, usize), Malformed> {
        match HeadReader::new(MAX, is_strict).push(Bytes::copy_from_slice(head))? {
            Progress::Complete { request, surplus } => Ok((request.server.to_vec(), request.file.to_vec(), surplus)),
            Progress::More(_) => panic!("{head:?} is not complete"),
        }
    }

    fn names(server: &str, file: &str, surplus: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Malformed> {
        Ok((server.into(), file.into(), surplus))
    }

    #[test]
    fn heads() {
        let long = "x".repeat(NAME_MAX);
        for (head, lenient, strict) in [
            ("s f \r\n\r\n", names("s", "f", 0), names("s", "f", 0)),
            ("s f\r\n\r\n", names("s", "f", 0), names("s", "f", 0)), // D2
            ("  s   f  \r\n\r\n", names("s", "f", 0), names("s", "f", 0)),
            ("s f g\r\n\r\n", names("s", "f", 0), Err(Malformed::TooManyNames)),
            ("s f\r\n\r\ns g\r\n\r\n", names("s", "f", 7), names("s", "f", 7)), // W5
            ("\r\n\r\n", Err(Malformed::TooFewNames), Err(Malformed::TooFewNames)),
            ("s \r\n\r\n", Err(Malformed::TooFewNames), Err(Malformed::TooFewNames)),
            ("s f\0 \r\n\r\n", Err(Malformed::ControlByte), Err(Malformed::ControlByte)), // D8
            ("s\tf\r\n\r\n", Err(Malformed::ControlByte), Err(Malformed::ControlByte)),
            ("s f\r\r\n\r\n", Err(Malformed::ControlByte), Err(Malformed::ControlByte)),
            ("s f\r\n\r\r\n\r\n", Err(Malformed::ControlByte), Err(Malformed::ControlByte)),
            (&format!("s {long}\r\n\r\n"), names("s", &long, 0), names("s", &long, 0)),
            (&format!("s {long}x\r\n\r\n"), Err(Malformed::LongName), Err(Malformed::LongName)), // D3
            (&format!("{long}x f\r\n\r\n"), Err(Malformed::LongName), Err(Malformed::LongName)),
        ] {
            assert_eq!(read(head.as_bytes(), false), lenient, "{head:?}");
            assert_eq!(read(head.as_bytes(), true), strict, "{head:?}");
        }
    }

    #[test]
    fn a_head_ends_within_its_bound_or_is_none() {
        let fits = format!("{} {}\r\n\r\n", "s".repeat(1021), "f".repeat(1024));
        assert_eq!(fits.len(), MAX);
        assert!(read(fits.as_bytes(), false).is_ok());
        let over = format!("{} {}\r\n\r\n", "s".repeat(1022), "f".repeat(1024));
        assert_eq!(read(over.as_bytes(), false), Err(Malformed::TooLong));
        let mut reader = HeadReader::new(4, false);
        assert_eq!(reader.push(Bytes::from_static(b"abc")), Ok(Progress::More(1)));
        assert_eq!(reader.push(Bytes::from_static(b"d")), Err(Malformed::TooLong));
        assert_eq!(HeadReader::new(10, false).push(Bytes::from_static(b"s f\n\n")), Ok(Progress::More(5)));
    }

    proptest! {
        /// Rule D1: any segmentation of the same bytes is the same head, or the same fault.
        #[test]
        fn pieces_do_not_matter(
            head in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..70, 0..8),
            is_strict: bool,
        ) {
            let head = [&head[..], b"s f\r\n\r\nrest"].concat();
            let whole = HeadReader::new(MAX, is_strict).push(Bytes::copy_from_slice(&head));
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < head.len()).collect();
            cuts.sort_unstable();
            cuts.push(head.len());
            let (mut reader, mut from) = (HeadReader::new(MAX, is_strict), 0);
            let mut last = None;
            for cut in cuts {
                let progress = reader.push(Bytes::copy_from_slice(&head[from..cut]));
                from = cut;
                let is_over = !matches!(progress, Ok(Progress::More(_)));
                last = Some(progress);
                if is_over {
                    break;
                }
            }
            match (whole, last.unwrap()) {
                (Ok(Progress::Complete { request, surplus }), Ok(Progress::Complete { request: again, surplus: part })) => {
                    prop_assert_eq!(request, again);
                    prop_assert_eq!(surplus, part + head.len() - from);
                }
                (whole, last) => prop_assert_eq!(whole, last),
            }
        }

        /// Whatever a head looks like, the origin is asked for what the key says, and for nothing else.
        #[test]
        fn the_origin_is_asked_for_what_the_key_says(
            words in proptest::collection::vec("[a-c:0-9]{0,3}", 0..5),
            spaces in proptest::collection::vec(0usize..3, 6),
            others in proptest::collection::vec("[a-c:0-9 ]{0,8}", 8),
            is_strict: bool,
        ) {
            let mut head = String::new();
            for (nth, space) in spaces.iter().enumerate() {
                head += &" ".repeat(*space);
                head += words.get(nth).map_or("", String::as_str);
            }
            let read = |head: &str, is_strict| parse(Bytes::from(format!("{head}\r\n\r\n")), is_strict).ok();
            let Some(request) = read(&head, is_strict) else { return Ok(()) };
            let key = KeyMode::ServerAndFile.key(&request);
            let forwarded = request.head();
            let again = parse(forwarded.clone(), true).expect("what is forwarded is a head, and a strict one");
            prop_assert_eq!((&again.server, &again.file), (&request.server, &request.file));
            prop_assert_eq!(&KeyMode::ServerAndFile.key(&again), &key);
            prop_assert_eq!(KeyMode::File.key(&again), KeyMode::File.key(&request));
            prop_assert_eq!(&again.head(), &forwarded);
            // Requests with the same key are forwarded in the same bytes, and no others are.
            let names = format!("{} {}", words.first().map_or("", String::as_str), words.get(1).map_or("", String::as_str));
            for other in others.iter().chain([&names]).filter_map(|head| read(head, false)) {
                prop_assert_eq!(KeyMode::ServerAndFile.key(&other) == key, other.head() == forwarded);
            }
            // The original's form differs by the one space that means nothing.
            let spaced = parse(request.head_as_spaced(), true).expect("a head");
            prop_assert_eq!((spaced.server, spaced.file, spaced.is_bare), (request.server, request.file, request.is_bare));
        }
    }

    #[test]
    fn a_head_is_forwarded_as_its_names_say() {
        for head in ["s f", "s f ", " s f", "s  f", "  s   f  ", "s f evil", "s f  evil more ", "  s f evil"] {
            let request = parse(Bytes::from(format!("{head}\r\n\r\n")), false).unwrap();
            assert_eq!(request.head(), &b"s f \r\n\r\n"[..], "{head:?}");
            let spaced = if head.ends_with(' ') { &b"s f \r\n\r\n"[..] } else { b"s f\r\n\r\n" };
            assert_eq!(request.head_as_spaced(), spaced, "{head:?}");
        }
        // The longest names leave no room for the space.
        let longest = Bytes::from(format!("{} {}\r\n\r\n", "s".repeat(1021), "f".repeat(1024)));
        assert_eq!(parse(longest.clone(), false).unwrap().head(), longest);
        let shorter = Bytes::from(format!("{} {}\r\n\r\n", "s".repeat(1020), "f".repeat(1024)));
        assert_eq!(parse(shorter, false).unwrap().head().len(), MAX);
    }
}
