//! What the protocol itself says when a call has no result (docs/protocols/pipe.md, Abort codes).

use crate::pipe::wire::message::{Abort, PipeId};

/// ABT-2: the session ends. It is never sent.
#[must_use]
pub fn closing() -> Abort {
    Abort::new(Abort::CLOSING, "session closing")
}

/// ABT-4: the service has no such function.
#[must_use]
pub fn unknown_function(function: u16) -> Abort {
    unexpected_with(format!("function not found: {}", function.cast_signed()))
}

/// ABT-5: an Open for a pipe that is in use.
#[must_use]
pub fn duplicate_pipe(pipe: PipeId) -> Abort {
    unexpected_with(format!("duplicate pipe-id specified: {}", pipe.signed()))
}

/// ABT-6: a block for a pipe that does not exist.
#[must_use]
pub fn unknown_pipe(pipe: PipeId) -> Abort {
    unexpected_with(format!("unknown pipe-id specified: {}", pipe.signed()))
}

/// ABT-7: an Open with an id of the receiver's side.
#[must_use]
pub fn wrong_side(pipe: PipeId) -> Abort {
    unexpected_with(format!("wrong pipe-id side: {}", pipe.signed()))
}

/// ABT-8: the function failed.
#[must_use]
pub fn unexpected() -> Abort {
    unexpected_with("unexpected error")
}

/// ABT-9: the function could not be called.
#[must_use]
pub fn internal() -> Abort {
    unexpected_with("internal error")
}

/// ABT-10: more blocks came than may wait.
#[must_use]
pub fn overflow() -> Abort {
    unexpected_with("receive queue overflow")
}

/// ABT-11: this end gave up the call.
#[must_use]
pub fn cancelled() -> Abort {
    unexpected_with("cancelled")
}

fn unexpected_with(message: impl Into<String>) -> Abort {
    Abort::new(Abort::UNEXPECTED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_signed() {
        let pipe = PipeId::new(0x8005).unwrap();
        for (abort, message) in [
            (unknown_function(0xffff), "function not found: -1"),
            (unknown_function(14), "function not found: 14"),
            (duplicate_pipe(pipe), "duplicate pipe-id specified: -32763"),
            (unknown_pipe(pipe), "unknown pipe-id specified: -32763"),
            (wrong_side(pipe), "wrong pipe-id side: -32763"),
        ] {
            assert_eq!(abort, Abort { code: -1, message: message.to_owned() });
        }
    }
}
