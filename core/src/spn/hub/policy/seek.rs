//! Which providers may have a connection of which nothing has been heard, and whether they have it
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-1 to SEK-3).
//!
//! A consumer must know every provider that could have its connections, or it could not tell later that none of them has one. So a provider
//! that comes gets none of its connections before PROVIDERS, which names it, has been answered.

use std::time::Instant;

use super::registry::{Entry, UNLISTED};
use crate::{
    quic::Handle,
    spn::{
        ConnKey, Protocol, Role,
        hub::Hub,
        wire::frame::{Frame, MAX_LIST, flag},
    },
};

impl Hub {
    /// What PROVIDERS says of a service.
    fn providers(&self, entry: &Entry) -> Frame {
        let (mut instances, mut retiring, mut flags) = (Vec::new(), Vec::new(), 0);
        for provider in &entry.providers {
            let Some(session) = self.sessions.get(&provider.session) else { continue };
            let can_be_asked = session.protocol == Protocol::Sc02 && session.can_resume && session.seeks;
            let list = if provider.number == UNLISTED { &mut retiring } else { &mut instances };
            if can_be_asked && list.len() < MAX_LIST as usize {
                list.push(session.instance);
            } else if provider.number != UNLISTED {
                flags = flag::OTHERS;
            }
        }
        Frame::Providers { number: entry.number, flags, instances, retiring }
    }

    /// SESSION_ACK is on its way to a consumer: from now on it hears who serves it.
    pub(in crate::spn::hub) fn list_providers(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if session.role != Role::Consumer || !session.seeks {
            return;
        }
        session.knows = Some(0);
        let service = session.service;
        let Some(frame) = self.registry.get(service).map(|entry| self.providers(entry)) else { return };
        self.send(handle, &frame);
    }

    /// A provider has come or gone, is given up or heard again: its consumers hear of it.
    pub(in crate::spn::hub) fn providers_changed(&mut self, service: usize) {
        let Some(entry) = self.registry.get(service) else { return };
        let frame = self.providers(entry);
        let told = self.sessions.iter().filter(|(_, it)| it.service == service && it.knows.is_some());
        for handle in told.map(|(handle, _)| *handle).collect::<Vec<_>>() {
            self.send(handle, &frame);
        }
    }

    /// PROVIDERS_ACK.
    pub(in crate::spn::hub) fn providers_ack(&mut self, now: Instant, handle: Handle, number: u64) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let service = session.service;
        let newest = self.registry.get(service).map(|entry| entry.number).unwrap_or_default();
        if let Some(known) = &mut session.knows {
            *known = number.min(newest).max(*known);
            self.choose_for_waiting(now, service);
        }
    }

    /// SEEK: only for what the consumer has asked to resume, and each session of a provider is asked once.
    pub(in crate::spn::hub) fn seek(&mut self, handle: Handle, conn: ConnKey, instance: [u8; 16]) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let providers = self.registry.get(session.service).map(|entry| entry.providers.as_slice()).unwrap_or_default();
        let is_it =
            |provider: &Handle| self.sessions.get(provider).is_some_and(|it| it.seeks && it.instance == instance);
        let Some(provider) = providers.iter().map(|provider| provider.session).find(is_it) else { return };
        if self.note_sought(conn, handle, provider) {
            self.send(provider, &Frame::Seek { conn, instance });
        }
    }

    /// ABSENT.
    pub(in crate::spn::hub) fn absent(&mut self, handle: Handle, conn: ConnKey) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let instance = session.instance;
        for consumer in self.seekers(conn, handle) {
            self.send(consumer, &Frame::Absent { conn, instance });
        }
    }
}
