//! A life of a machine, from any bytes.

use std::fmt::Write as _;

use crate::{machine::Describe, testing::first_instant};

/// More actions after one event mean that there is no end of them.
const ACTIONS: usize = 1000;

/// A life of one machine; each byte is an event, or lets its timer fire.
///
/// # Panics
/// When an invariant does not hold; the message is a script for `towline machine run`, with the configuration of the explorer.
pub(super) fn walk<M: Describe>(steps: &[u8]) {
    let start = first_instant();
    let (mut machine, mut now) = (M::start(M::small(), 0), start);
    let alphabet = M::alphabet();
    let mut script = String::new();
    for &step in steps {
        let at_ms = now.saturating_duration_since(start).as_millis();
        // One byte in eight is for time, the others are dealt to the events.
        match alphabet.get(usize::from(step >> 3) % alphabet.len()) {
            Some(event) if step & 7 != 0 => {
                let event_json = serde_json::to_string(event).expect("an event has a JSON form");
                let _ = writeln!(script, "{{\"at_ms\": {at_ms}, \"event\": {event_json}}}");
                machine.handle_event(now, event.clone());
            }
            _ => {
                let Some(due) = machine.poll_timeout() else { continue };
                now = now.max(due);
                let at_ms = now.saturating_duration_since(start).as_millis();
                let _ = writeln!(script, "{{\"at_ms\": {at_ms}, \"event\": \"advance\"}}");
                machine.handle_timeout(now);
            }
        }
        let actions = std::iter::from_fn(|| machine.poll_action()).take(ACTIONS).count();
        assert!(actions < ACTIONS, "{}: no end of actions\n{script}", M::NAME);
        if let Err(fault) = machine.check() {
            panic!("{}: {fault}\n{script}", M::NAME);
        }
    }
}
