//! What messages and values begin with: all of them but the values inside (docs/protocols/pipe.md, Messages; docs/protocols/pipe.md, Values).

use std::ops::Range;

use uuid::Uuid;

use super::{Input, Primitives, Stop, Width, fault};
use crate::pipe::wire::{
    codec::{Fault, Limits},
    message::{Loss, MAX_PAYLOAD, PipeId},
};

/// What a message begins with (MSG-1).
pub(super) mod kind {
    pub(crate) const OPEN: i8 = b'('.cast_signed();
    pub(crate) const CLOSE: i8 = b')'.cast_signed();
    pub(crate) const BLOCK: i8 = b'#'.cast_signed();
    pub(crate) const CONTROL: i8 = b'*'.cast_signed();
}

/// How a Close goes on (MSG-3).
pub(super) mod marker {
    pub(crate) const SUCCESS: i8 = 1;
    pub(crate) const FAILURE: i8 = 2;
}

/// The status of a Block that is the last one (MSG-4).
pub(super) const EOF: i8 = -128;

/// What a value begins with (VAL-1).
pub(super) mod tag {
    pub(crate) const NULL: i8 = 0;
    pub(crate) const TRUE: i8 = 1;
    pub(crate) const FALSE: i8 = 2;
    pub(crate) const INT8: i8 = 3;
    pub(crate) const INT16: i8 = 4;
    pub(crate) const INT32: i8 = 5;
    pub(crate) const INT64: i8 = 6;
    pub(crate) const FLOAT32: i8 = 7;
    pub(crate) const FLOAT64: i8 = 8;
    pub(crate) const BINARY: i8 = 10;
    pub(crate) const STRING: i8 = 11;
    pub(crate) const UUID: i8 = 12;
    pub(crate) const LIST: i8 = 32;
    pub(crate) const MAP: i8 = 33;
    pub(crate) const STRUCT: i8 = 34;
}

/// A message but for its values; ranges say where its bytes are.
pub(super) enum Head {
    /// As many values follow as there are parameters.
    Open {
        pipe: PipeId,
        priority: i8,
        function: u16,
        params: u16,
    },
    /// One value follows.
    Success {
        pipe: PipeId,
    },
    Failure {
        pipe: PipeId,
        code: i32,
        message: Range<usize>,
    },
    Data {
        pipe: PipeId,
        loss: Loss,
        payload: Range<usize>,
    },
    Eof {
        pipe: PipeId,
    },
    Control {
        code: i8,
        data: Range<usize>,
    },
}

impl Head {
    /// How many values follow.
    pub(super) fn values(&self) -> u32 {
        match self {
            Self::Open { params, .. } => (*params).into(),
            Self::Success { .. } => 1,
            Self::Failure { .. } | Self::Data { .. } | Self::Eof { .. } | Self::Control { .. } => 0,
        }
    }
}

/// A value but for the values inside; ranges say where its bytes are.
pub(super) enum Item {
    Null,
    Bool(bool),
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    Float32(f32),
    Float64(f64),
    Binary(Range<usize>),
    String(Range<usize>),
    Uuid(Uuid),
    List { entries: u16 },
    Map { entries: u16 },
    Struct { schema: Range<usize>, fields: u8 },
}

impl Item {
    /// How many values are inside; `None` for what cannot have any.
    pub(super) fn inside(&self) -> Option<u32> {
        match self {
            Self::List { entries } => Some((*entries).into()),
            Self::Map { entries } => Some(2 * u32::from(*entries)),
            Self::Struct { fields, .. } => Some((*fields).into()),
            Self::Null | Self::Bool(_) | Self::Int8(_) | Self::Int16(_) | Self::Int32(_) | Self::Int64(_) => None,
            Self::Float32(_) | Self::Float64(_) | Self::Binary(_) | Self::String(_) | Self::Uuid(_) => None,
        }
    }
}

pub(super) fn head<P: Primitives>(input: &mut Input<'_>, limits: &Limits) -> Result<Head, Stop> {
    let at = input.offset();
    match int8::<P>(input)? {
        kind::OPEN => {
            let pipe = pipe::<P>(input)?;
            let priority = int8::<P>(input)?;
            Ok(Head::Open { pipe, priority, function: uint16::<P>(input)?, params: uint16::<P>(input)? })
        }
        kind::CLOSE => {
            let (pipe, at) = (pipe::<P>(input)?, input.offset());
            match int8::<P>(input)? {
                marker::SUCCESS => Ok(Head::Success { pipe }),
                marker::FAILURE => {
                    let code = int32::<P>(input)?;
                    Ok(Head::Failure { pipe, code, message: binary::<P>(input, limits)? })
                }
                other => Err(fault(at, Fault::UnknownMarker(other))),
            }
        }
        kind::BLOCK => {
            let pipe = pipe::<P>(input)?;
            match int8::<P>(input)? {
                EOF => Ok(Head::Eof { pipe }),
                status => {
                    // The top bit means nothing but in EOF.
                    let loss = Loss::new(status.cast_unsigned() & 0x7f).unwrap_or_default();
                    Ok(Head::Data { pipe, loss, payload: payload::<P>(input, limits)? })
                }
            }
        }
        kind::CONTROL => Ok(Head::Control { code: int8::<P>(input)?, data: binary::<P>(input, limits)? }),
        other => Err(fault(at, Fault::UnknownType(other))),
    }
}

pub(super) fn item<P: Primitives>(input: &mut Input<'_>, limits: &Limits) -> Result<Item, Stop> {
    let at = input.offset();
    Ok(match int8::<P>(input)? {
        tag::NULL => Item::Null,
        tag::TRUE => Item::Bool(true),
        tag::FALSE => Item::Bool(false),
        tag::INT8 => Item::Int8(int8::<P>(input)?),
        tag::INT16 => Item::Int16(int16::<P>(input)?),
        tag::INT32 => Item::Int32(int32::<P>(input)?),
        tag::INT64 => Item::Int64(P::int(input, Width::W64)?),
        tag::FLOAT32 => Item::Float32(P::f32(input)?),
        tag::FLOAT64 => Item::Float64(P::f64(input)?),
        tag::BINARY => Item::Binary(binary::<P>(input, limits)?),
        tag::STRING => Item::String(binary::<P>(input, limits)?),
        tag::UUID => {
            let (high, low) = (P::int(input, Width::W64)?, P::int(input, Width::W64)?);
            Item::Uuid(Uuid::from_u64_pair(high.cast_unsigned(), low.cast_unsigned()))
        }
        tag::LIST => Item::List { entries: uint16::<P>(input)? },
        tag::MAP => Item::Map { entries: uint16::<P>(input)? },
        tag::STRUCT => {
            let schema = binary::<P>(input, limits)?;
            Item::Struct { schema, fields: int8::<P>(input)?.cast_unsigned() }
        }
        other => return Err(fault(at, Fault::UnknownTag(other))),
    })
}

fn pipe<P: Primitives>(input: &mut Input<'_>) -> Result<PipeId, Stop> {
    let at = input.offset();
    PipeId::new(uint16::<P>(input)?).ok_or_else(|| fault(at, Fault::PipeZero))
}

fn payload<P: Primitives>(input: &mut Input<'_>, limits: &Limits) -> Result<Range<usize>, Stop> {
    bytes::<P>(input, limits, "bytes of a payload", MAX_PAYLOAD)
}

fn binary<P: Primitives>(input: &mut Input<'_>, limits: &Limits) -> Result<Range<usize>, Stop> {
    bytes::<P>(input, limits, "bytes of a binary", usize::MAX)
}

/// Passes over bytes. They are not waited for if they are over a limit (CAP-1).
fn bytes<P: Primitives>(
    input: &mut Input<'_>,
    limits: &Limits,
    what: &'static str,
    limit: usize,
) -> Result<Range<usize>, Stop> {
    let at = input.offset();
    let length = P::binary_head(input)?;
    let limit = limit.min(limits.message.saturating_sub(input.offset()));
    if length > limit {
        return Err(fault(at, Fault::TooLarge { what, declared: length as u64, limit: limit as u64 }));
    }
    input.skip(length)
}

// A codec reads an integer only if it fits in its width (`Primitives::int`): nothing is cut off below.

fn int8<P: Primitives>(input: &mut Input<'_>) -> Result<i8, Stop> {
    P::int(input, Width::W8).map(|value| value as i8)
}

fn int16<P: Primitives>(input: &mut Input<'_>) -> Result<i16, Stop> {
    P::int(input, Width::W16).map(|value| value as i16)
}

fn int32<P: Primitives>(input: &mut Input<'_>) -> Result<i32, Stop> {
    P::int(input, Width::W32).map(|value| value as i32)
}

/// Unsigned numbers are written as the signed ones with the same bits (ITM-3).
fn uint16<P: Primitives>(input: &mut Input<'_>) -> Result<u16, Stop> {
    int16::<P>(input).map(i16::cast_unsigned)
}
