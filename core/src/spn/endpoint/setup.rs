//! What an endpoint is: its settings, its identity, its clock and its randomness.

use std::time::Duration;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    quic::{self, ClientConfig, Clock, EndpointConfig, Epoch, Identity, Roots},
    spn::{
        ConnKey, Role,
        endpoint::{
            config::{Config, ConfigError},
            machines::{connection::Connection, session::Session},
            policy::seek::Instance,
        },
        wire::frame::{Flags, SessionOpen, VERSION},
    },
};

/// The settings of an endpoint, and what is made of them.
pub(in crate::spn::endpoint) struct Setup {
    config: Config,
    client: ClientConfig,
    clock: Clock,
    random: ChaCha20Rng,
    /// Random, for the life of the process.
    instance: Instance,
}

impl Setup {
    /// The setup, and the QUIC endpoint of it.
    pub(in crate::spn::endpoint) fn new(
        config: Config,
        seed: [u8; 32],
        epoch: Epoch,
    ) -> Result<(Self, quic::Endpoint), ConfigError> {
        config.check()?;
        let mut random = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut drawn = [0; 32];
            random.fill_bytes(&mut drawn);
            drawn
        };
        let clock = Clock::new(epoch);
        let client = config.client(&clock, draw())?;
        let quic = quic::Endpoint::new(EndpointConfig::new(draw(), clock.clone()), None);
        let mut instance = [0; 16];
        random.fill_bytes(&mut instance);
        Ok((Self { config, client, clock, random, instance }, quic))
    }

    pub(in crate::spn::endpoint) fn config(&self) -> &Config {
        &self.config
    }

    /// How hubs are dialled.
    pub(in crate::spn::endpoint) fn client(&self) -> &ClientConfig {
        &self.client
    }

    pub(in crate::spn::endpoint) fn is_consumer(&self) -> bool {
        self.config.role == Role::Consumer
    }

    /// This process, as hubs and partners know it.
    pub(in crate::spn::endpoint) fn instance(&self) -> Instance {
        self.instance
    }

    /// Another identity, and other authorities of hubs. What cannot be used changes nothing.
    pub(in crate::spn::endpoint) fn set_identity(
        &mut self,
        identity: Identity,
        roots: Roots,
    ) -> Result<(), ConfigError> {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let config = Config { identity, roots, ..self.config.clone() };
        self.client = config.client(&self.clock, seed)?;
        self.config = config;
        Ok(())
    }

    pub(in crate::spn::endpoint) fn set_epoch(&mut self, epoch: Epoch) {
        self.clock.set(epoch);
    }

    /// Sessions that are made from now on ask for this weight.
    pub(in crate::spn::endpoint) fn set_weight(&mut self, weight: u16) {
        self.config.session.weight = weight;
    }

    /// A session's machine; `time_left` is what an endpoint has that ends.
    pub(in crate::spn::endpoint) fn session(&mut self, time_left: Option<Duration>) -> Session {
        let mut config = self.config.session.clone();
        config.closing = time_left.unwrap_or(config.closing);
        Session::new(config, self.random.next_u64())
    }

    /// A connection's machine.
    pub(in crate::spn::endpoint) fn connection(&mut self) -> Connection {
        Connection::new(self.config.connection.clone(), self.random.next_u64())
    }

    /// A key for a new connection.
    pub(in crate::spn::endpoint) fn conn_key(&mut self) -> ConnKey {
        let mut key = ConnKey([0; 16]);
        self.random.fill_bytes(&mut key.0);
        key
    }

    /// What asks a hub for a session.
    pub(in crate::spn::endpoint) fn session_open(&self, weight: u16, hubs: Vec<[u8; 16]>) -> SessionOpen {
        SessionOpen {
            version: VERSION,
            role: self.config.role,
            service: self.config.service.clone(),
            instance: self.instance,
            weight,
            flags: (Flags::RESUMABLE | Flags::PARTNERS | Flags::SEEKS).only_if(self.config.resume),
            hubs,
        }
    }
}
