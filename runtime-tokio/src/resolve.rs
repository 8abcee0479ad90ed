//! Resolves names to addresses, by DNS over tokio.

use hickory_resolver::net::runtime::TokioRuntimeProvider as Runtime;
use towline_core::host::resolve;
pub use towline_core::host::resolve::{ResolveError, is_usable};

/// Resolves names with name servers; see [`resolve::Resolver`].
pub type Resolver = resolve::Resolver<Runtime>;
