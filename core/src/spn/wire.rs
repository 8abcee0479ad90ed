//! What SPN looks like on a wire: codes, control frames, preambles of data streams, and the control stream.

pub mod code;
pub mod control;
pub mod frame;
pub mod preamble;
