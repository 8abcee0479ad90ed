//! Codecs that are made of a few kinds of items, as those of deployed peers are (docs/protocols/pipe.md, Items).
//!
//! The grammar of messages and values is here, once for all of them: [`grammar`] reads what an item begins with, [`scan`] finds the end of a
//! message, [`build`] makes a message, and [`write`] the bytes of one.

mod build;
mod grammar;
mod input;
pub mod msgpack;
mod scan;
pub mod simple;
mod write;

use std::{fmt, marker::PhantomData};

use bytes::{Bytes, BytesMut};

pub use input::{Input, Stop, fault};

use super::{Codec, DecodeError, EncodeError, Limits, Measure};
use crate::pipe::wire::message::Message;

/// Bits of an integer. All are signed (ITM-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant is its number of bits")]
pub enum Width {
    W8 = 8,
    W16 = 16,
    W32 = 32,
    W64 = 64,
}

impl Width {
    /// How many.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether `value` fits.
    #[must_use]
    pub const fn holds(self, value: i128) -> bool {
        let half = 1 << (self.bits() - 1);
        -half <= value && value < half
    }
}

/// The items that a wire has, and nothing else (ITM-1). Whoever has other ones gets a codec from [`Composed`].
///
/// Each item has at least one byte. What is written is read again.
pub trait Primitives {
    /// The codec's name, for those who debug.
    const NAME: &'static str;

    /// Appends an integer, which fits in its width.
    fn put_int(out: &mut BytesMut, value: i64, width: Width);
    /// Appends a number of 32 bits.
    fn put_f32(out: &mut BytesMut, value: f32);
    /// Appends a number of 64 bits.
    fn put_f64(out: &mut BytesMut, value: f64);
    /// Appends what stands before so many bytes.
    ///
    /// # Errors
    /// When there cannot be so many.
    fn put_binary_head(out: &mut BytesMut, length: usize) -> Result<(), EncodeError>;

    /// Reads an integer, which fits in its width.
    ///
    /// # Errors
    /// When it has not all come, or is something else.
    fn int(input: &mut Input<'_>, width: Width) -> Result<i64, Stop>;
    /// Reads a number of 32 bits.
    ///
    /// # Errors
    /// When it has not all come, or is something else.
    fn f32(input: &mut Input<'_>) -> Result<f32, Stop>;
    /// Reads a number of 64 bits.
    ///
    /// # Errors
    /// When it has not all come, or is something else.
    fn f64(input: &mut Input<'_>) -> Result<f64, Stop>;
    /// Reads what stands before bytes, and how many they are.
    ///
    /// # Errors
    /// When it has not all come, or is something else.
    fn binary_head(input: &mut Input<'_>) -> Result<usize, Stop>;
}

/// The codec that has those items.
pub struct Composed<P> {
    limits: Limits,
    scan: scan::Scan,
    primitives: PhantomData<fn() -> P>,
}

impl<P: Primitives> Composed<P> {
    /// A codec with those limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, scan: scan::Scan::default(), primitives: PhantomData }
    }
}

impl<P: Primitives> Default for Composed<P> {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl<P: Primitives> Codec for Composed<P> {
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        let written = write::Writer::<P>::new(out, &self.limits).message(message);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn measure(&mut self, bytes: &[u8]) -> Result<Measure, DecodeError> {
        self.scan.measure::<P>(bytes, &self.limits)
    }

    fn decode(&self, message: Bytes) -> Result<Message, DecodeError> {
        build::message::<P>(&message, &self.limits)
    }
}

impl<P: Primitives> fmt::Debug for Composed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(P::NAME).field("limits", &self.limits).finish_non_exhaustive()
    }
}
