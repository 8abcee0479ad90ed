//! A provider's share of new connections; weight 0 retires it.

use super::{Action, Live, Session};
use crate::spn::{Protocol, Role};

impl Session {
    pub(super) fn set_weight(&mut self, weight: u16) {
        self.weight = weight;
        self.retired = self.role == Role::Provider && weight == 0;
    }

    /// The weight to ask for: a provider that ends takes nothing new.
    pub(super) fn wanted(&self) -> u16 {
        if self.leaving && self.role == Role::Provider { 0 } else { self.weight }
    }

    /// Says the wanted weight: one SET_WEIGHT at a time, the newest value after the answer to the one before.
    pub(super) fn weigh(&mut self, live: Live) -> Live {
        let wanted = if live.retiring { 0 } else { self.wanted() };
        let speaks = self.role == Role::Provider && live.protocol == Protocol::Sc02;
        if !speaks || live.weighing || live.said == wanted {
            return live;
        }
        self.parts.act(Action::SendSetWeight { weight: wanted });
        Live { said: wanted, weighing: true, ..live }
    }
}
