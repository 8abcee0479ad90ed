//! An endpoint: consumer or provider of a service.

pub mod connection;
pub mod session;
