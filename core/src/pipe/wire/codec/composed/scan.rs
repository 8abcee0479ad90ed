//! Where a message ends; no item that has come is read twice to find it.

use super::{Input, Primitives, Stop, fault, grammar};
use crate::pipe::wire::codec::{DecodeError, Fault, Limits, Measure};

/// How far a message was scanned.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes of the items that are complete; 0: not even what the message begins with.
    at: usize,
    /// How many values are to come at each level, the outermost first; no more levels than [`Limits::depth`] and one.
    levels: Vec<u32>,
    /// How many values were announced.
    values: usize,
}

impl Scan {
    /// Goes on where it stopped.
    pub(super) fn measure<P: Primitives>(&mut self, bytes: &[u8], limits: &Limits) -> Result<Measure, DecodeError> {
        let measured = match self.scan::<P>(&mut Input::new(bytes, self.at), limits) {
            Ok(()) => Ok(Measure::Whole(self.at)),
            // Not more than the next item needs, whatever was announced: what is wrong with it is found when it is there (CAP-5).
            Err(Stop::Needs(length)) => return Ok(Measure::Needs(length)),
            Err(Stop::Fault(error)) => Err(error),
        };
        // Another message begins. The levels keep their room.
        self.levels.clear();
        (self.at, self.values) = (0, 0);
        measured
    }

    fn scan<P: Primitives>(&mut self, input: &mut Input<'_>, limits: &Limits) -> Result<(), Stop> {
        if self.at == 0 {
            let head = within(grammar::head::<P>(input, limits), input, limits)?;
            self.announce(head.values(), limits)?;
            self.at = input.offset();
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(others) = level.checked_sub(1) else {
                self.levels.pop();
                continue;
            };
            let item = within(grammar::item::<P>(input, limits), input, limits)?;
            *level = others;
            if let Some(inside) = item.inside() {
                // The outermost level is that of the message.
                if self.levels.len() > limits.depth {
                    return Err(fault(self.at, Fault::TooDeep { limit: limits.depth }));
                }
                self.announce(inside, limits)?;
            }
            self.at = input.offset();
        }
        Ok(())
    }

    /// So many values follow inside the item that begins at `self.at`.
    fn announce(&mut self, values: u32, limits: &Limits) -> Result<(), Stop> {
        self.levels.push(values);
        self.values += values as usize;
        if self.values > limits.values {
            let (declared, limit) = (self.values as u64, limits.values as u64);
            return Err(fault(self.at, Fault::TooLarge { what: "values of a message", declared, limit }));
        }
        Ok(())
    }
}

/// What was read, unless the message is then longer than it may be (CAP-1).
fn within<T>(read: Result<T, Stop>, input: &Input<'_>, limits: &Limits) -> Result<T, Stop> {
    let least = match &read {
        Ok(_) => input.offset(),
        Err(Stop::Needs(length)) => *length,
        Err(Stop::Fault(_)) => 0,
    };
    if least > limits.message {
        let (declared, limit) = (least as u64, limits.message as u64);
        return Err(fault(limits.message, Fault::TooLarge { what: "bytes of a message", declared, limit }));
    }
    read
}
