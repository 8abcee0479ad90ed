//! What carries a connection: a stream of a session.

use std::collections::BTreeSet;

use crate::{
    quic::{Handle, StreamId},
    spn::Protocol,
};

/// Which of the endpoint's sessions. Never used twice.
pub(super) type LinkId = u32;

/// Sessions that were asked for the next stream of a connection.
pub(super) type Asked = BTreeSet<LinkId>;

/// The stream that carries a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carrier {
    pub(super) link: LinkId,
    pub(super) handle: Handle,
    pub(super) stream: StreamId,
    pub(super) protocol: Protocol,
}
