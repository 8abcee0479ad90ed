//! What the parts of an endpoint are handed with each call: the time, its settings, where it stands in its life, and the ways out.
//! A part keeps none of it.

use std::time::Instant;

use super::{phase::Phase, ports::Ports, setup::Setup};

/// What may be used during one call.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) setup: &'a mut Setup,
    pub(super) phase: &'a mut Phase,
    pub(super) ports: &'a mut Ports,
}
