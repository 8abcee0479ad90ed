//! Values as JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::Hex;
use crate::pipe::wire::{
    decimal,
    value::{Struct, Value},
};

/// The type of a value, `t`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Null,
    Bool,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Bin,
    Str,
    Uuid,
    List,
    Map,
    Struct,
}

/// A member of a value: which ones there are follows from its type.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    T,
    V,
    Bits,
    Hex,
    Schema,
}

#[derive(Serialize)]
struct Text(#[serde(with = "decimal")] i64);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Null => {
                map.serialize_entry("t", &Type::Null)?;
                map.end()
            }
            Self::Bool(value) => with(map, Type::Bool, "v", value),
            Self::Int8(value) => with(map, Type::I8, "v", value),
            Self::Int16(value) => with(map, Type::I16, "v", value),
            Self::Int32(value) => with(map, Type::I32, "v", value),
            Self::Int64(value) => with(map, Type::I64, "v", &Text(*value)),
            Self::Float32(value) => with(map, Type::F32, "bits", &format_args!("{:08x}", value.to_bits())),
            Self::Float64(value) => with(map, Type::F64, "bits", &format_args!("{:016x}", value.to_bits())),
            Self::Binary(value) => with(map, Type::Bin, "hex", &Hex(value.clone())),
            Self::String(value) => with(map, Type::Str, "v", value),
            Self::Uuid(value) => with(map, Type::Uuid, "v", value),
            Self::List(values) => with(map, Type::List, "v", values),
            Self::Map(pairs) => with(map, Type::Map, "v", pairs),
            Self::Struct(Struct { schema, fields }) => {
                map.serialize_entry("t", &Type::Struct)?;
                map.serialize_entry("schema", schema)?;
                map.serialize_entry("v", fields)?;
                map.end()
            }
        }
    }
}

/// A type, and the only other member.
fn with<M: SerializeMap>(mut map: M, t: Type, member: &str, value: &impl Serialize) -> Result<M::Ok, M::Error> {
    map.serialize_entry("t", &t)?;
    map.serialize_entry(member, value)?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Reads the members of a value in any order; without a copy of what is inside where `t` comes before `v`.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value: an object with its type `t`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut found, mut early, mut inner, mut bytes, mut schema) = (None, None, None, None, None);
        while let Some(member) = map.next_key::<Member>()? {
            let (name, is_first) = match (member, found) {
                (Member::T, _) => ("t", found.replace(map.next_value()?).is_none()),
                (Member::V, Some(found)) => {
                    ("v", early.is_none() && inner.replace(map.next_value_seed(Inner(found))?).is_none())
                }
                (Member::V, None) => ("v", early.replace(map.next_value::<serde_json::Value>()?).is_none()),
                (Member::Bits | Member::Hex, _) => {
                    ("hex", bytes.replace((member, map.next_value::<Hex>()?.0)).is_none())
                }
                (Member::Schema, _) => ("schema", schema.replace(map.next_value::<String>()?).is_none()),
            };
            if !is_first {
                return Err(A::Error::duplicate_field(name));
            }
        }
        let found: Type = found.ok_or_else(|| A::Error::missing_field("t"))?;
        if let Some(early) = early {
            inner = Some(Inner(found).deserialize(early).map_err(A::Error::custom)?);
        }
        Ok(match (found, inner, bytes, schema) {
            (Type::Null, None, None, None) => Value::Null,
            (Type::F32, None, Some((Member::Bits, bytes)), None) => {
                let bits = (*bytes).try_into().map_err(|_| A::Error::custom("expected 8 hex digits in `bits`"))?;
                Value::Float32(f32::from_be_bytes(bits))
            }
            (Type::F64, None, Some((Member::Bits, bytes)), None) => {
                let bits = (*bytes).try_into().map_err(|_| A::Error::custom("expected 16 hex digits in `bits`"))?;
                Value::Float64(f64::from_be_bytes(bits))
            }
            (Type::Bin, None, Some((Member::Hex, bytes)), None) => Value::Binary(bytes),
            (Type::Struct, Some(Value::List(fields)), None, Some(schema)) => {
                Struct { schema: schema.into(), fields }.into()
            }
            (Type::Null | Type::F32 | Type::F64 | Type::Bin | Type::Struct, ..) => return Err(members(found)),
            (_, Some(inner), None, None) => inner,
            _ => return Err(members(found)),
        })
    }
}

/// The members are not those that a value of that type has.
fn members<E: serde::de::Error>(found: Type) -> E {
    let expected = match found {
        Type::Null => "no other member",
        Type::F32 | Type::F64 => "`bits` and no other",
        Type::Bin => "`hex` and no other",
        Type::Struct => "`schema` and `v` and no other",
        Type::Bool | Type::I8 | Type::I16 | Type::I32 | Type::I64 => "`v` and no other",
        Type::Str | Type::Uuid | Type::List | Type::Map => "`v` and no other",
    };
    E::custom(format_args!("expected beside `t` {expected}"))
}

/// Reads the member `v` of a value of that type; a struct's is a list.
struct Inner(Type);

impl<'de> DeserializeSeed<'de> for Inner {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Ok(match self.0 {
            Type::Bool => Value::Bool(Deserialize::deserialize(deserializer)?),
            Type::I8 => Value::Int8(Deserialize::deserialize(deserializer)?),
            Type::I16 => Value::Int16(Deserialize::deserialize(deserializer)?),
            Type::I32 => Value::Int32(Deserialize::deserialize(deserializer)?),
            Type::I64 => Value::Int64(decimal::deserialize(deserializer)?),
            Type::Str => Value::String(Deserialize::deserialize(deserializer)?),
            Type::Uuid => Value::Uuid(Deserialize::deserialize(deserializer)?),
            Type::List | Type::Struct => Value::List(Deserialize::deserialize(deserializer)?),
            Type::Map => Value::Map(Deserialize::deserialize(deserializer)?),
            Type::Null | Type::F32 | Type::F64 | Type::Bin => return Err(members(self.0)),
        })
    }
}
