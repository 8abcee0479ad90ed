//! The bytes of a message.

use std::marker::PhantomData;

use bytes::BytesMut;

use super::{
    Primitives, Width,
    grammar::{EOF, kind, marker, tag},
};
use crate::pipe::wire::{
    codec::{EncodeError, Limits},
    message::{Abort, Block, Close, Control, MAX_PAYLOAD, Message, Open, Part, PipeId},
    value::{MAX_ENTRIES, MAX_FIELDS, Struct, Value},
};

/// Appends one message.
pub(super) struct Writer<'a, P> {
    out: &'a mut BytesMut,
    start: usize,
    limits: &'a Limits,
    values: usize,
    primitives: PhantomData<P>,
}

impl<'a, P: Primitives> Writer<'a, P> {
    pub(super) fn new(out: &'a mut BytesMut, limits: &'a Limits) -> Self {
        let start = out.len();
        Self { out, start, limits, values: 0, primitives: PhantomData }
    }

    pub(super) fn message(mut self, message: &Message) -> Result<(), EncodeError> {
        match message {
            Message::Open(Open { pipe, priority, function, params }) => {
                self.int8(kind::OPEN);
                self.pipe(*pipe);
                self.int8(*priority);
                self.uint16(*function);
                self.count("parameters", params.len())?;
                self.values(params, 0)?;
            }
            Message::Close(Close { pipe, result }) => {
                self.int8(kind::CLOSE);
                self.pipe(*pipe);
                match result {
                    Ok(value) => {
                        self.int8(marker::SUCCESS);
                        self.value(value, 0)?;
                    }
                    Err(Abort { code, message }) => {
                        self.int8(marker::FAILURE);
                        self.int(*code, Width::W32);
                        self.binary(message.as_bytes())?;
                    }
                }
            }
            Message::Block(Block { pipe, part }) => {
                self.int8(kind::BLOCK);
                self.pipe(*pipe);
                match part {
                    Part::Data { loss, payload } => {
                        limit("bytes of a payload", payload.len(), MAX_PAYLOAD)?;
                        self.int(loss.get(), Width::W8);
                        self.binary(payload)?;
                    }
                    Part::Eof => self.int8(EOF),
                }
            }
            Message::Control(Control { code, data }) => {
                self.int8(kind::CONTROL);
                self.int8(*code);
                self.binary(data)?;
            }
        }
        self.within()
    }

    /// A value that is inside as many others.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), EncodeError> {
        self.values += 1;
        limit("values of a message", self.values, self.limits.values)?;
        match value {
            Value::Null => self.int8(tag::NULL),
            Value::Bool(true) => self.int8(tag::TRUE),
            Value::Bool(false) => self.int8(tag::FALSE),
            Value::Int8(value) => self.tagged(tag::INT8, *value, Width::W8),
            Value::Int16(value) => self.tagged(tag::INT16, *value, Width::W16),
            Value::Int32(value) => self.tagged(tag::INT32, *value, Width::W32),
            Value::Int64(value) => self.tagged(tag::INT64, *value, Width::W64),
            Value::Float32(value) => {
                self.int8(tag::FLOAT32);
                P::put_f32(self.out, *value);
            }
            Value::Float64(value) => {
                self.int8(tag::FLOAT64);
                P::put_f64(self.out, *value);
            }
            Value::Binary(value) => {
                self.int8(tag::BINARY);
                self.binary(value)?;
            }
            Value::String(value) => {
                self.int8(tag::STRING);
                self.binary(value.as_bytes())?;
            }
            Value::Uuid(value) => {
                let (high, low) = value.as_u64_pair();
                self.tagged(tag::UUID, high.cast_signed(), Width::W64);
                self.int(low.cast_signed(), Width::W64);
            }
            Value::List(values) => {
                self.enter(depth)?;
                self.int8(tag::LIST);
                self.count("entries of a list", values.len())?;
                self.values(values, depth + 1)?;
            }
            Value::Map(pairs) => {
                self.enter(depth)?;
                self.int8(tag::MAP);
                self.count("entries of a map", pairs.len())?;
                for (key, value) in pairs {
                    self.value(key, depth + 1)?;
                    self.value(value, depth + 1)?;
                }
            }
            Value::Struct(Struct { schema, fields }) => {
                self.enter(depth)?;
                limit("fields of a struct", fields.len(), MAX_FIELDS)?;
                self.int8(tag::STRUCT);
                self.binary(schema.as_bytes())?;
                self.int8((fields.len() as u8).cast_signed());
                self.values(fields, depth + 1)?;
            }
        }
        self.within()
    }

    fn values(&mut self, values: &[Value], depth: usize) -> Result<(), EncodeError> {
        values.iter().try_for_each(|value| self.value(value, depth))
    }

    /// A value that is inside as many others has some itself. It calls itself no deeper than that (CAP-2).
    fn enter(&self, depth: usize) -> Result<(), EncodeError> {
        let limit = self.limits.depth;
        if depth < limit { Ok(()) } else { Err(EncodeError::TooDeep { limit }) }
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let found = (self.out.len() - self.start).saturating_add(bytes.len());
        limit("bytes of a message", found, self.limits.message)?;
        P::put_binary_head(self.out, bytes.len())?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// The message is, so far, no longer than it may be (CAP-1).
    fn within(&self) -> Result<(), EncodeError> {
        limit("bytes of a message", self.out.len() - self.start, self.limits.message)
    }

    fn count(&mut self, what: &'static str, count: usize) -> Result<(), EncodeError> {
        limit(what, count, MAX_ENTRIES)?;
        self.uint16(count as u16);
        Ok(())
    }

    fn tagged(&mut self, tag: i8, value: impl Into<i64>, width: Width) {
        self.int8(tag);
        self.int(value, width);
    }

    fn pipe(&mut self, pipe: PipeId) {
        self.uint16(pipe.get());
    }

    /// Unsigned numbers are written as the signed ones with the same bits (ITM-3).
    fn uint16(&mut self, value: u16) {
        self.int(value.cast_signed(), Width::W16);
    }

    fn int8(&mut self, value: i8) {
        self.int(value, Width::W8);
    }

    fn int(&mut self, value: impl Into<i64>, width: Width) {
        P::put_int(self.out, value.into(), width);
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), EncodeError> {
    if found <= limit { Ok(()) } else { Err(EncodeError::TooLarge { what, found, limit }) }
}
