//! The code of docs/writing-a-machine.md: a protocol of one question and one answer, from the machine to both runtimes.

pub mod binding;
pub mod fuzz;
pub mod machine;
pub mod on_smol;
pub mod on_tokio;
