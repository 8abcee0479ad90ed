//! Towline on tokio.
