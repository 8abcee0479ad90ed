//! How much may be on its way, and what is kept of it: one policy for both sides.

pub(crate) mod budget;
pub(crate) mod kept;
pub(crate) mod stall;
pub mod window;
