//! Parts of the programs that the library does not need: settings, inventories, diagnostics, certificates, child processes (feature `cli`).

pub mod cluster;
pub mod inventory;
pub mod lines;
pub mod log;
pub mod pki;
pub mod process;
pub mod settings;
