//! A temporary realm for an example: certificates, and a hub on this machine that can be replaced.

use std::{error::Error, net::SocketAddr};

use tokio::sync::mpsc;
use towline_core::{
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::Config,
        hub::{self, Notice, Service},
    },
};
use towline_tokio::{
    cli::pki::{Authority, Pair},
    hub::HubHandle,
};

/// One service, its provider `server` and its consumer `client`.
pub(crate) struct Realm {
    authority: Authority,
    record: hub::Config,
    hub: HubHandle,
    stopped: mpsc::UnboundedReceiver<()>,
}

impl Realm {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let authority = Authority::new("example")?;
        let Pair { certificate, key } = authority.hub(&["127.0.0.1".to_owned()])?;
        let mut record = hub::Config::new("example", "hub", SocketAddr::from(([127, 0, 0, 1], 0)));
        (record.certificate, record.key, record.client_ca) = (certificate, key, authority.certificate.clone());
        record.services = vec![Service {
            urn: "urn:example:service".to_owned(),
            providers: vec!["server".to_owned()],
            consumers: vec!["client".to_owned()],
            singleton: false,
            availability: None,
        }];
        let (hub, stopped) = start(&record)?;
        record.bind = hub.local_addr();
        Ok(Self { authority, record, hub, stopped })
    }

    /// The hub's UDP port.
    pub(crate) fn port(&self) -> u16 {
        self.record.bind.port()
    }

    /// Settings of the provider or the consumer.
    pub(crate) fn endpoint(&self, role: Role) -> Result<Config, Box<dyn Error>> {
        let name = match role {
            Role::Provider => "server",
            Role::Consumer => "client",
        };
        let Pair { certificate, key } = self.authority.endpoint(name)?;
        let identity = Identity::from_pem(&certificate, &key)?;
        Ok(Config::new(role, "127.0.0.1", identity, Roots::from_pem(&self.authority.certificate)?))
    }

    /// Ends the hub at once, and starts another one in its place.
    pub(crate) async fn replace_hub(&mut self) -> Result<(), Box<dyn Error>> {
        self.hub.stop();
        // The address is free when the hub has stopped.
        self.stopped.recv().await;
        (self.hub, self.stopped) = start(&self.record)?;
        Ok(())
    }
}

fn start(record: &hub::Config) -> Result<(HubHandle, mpsc::UnboundedReceiver<()>), Box<dyn Error>> {
    let (sender, stopped) = mpsc::unbounded_channel();
    let hub = HubHandle::start(record.clone(), move |notice| {
        if matches!(notice, Notice::Stopped) {
            let _ = sender.send(());
        }
    })?;
    Ok((hub, stopped))
}
