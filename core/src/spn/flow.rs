//! How much may be on its way, and what is kept of it: the same on both sides.

pub(crate) mod kept;
pub mod window;
