//! The body of a fuzz target: reads any bytes as the events of some clients.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use towline_core::{
    net::{Close, Command, ConnId, Event, Fault, StreamBinding},
    testing::first_instant,
};

use super::{
    binding::Greeter,
    machine::{Config, Outcome},
};

/// A client, as the host sees it.
#[derive(Default)]
struct Client {
    sent: Vec<u8>,
    credit: Option<usize>,
    writing: Option<Bytes>,
    greeting: Vec<u8>,
    how: Option<Close>,
}

/// Runs one input. The first byte of each step chooses the event and the client, the second the amount.
///
/// # Panics
/// An invariant is broken.
pub fn clients(data: &[u8]) {
    let config = Config::default();
    let mut now = first_instant();
    let mut greeter = Greeter::new(config.clone());
    let mut clients = BTreeMap::<ConnId, Client>::new();
    for step in data.chunks(2) {
        let (what, much) = (step[0] % 6, usize::from(step.get(1).copied().unwrap_or(0)));
        let nth = usize::from(step[0] / 6);
        let open = clients.iter_mut().filter(|(_, client)| client.how.is_none());
        let whom = open.map(|(&conn, client)| (conn, client)).nth(nth % 3);
        match (what, whom) {
            (0, _) if greeter.wants_accept() => {
                let conn = greeter.handle_incoming(now, ([192, 0, 2, 7], 1234).into());
                assert!(clients.insert(conn, Client::default()).is_none(), "a number is used again");
            }
            (1, Some((conn, client))) => {
                if let Some(max) = client.credit.take() {
                    // A byte that is often an LF.
                    let byte = if much.is_multiple_of(7) { b'\n' } else { much as u8 };
                    let bytes = vec![byte; max.min(much + 1)];
                    client.sent.extend_from_slice(&bytes);
                    greeter.handle_event(now, conn, Event::Data { bytes: bytes.into() });
                }
            }
            (2, Some((conn, client))) => {
                if let Some(bytes) = client.writing.take() {
                    client.greeting.extend_from_slice(&bytes);
                    greeter.handle_event(now, conn, Event::Sent { len: bytes.len() as u64 });
                }
            }
            (3, _) => {
                now += Duration::from_millis(much as u64 * 100);
                greeter.handle_timeout(now);
            }
            (4, Some((conn, client))) if much < 50 && client.credit.is_some() => {
                client.credit = None;
                greeter.handle_event(now, conn, Event::End);
            }
            (5, Some((conn, _))) if much < 50 => {
                greeter.handle_event(now, conn, Event::Error { fault: Fault::Reset });
            }
            _ => {}
        }
        perform(&mut greeter, &mut clients);
        let open = clients.values().filter(|client| client.how.is_none());
        assert_eq!(open.clone().count(), greeter.clients(), "each client is closed once, at its end");
        assert!(greeter.clients() == 0 || greeter.poll_timeout().is_some(), "a client waits without a deadline");
        for client in open {
            assert!(client.credit.is_some() || client.writing.is_some(), "nothing will happen to it");
            assert!(client.sent.len() <= config.name_max + 1, "it reads more than a name");
        }
    }
}

fn perform(greeter: &mut Greeter, clients: &mut BTreeMap<ConnId, Client>) {
    while let Some(command) = greeter.poll_command() {
        match command {
            Command::Read { conn, max } => {
                assert!(max > 0 && open(clients, conn).credit.replace(max).is_none(), "one read at a time");
            }
            Command::Write { conn, bytes } => {
                assert!(
                    !bytes.is_empty() && open(clients, conn).writing.replace(bytes).is_none(),
                    "one write at a time"
                );
            }
            Command::Close { conn, how, .. } => open(clients, conn).how = Some(how),
            Command::Resolve { .. } | Command::Connect { .. } | Command::StopListening | Command::Stop => {
                panic!("nobody has asked for it: {command:?}")
            }
        }
    }
    while let Some(ended) = greeter.poll_notice() {
        let client = &clients[&ended.conn];
        let name = client.sent.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let is_greeted = client.greeting == [b"hello ", name, b"\n"].concat();
        assert_eq!(ended.outcome == Outcome::Greeted, is_greeted, "half a greeting is none");
        assert!(client.how.is_some(), "its connection is closed first");
    }
}

fn open(clients: &mut BTreeMap<ConnId, Client>, conn: ConnId) -> &mut Client {
    clients.get_mut(&conn).filter(|client| client.how.is_none()).expect("one that is open")
}
