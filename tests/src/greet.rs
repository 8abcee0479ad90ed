//! The code of docs/writing-a-machine.md: a protocol of one question and one answer, from the machine to any runtime.

pub mod binding;
pub mod fuzz;
pub mod hex;
pub mod host;
pub mod machine;
