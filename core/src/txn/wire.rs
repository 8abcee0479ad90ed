//! What a request looks like on a wire.

pub mod request;
