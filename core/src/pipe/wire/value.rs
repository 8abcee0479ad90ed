//! Values: what parameters and results are made of (docs/protocols/pipe.md, Values).

use std::{
    borrow::Cow,
    cmp::Ordering,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use uuid::Uuid;

/// A value. Its type is on the wire with it: an `Int8` of 1 and an `Int64` of 1 are different values.
///
/// Floats are compared by their bits, so a value that was decoded equals the one that was encoded, and `Eq` and `Ord` hold for all of them.
#[derive(Debug, Clone, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// 8 bits, signed.
    Int8(i8),
    /// 16 bits, signed.
    Int16(i16),
    /// 32 bits, signed.
    Int32(i32),
    /// 64 bits, signed.
    Int64(i64),
    /// IEEE 754, 32 bits.
    Float32(f32),
    /// IEEE 754, 64 bits.
    Float64(f64),
    /// Bytes.
    Binary(Bytes),
    /// Text.
    String(String),
    /// A UUID.
    Uuid(Uuid),
    /// Values in order; at most [`MAX_ENTRIES`].
    List(Vec<Self>),
    /// Pairs of key and value, in the order of the wire; at most [`MAX_ENTRIES`]. What a peer sent has no key twice (VAL-5).
    Map(Vec<(Self, Self)>),
    /// Values that belong together under a name.
    Struct(Struct),
}

/// The most entries of a list or a map, and the most parameters of a call (VAL-3).
pub const MAX_ENTRIES: usize = 65_535;
/// The most fields of a struct (VAL-3).
pub const MAX_FIELDS: usize = 255;

/// Fields in order, and the text that says which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Struct {
    /// The name of the type by habit; any text, and never code (VAL-6).
    pub schema: Cow<'static, str>,
    /// At most [`MAX_FIELDS`].
    pub fields: Vec<Value>,
}

impl Value {
    /// What orders, compares and hashes before all else: the type.
    const fn tag(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int8(_) => 2,
            Self::Int16(_) => 3,
            Self::Int32(_) => 4,
            Self::Int64(_) => 5,
            Self::Float32(_) => 6,
            Self::Float64(_) => 7,
            Self::Binary(_) => 8,
            Self::String(_) => 9,
            Self::Uuid(_) => 10,
            Self::List(_) => 11,
            Self::Map(_) => 12,
            Self::Struct(_) => 13,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int8(a), Self::Int8(b)) => a.cmp(b),
            (Self::Int16(a), Self::Int16(b)) => a.cmp(b),
            (Self::Int32(a), Self::Int32(b)) => a.cmp(b),
            (Self::Int64(a), Self::Int64(b)) => a.cmp(b),
            (Self::Float32(a), Self::Float32(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Float64(a), Self::Float64(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Binary(a), Self::Binary(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            (Self::Struct(a), Self::Struct(b)) => a.cmp(b),
            (a, b) => a.tag().cmp(&b.tag()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tag().hash(state);
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Int8(value) => value.hash(state),
            Self::Int16(value) => value.hash(state),
            Self::Int32(value) => value.hash(state),
            Self::Int64(value) => value.hash(state),
            Self::Float32(value) => value.to_bits().hash(state),
            Self::Float64(value) => value.to_bits().hash(state),
            Self::Binary(value) => value.hash(state),
            Self::String(value) => value.hash(state),
            Self::Uuid(value) => value.hash(state),
            Self::List(values) => values.hash(state),
            Self::Map(pairs) => pairs.hash(state),
            Self::Struct(value) => value.hash(state),
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from! {
    bool => Bool, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64, f32 => Float32, f64 => Float64,
    Bytes => Binary, String => String, &str => String, Uuid => Uuid, Vec<Self> => List, Struct => Struct,
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Self::Null
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn floats_are_compared_by_their_bits() {
        let values = [0.0, -0.0, f64::NAN, -f64::NAN, 1.0, f64::INFINITY].map(Value::Float64);
        let hashers = BuildHasherDefault::<DefaultHasher>::default();
        for (nth, a) in values.iter().enumerate() {
            for (mth, b) in values.iter().enumerate() {
                assert_eq!(a == b, nth == mth, "{a:?} {b:?}");
                assert_eq!(hashers.hash_one(a) == hashers.hash_one(b), nth == mth);
            }
        }
        assert_eq!(Value::Float32(f32::NAN), Value::Float32(f32::NAN));
    }

    #[test]
    fn the_same_number_of_another_type_is_another_value() {
        let values = [Value::from(1i8), 1i16.into(), 1i32.into(), 1i64.into(), 1f32.into(), 1f64.into(), true.into()];
        for (nth, a) in values.iter().enumerate() {
            assert!(values.iter().enumerate().all(|(mth, b)| (a == b) == (nth == mth)));
        }
    }

    #[test]
    fn a_value_is_small() {
        // A hostile message costs its receiver at most so many bytes for each of its own (CAP-4).
        assert!(size_of::<Value>() <= 48, "{}", size_of::<Value>());
    }
}
