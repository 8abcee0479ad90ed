//! What looks down on all protocols: tools that list, run and explore every machine.
//!
//! [`script`] runs a machine from JSON lines, [`explore`] walks it through all it can do and draws its diagram, [`catalog`] lists all
//! machines. On the command line they are `towline machine run`, `graph` and `list`.

pub mod catalog;
pub mod explore;
pub mod script;
#[cfg(feature = "fuzzing")]
mod walk;
