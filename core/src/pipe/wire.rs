//! What Pipe RPC looks like on a wire.

pub mod codec;
mod decimal;
pub mod json;
pub mod message;
pub mod sync;
pub mod value;
