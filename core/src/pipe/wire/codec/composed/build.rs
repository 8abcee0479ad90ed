//! A message out of the bytes of exactly one.

use std::{mem, ops::Range};

use bytes::Bytes;

use super::{
    Input, Primitives, Stop, fault,
    grammar::{self, Head, Item},
};
use crate::pipe::wire::{
    codec::{DecodeError, Fault, Limits},
    message::{Abort, Block, Close, Control, Message, Open, Part},
    value::{Struct, Value},
};

pub(super) fn message<P: Primitives>(bytes: &Bytes, limits: &Limits) -> Result<Message, DecodeError> {
    let mut builder = Builder { bytes, input: Input::new(bytes, 0), limits };
    let stray = |offset| DecodeError { offset, fault: Fault::NotOneMessage { found: bytes.len() } };
    let message = builder.message::<P>().map_err(|stop| match stop {
        Stop::Fault(error) => error,
        Stop::Needs(_) => stray(bytes.len()),
    })?;
    if builder.input.remaining() == 0 { Ok(message) } else { Err(stray(builder.input.offset())) }
}

struct Builder<'a> {
    bytes: &'a Bytes,
    input: Input<'a>,
    limits: &'a Limits,
}

impl Builder<'_> {
    fn message<P: Primitives>(&mut self) -> Result<Message, Stop> {
        Ok(match grammar::head::<P>(&mut self.input, self.limits)? {
            Head::Open { pipe, priority, function, params } => {
                Open { pipe, priority, function, params: self.values::<P>(params.into(), 0)? }.into()
            }
            Head::Success { pipe } => Close { pipe, result: Ok(self.value::<P>(0)?) }.into(),
            Head::Failure { pipe, code, message } => {
                Close { pipe, result: Err(Abort { code, message: self.text(message) }) }.into()
            }
            Head::Data { pipe, loss, payload } => {
                Block { pipe, part: Part::Data { loss, payload: self.bytes.slice(payload) } }.into()
            }
            Head::Eof { pipe } => Block { pipe, part: Part::Eof }.into(),
            Head::Control { code, data } => Control { code, data: self.bytes.slice(data) }.into(),
        })
    }

    /// A value that is inside as many others.
    fn value<P: Primitives>(&mut self, depth: usize) -> Result<Value, Stop> {
        let at = self.input.offset();
        let item = grammar::item::<P>(&mut self.input, self.limits)?;
        // It calls itself no deeper than that (CAP-2).
        if item.inside().is_some() && depth >= self.limits.depth {
            return Err(fault(at, Fault::TooDeep { limit: self.limits.depth }));
        }
        Ok(match item {
            Item::Null => Value::Null,
            Item::Bool(value) => Value::Bool(value),
            Item::Int8(value) => Value::Int8(value),
            Item::Int16(value) => Value::Int16(value),
            Item::Int32(value) => Value::Int32(value),
            Item::Int64(value) => Value::Int64(value),
            Item::Float32(value) => Value::Float32(value),
            Item::Float64(value) => Value::Float64(value),
            Item::Binary(range) => Value::Binary(self.bytes.slice(range)),
            Item::String(range) => Value::String(self.text(range)),
            Item::Uuid(value) => Value::Uuid(value),
            Item::List { entries } => Value::List(self.values::<P>(entries.into(), depth + 1)?),
            Item::Map { entries } => {
                let mut pairs = Vec::with_capacity(self.room(entries.into()));
                for _ in 0..entries {
                    pairs.push((self.value::<P>(depth + 1)?, self.value::<P>(depth + 1)?));
                }
                join_repeats(&mut pairs);
                Value::Map(pairs)
            }
            Item::Struct { schema, fields } => {
                let schema = self.text(schema).into();
                Struct { schema, fields: self.values::<P>(fields.into(), depth + 1)? }.into()
            }
        })
    }

    fn values<P: Primitives>(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::with_capacity(self.room(count));
        for _ in 0..count {
            values.push(self.value::<P>(depth)?);
        }
        Ok(values)
    }

    /// Room for so many values, but not for more than there can be (CAP-4).
    fn room(&self, count: usize) -> usize {
        count.min(self.input.remaining())
    }

    /// What is not UTF-8 becomes U+FFFD (VAL-4).
    fn text(&self, range: Range<usize>) -> String {
        String::from_utf8_lossy(self.input.get(range)).into_owned()
    }
}

/// A key that comes again gives its value to the first one, and is gone (VAL-5).
fn join_repeats(pairs: &mut Vec<(Value, Value)>) {
    if pairs.len() < 2 {
        return;
    }
    // By key, and the same keys in their order: to compare each with each would take too long.
    let mut places: Vec<usize> = (0..pairs.len()).collect();
    places.sort_by(|&a, &b| pairs[a].0.cmp(&pairs[b].0));
    let runs = places.chunk_by(|&a, &b| pairs[a].0 == pairs[b].0);
    let repeated: Vec<&[usize]> = runs.filter(|run| run.len() > 1).collect();
    let mut is_repeat = vec![false; if repeated.is_empty() { 0 } else { pairs.len() }];
    for run in repeated {
        if let [first, repeats @ .., last] = run {
            pairs[*first].1 = mem::take(&mut pairs[*last].1);
            repeats.iter().chain([last]).for_each(|&place| is_repeat[place] = true);
        }
    }
    let mut is_repeat = is_repeat.into_iter();
    pairs.retain(|_| !is_repeat.next().unwrap_or(false));
    pairs.shrink_to_fit();
}
