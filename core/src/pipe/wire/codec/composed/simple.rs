//! SimpleCodec: numbers as they are, and bytes behind their number (ITM-8).

use bytes::{BufMut, BytesMut};

use super::{Composed, Input, Primitives, Stop, Width};
use crate::pipe::wire::codec::EncodeError;

/// The codec whose items are numbers in big-endian order.
pub type Simple = Composed<Items>;

/// The items of SimpleCodec.
#[derive(Debug)]
pub enum Items {}

impl Primitives for Items {
    const NAME: &'static str = "Simple";

    fn put_int(out: &mut BytesMut, value: i64, width: Width) {
        out.put_int(value, usize::from(width.bits() / 8));
    }

    fn put_f32(out: &mut BytesMut, value: f32) {
        out.put_f32(value);
    }

    fn put_f64(out: &mut BytesMut, value: f64) {
        out.put_f64(value);
    }

    fn put_binary_head(out: &mut BytesMut, length: usize) -> Result<(), EncodeError> {
        let limit = usize::from(u16::MAX);
        let short = u16::try_from(length).map_err(|_| EncodeError::TooLarge {
            what: "bytes of a binary",
            found: length,
            limit,
        })?;
        out.put_u16(short);
        Ok(())
    }

    fn int(input: &mut Input<'_>, width: Width) -> Result<i64, Stop> {
        Ok(match width {
            Width::W8 => i8::from_be_bytes(input.take()?).into(),
            Width::W16 => i16::from_be_bytes(input.take()?).into(),
            Width::W32 => i32::from_be_bytes(input.take()?).into(),
            Width::W64 => i64::from_be_bytes(input.take()?),
        })
    }

    fn f32(input: &mut Input<'_>) -> Result<f32, Stop> {
        input.take().map(f32::from_be_bytes)
    }

    fn f64(input: &mut Input<'_>) -> Result<f64, Stop> {
        input.take().map(f64::from_be_bytes)
    }

    fn binary_head(input: &mut Input<'_>) -> Result<usize, Stop> {
        input.take().map(|length| u16::from_be_bytes(length).into())
    }
}
