//! Tables and rules without I/O: which origins may be asked, what is stored, and who waits for whom.

pub mod allow;
pub mod cache;
pub mod lookups;
