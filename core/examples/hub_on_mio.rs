//! A whole hub in one thread, on `mio`: a UDP socket, a clock, and `towline-core`. No async, no other crate of Towline.
//!
//! ```text
//! hub_on_mio BIND CERT.pem KEY.pem CLIENT-CA.pem SERVICE-URN PROVIDER-CN CONSUMER-CN
//! ```
//!
//! Records go to stdout, the rest to stderr. For production use `spnhub`: it sends and receives in batches.

use std::{
    env,
    error::Error,
    fs, io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use towline_core::{
    quic::{Epoch, Received, Transmit},
    spn::hub::{Config, Hub, Notice, Service},
};

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is a host: clocks, files and sockets are its part"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bind, certificate, key, client_ca, urn, provider, consumer] = &arguments[..] else {
        return Err("usage: hub_on_mio BIND CERT.pem KEY.pem CLIENT-CA.pem SERVICE-URN PROVIDER-CN CONSUMER-CN".into());
    };
    let bind: SocketAddr = bind.parse()?;
    let mut config = Config::new("example", "hub", bind);
    config.certificate = fs::read_to_string(certificate)?;
    config.key = fs::read_to_string(key)?;
    config.client_ca = fs::read_to_string(client_ca)?;
    config.services = vec![Service {
        urn: urn.clone(),
        providers: vec![provider.clone()],
        consumers: vec![consumer.clone()],
        singleton: false,
        availability: None,
    }];

    let mut seed = [0; 32];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut seed)?;
    let mut hub = Hub::new(Instant::now(), config, seed, clocks(Instant::now()))?;
    // One datagram a send call: mio knows no segmentation offload.
    hub.set_max_segments(1);

    let mut socket = UdpSocket::bind(bind)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE | Interest::WRITABLE)?;
    eprintln!("listening on {}", socket.local_addr()?);

    let (mut events, mut datagram, mut out) = (Events::with_capacity(8), vec![0; 65_536], Vec::new());
    let mut unsent: Option<Transmit> = None;
    loop {
        let now = Instant::now();
        // 0. Somebody may have set the wall clock.
        hub.set_epoch(now, clocks(now));
        // 1. A batch of datagrams, and the deadline.
        for _ in 0..64 {
            match socket.recv_from(&mut datagram) {
                Ok((length, remote)) => {
                    let data = datagram[..length].into();
                    hub.handle_datagram(now, Received { remote, local_ip: None, ecn: None, data });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if hub.poll_timeout().is_some_and(|due| due <= now) {
            hub.handle_timeout(now);
        }
        // 2. Everything that is to be sent. What the socket does not take waits until it is writable.
        loop {
            if unsent.is_none() {
                unsent = hub.poll_transmit(now, &mut out);
            }
            let Some(transmit) = &unsent else { break };
            match socket.send_to(&out, transmit.destination) {
                Ok(_) => unsent = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        // 3. What there is to tell.
        while let Some(notice) = hub.poll_notice() {
            match notice {
                Notice::Listening => eprintln!("accepting sessions"),
                // A provider would be started here, and `cluster_done` told; this host has no cluster manager.
                Notice::ClusterStart(task) | Notice::ClusterStop(task) => hub.cluster_done(now, task.id, false),
                Notice::Record(record) => println!("{}", record.to_json(&hub.epoch())),
                Notice::Refused(refusal) => eprintln!("{refusal}"),
                Notice::RefusalsSuppressed { count } => eprintln!("{count} more refusals"),
                Notice::Stopped => return Ok(()),
                // What a later release may add.
                _ => {}
            }
        }
        // 4. Sleep, unless the batch was cut off above.
        let idle = hub.poll_timeout().map(|due| due.saturating_duration_since(now));
        let wait = match socket.peek_from(&mut [0]) {
            Ok(_) => Duration::ZERO,
            Err(_) => idle.unwrap_or(Duration::from_secs(1)),
        };
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
    }
}

/// What both clocks show now.
#[allow(clippy::disallowed_methods, reason = "a host reads the clock")]
fn clocks(instant: Instant) -> Epoch {
    Epoch { instant, unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
}
