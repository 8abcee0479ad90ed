//! Names to addresses, by DNS over smol.

use towline_core::host::resolve;
pub use towline_core::host::resolve::{ResolveError, is_usable};

use crate::dns::Runtime;

/// Asks name servers for the addresses of names; see [`resolve::Resolver`].
pub type Resolver = resolve::Resolver<Runtime>;
