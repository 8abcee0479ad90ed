//! The content of a connection: a function of its number, the direction and the offset, so that each end can check the received
//! bytes alone.

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to service.
    Up = 0,
    /// Service to client.
    Down = 1,
}

/// Where the content of one direction of one connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// That of a direction of a connection.
    #[must_use]
    pub fn new(number: u32, direction: Direction) -> Self {
        Self(mix((u64::from(number) << 1 | direction as u64).wrapping_add(0x5eed)))
    }

    /// The eight bytes from 8 × `index` on.
    fn word(self, index: u64) -> [u8; 8] {
        mix(self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }

    /// Writes what is at `offset` and behind it.
    pub fn fill(self, offset: u64, into: &mut [u8]) {
        let (mut index, skip) = (offset / 8, (offset % 8) as usize);
        let head = into.len().min((8 - skip) % 8);
        let (head, rest) = into.split_at_mut(head);
        if !head.is_empty() {
            head.copy_from_slice(&self.word(index)[skip..skip + head.len()]);
            index += 1;
        }
        for chunk in rest.chunks_mut(8) {
            chunk.copy_from_slice(&self.word(index)[..chunk.len()]);
            index += 1;
        }
    }

    /// Compares what has come with what is at `offset`; `wanted` is room to work in.
    ///
    /// # Errors
    /// Where it differs, and how.
    pub fn compare(self, offset: u64, came: &[u8], wanted: &mut Vec<u8>) -> Result<(), String> {
        wanted.resize(came.len(), 0);
        self.fill(offset, wanted);
        if *wanted == came {
            return Ok(());
        }
        let first = wanted.iter().zip(came).position(|(wanted, came)| wanted != came).unwrap_or_default();
        let at = offset + first as u64;
        let what = match self.found_at(at, &came[first..]) {
            Some(other) if other < at => format!("the bytes of {other} are repeated"),
            Some(other) => format!("{} bytes are missing", other - at),
            None => format!("{:02x?} in the place of {:02x?}", head(&came[first..]), head(&wanted[first..])),
        };
        Err(format!("offset {at}: {what}"))
    }

    /// The place, not far from `near`, to which bytes belong.
    fn found_at(self, near: u64, bytes: &[u8]) -> Option<u64> {
        const FAR: u64 = 4 << 20;
        let bytes = bytes.get(..16)?;
        let from = near.saturating_sub(FAR);
        let mut window = vec![0; 2 * FAR as usize];
        self.fill(from, &mut window);
        window.windows(bytes.len()).position(|found| found == bytes).map(|found| from + found as u64)
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(8)]
}

/// The finisher of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first bytes of each connection: its number, and what shows that it is one.
pub const HEADER: usize = 8;

/// Writes a header.
#[must_use]
pub fn header(number: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&number.to_le_bytes());
    header[4..].copy_from_slice(&check(number).to_le_bytes());
    header
}

/// Reads one.
#[must_use]
pub fn number(header: [u8; HEADER]) -> Option<u32> {
    let [a, b, c, d, e, f, g, h] = header;
    let number = u32::from_le_bytes([a, b, c, d]);
    (u32::from_le_bytes([e, f, g, h]) == check(number)).then_some(number)
}

fn check(number: u32) -> u32 {
    mix(u64::from(number) ^ 0x7041_6e65) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_content() {
        let content = Content::new(7, Direction::Down);
        let mut whole = vec![0; 1000];
        content.fill(3, &mut whole);
        for size in [1, 2, 7, 8, 9, 64] {
            let mut pieces = vec![0; 1000];
            for (nth, piece) in pieces.chunks_mut(size).enumerate() {
                content.fill(3 + (nth * size) as u64, piece);
            }
            assert_eq!(pieces, whole, "pieces of {size}");
        }
        let mut other = vec![0; 1000];
        Content::new(7, Direction::Up).fill(3, &mut other);
        assert_ne!(other, whole);
    }

    #[test]
    fn a_fault_is_named() {
        let content = Content::new(7, Direction::Up);
        let mut whole = vec![0; 10_000];
        content.fill(0, &mut whole);
        let fault = |offset, came: &[u8]| content.compare(offset, came, &mut Vec::new()).unwrap_err();
        assert_eq!(content.compare(5, &whole[5..900], &mut Vec::new()), Ok(()));
        assert_eq!(fault(100, &whole[90..500]), "offset 100: the bytes of 90 are repeated");
        assert_eq!(fault(100, &whole[5000..6000]), "offset 100: 4900 bytes are missing");
        let mut changed = whole[..300].to_vec();
        changed[200] ^= 1;
        assert!(fault(0, &changed).starts_with("offset 200: ["), "{}", fault(0, &changed));
        assert_eq!(number(header(9)), Some(9));
        assert_eq!(number([1; 8]), None);
    }
}
