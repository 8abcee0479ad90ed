//! MessagePackCodec: items of MessagePack, as a library of its early years wrote them (ITM-4 to ITM-7).
//!
//! The crate `rmp` writes integers and floats: its shortest forms are exactly those that are wanted. Heads of binary items are written here,
//! because `rmp` writes lengths from 32 to 255 in a later form (`d9`), which must not be written (ITM-6). All reading is done here: the readers
//! of `rmp` answer missing bytes with an I/O error, and cannot say how many bytes a message has at least.

use bytes::{BufMut, BytesMut};
use rmp::{Marker, encode};

use super::{Composed, Input, Primitives, Stop, Width, fault};
use crate::pipe::wire::codec::{EncodeError, Fault};

/// The codec whose items are MessagePack's.
pub type MsgPack = Composed<Items>;

/// The items of MessagePackCodec.
#[derive(Debug)]
pub enum Items {}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "all other items are refused alike, and MessagePack gets no new ones"
)]
impl Primitives for Items {
    const NAME: &'static str = "MsgPack";

    fn put_int(out: &mut BytesMut, value: i64, _width: Width) {
        // Here and below: a buffer that grows takes all that is written.
        let _ = encode::write_sint(&mut out.writer(), value);
    }

    fn put_f32(out: &mut BytesMut, value: f32) {
        let _ = encode::write_f32(&mut out.writer(), value);
    }

    fn put_f64(out: &mut BytesMut, value: f64) {
        let _ = encode::write_f64(&mut out.writer(), value);
    }

    fn put_binary_head(out: &mut BytesMut, length: usize) -> Result<(), EncodeError> {
        if let Ok(length @ 0..32) = u8::try_from(length) {
            out.put_u8(Marker::FixStr(length).to_u8());
        } else if let Ok(length) = u16::try_from(length) {
            out.put_u8(Marker::Str16.to_u8());
            out.put_u16(length);
        } else if let Ok(length) = u32::try_from(length) {
            out.put_u8(Marker::Str32.to_u8());
            out.put_u32(length);
        } else {
            return Err(EncodeError::TooLarge { what: "bytes of a binary", found: length, limit: u32::MAX as usize });
        }
        Ok(())
    }

    fn int(input: &mut Input<'_>, width: Width) -> Result<i64, Stop> {
        let (at, marker) = (input.offset(), marker(input)?);
        let value: i128 = match marker {
            Marker::FixPos(value) => value.into(),
            Marker::FixNeg(value) => value.into(),
            Marker::U8 => u8::from_be_bytes(input.take()?).into(),
            Marker::U16 => u16::from_be_bytes(input.take()?).into(),
            Marker::U32 => u32::from_be_bytes(input.take()?).into(),
            Marker::U64 => u64::from_be_bytes(input.take()?).into(),
            Marker::I8 => i8::from_be_bytes(input.take()?).into(),
            Marker::I16 => i16::from_be_bytes(input.take()?).into(),
            Marker::I32 => i32::from_be_bytes(input.take()?).into(),
            Marker::I64 => i64::from_be_bytes(input.take()?).into(),
            other => return Err(wrong(at, other, "an integer")),
        };
        let fitting = i64::try_from(value).ok().filter(|_| width.holds(value));
        fitting.ok_or_else(|| fault(at, Fault::OutOfRange { value, bits: width.bits() }))
    }

    fn f32(input: &mut Input<'_>) -> Result<f32, Stop> {
        let (at, marker) = (input.offset(), marker(input)?);
        match marker {
            Marker::F32 => input.take().map(f32::from_be_bytes),
            Marker::F64 => input.take().map(|bytes| f64::from_be_bytes(bytes) as f32),
            other => Err(wrong(at, other, "a float")),
        }
    }

    fn f64(input: &mut Input<'_>) -> Result<f64, Stop> {
        let (at, marker) = (input.offset(), marker(input)?);
        match marker {
            Marker::F64 => input.take().map(f64::from_be_bytes),
            Marker::F32 => input.take().map(|bytes| f32::from_be_bytes(bytes).into()),
            other => Err(wrong(at, other, "a float")),
        }
    }

    fn binary_head(input: &mut Input<'_>) -> Result<usize, Stop> {
        let (at, marker) = (input.offset(), marker(input)?);
        Ok(match marker {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 | Marker::Bin8 => u8::from_be_bytes(input.take()?).into(),
            Marker::Str16 | Marker::Bin16 => u16::from_be_bytes(input.take()?).into(),
            Marker::Str32 | Marker::Bin32 => usize::try_from(u32::from_be_bytes(input.take()?)).unwrap_or(usize::MAX),
            other => return Err(wrong(at, other, "bytes")),
        })
    }
}

fn marker(input: &mut Input<'_>) -> Result<Marker, Stop> {
    input.take().map(|[byte]| Marker::from_u8(byte))
}

fn wrong(at: usize, marker: Marker, expected: &'static str) -> Stop {
    fault(at, Fault::WrongItem { byte: marker.to_u8(), expected })
}
