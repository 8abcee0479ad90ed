//! A transaction, under the eyes of a host that checks docs/protocols/txn-states.md, Invariants.

use arbitrary::Unstructured;

use super::below;
use crate::{
    machine::{Describe, Inspect},
    txn::transaction::{
        Config, Event, Serve, Transaction,
        played::{HEAD, Life, config},
    },
};

/// A byte of choices, an object, and then steps: mostly answers to what was asked, now and then a deadline, or an event at the wrong time.
pub(super) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut flag = || data.arbitrary().unwrap_or(false);
    let serve = if flag() { Serve::Stored } else { Serve::Streamed };
    let config = Config { single_flight: flag(), finish_fetch: flag(), ..config(serve) };
    let length = below(&mut data, 9);
    let body = data.bytes(length.min(data.len())).unwrap_or_default().to_vec();
    let mut life = Life::new(config.clone());
    // An honest host is held to every invariant; a lying one only to those of the machine itself.
    let mut is_honest = true;
    let on = |life: &mut Life, event: Event, is_honest: bool| {
        let fault = life.on(event);
        assert!(!is_honest || fault.is_ok(), "{fault:?}");
        assert_eq!(life.machine.check(), Ok(()));
    };
    on(&mut life, Event::Accepted, true);
    on(&mut life, Event::ClientData { bytes: HEAD.into() }, true);
    while !data.is_empty() {
        match below(&mut data, 16) {
            0 => {
                if let Err(fault) = life.fire() {
                    assert!(!is_honest, "{fault}");
                }
            }
            1 => {
                is_honest = false;
                let alphabet = Transaction::alphabet();
                on(&mut life, alphabet[below(&mut data, alphabet.len())].clone(), false);
            }
            _ => {
                let cut = below(&mut data, 4);
                let mut answers = life.host.answers(&body, cut);
                // The cache has no object without a byte.
                answers.retain(|event| !body.is_empty() || !matches!(event, Event::CacheHit { .. }));
                if answers.is_empty() {
                    break;
                }
                let event = answers.swap_remove(below(&mut data, answers.len()));
                on(&mut life, event, is_honest);
            }
        }
    }
    let end = life.run_out(&config);
    if is_honest {
        end.expect("it comes to its end");
        life.host.judge(&body).expect("what came of it is what it says");
        assert_eq!(life.machine.unexpected_events(), 0);
    }
    assert!(["done", "start"].contains(&life.machine.state()) || !is_honest);
}
