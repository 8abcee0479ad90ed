//! Resolves names to addresses, by DNS over smol.

use towline_core::host::resolve;
pub use towline_core::host::resolve::{ResolveError, is_usable};

use crate::dns::Runtime;

/// Resolves names with name servers; see [`resolve::Resolver`].
pub type Resolver = resolve::Resolver<Runtime>;
