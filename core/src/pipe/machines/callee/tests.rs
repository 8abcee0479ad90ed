//! Every row of the table `pipe.callee` in docs/protocols/pipe-states.md. What an active one does is in the caller's tests as well: it is the
//! same code.

use super::*;
use crate::pipe::machines::{end::By, play::Play};

const OPEN: Event = Event::Open { is_ours: false };
const OURS: Event = Event::Open { is_ours: true };
const LOCAL: [Event; 6] =
    [Event::Call, Event::Send, Event::SendEof, Event::Finish, Event::Overflow, Event::SessionEnded];

fn play(way: &[Event]) -> Play<Callee> {
    Play::new(Config::default(), way)
}

fn answer(with: Refusal) -> [Action; 1] {
    [Action::Answer { with }]
}

#[test]
fn idle() {
    play(&[]).expect(OPEN, "Active", &[Action::Offer]);
    play(&[]).expect(OURS, "Idle", &answer(Refusal::WrongSide));
    play(&[]).expect(Event::Block, "Idle", &answer(Refusal::Unknown));
    play(&[]).expect(Event::Eof, "Idle", &answer(Refusal::Unknown));
    play(&[]).expect(Event::Close, "Idle", &[]);
    for event in LOCAL {
        play(&[]).expect(event, "Idle", &[]);
    }
}

#[test]
fn ids_of_this_side_are_served_if_that_is_wanted() {
    let config = Config { accept_foreign_ids: true };
    Play::<Callee>::new(config, &[]).expect(OURS, "Active", &[Action::Offer]);
}

#[test]
fn active() {
    for (event, state, actions) in [
        (OPEN, "Active", &answer(Refusal::Duplicate)[..]),
        (OURS, "Active", &answer(Refusal::Duplicate)),
        (Event::Call, "Active", &[]),
        (Event::Send, "Active", &[Action::SendBlock]),
        (Event::SendEof, "Active", &[Action::SendEof]),
        (Event::Block, "Active", &[Action::Receive]),
        (Event::Eof, "Active", &[Action::ReceiveEof]),
        (Event::Finish, "Done", &[Action::SendClose, Action::End { by: By::Own }]),
        (Event::Overflow, "Done", &[Action::SendClose, Action::End { by: By::Overflow }]),
        (Event::Close, "Done", &[Action::End { by: By::Peer }]),
        (Event::SessionEnded, "Done", &[Action::End { by: By::Session }]),
    ] {
        play(&[OPEN]).expect(event, state, actions);
    }
    let mut ended = play(&[OPEN, Event::SendEof, Event::Eof]);
    ended.expect(Event::Send, "Active", &[Action::Reject]);
    ended.expect(Event::SendEof, "Active", &[Action::Reject]);
    ended.expect(Event::Block, "Active", &[]);
    ended.expect(Event::Eof, "Active", &[]);
}

#[test]
fn done_drops_what_was_on_its_way() {
    let done = || Play { machine: Callee::closed(Config::default()), now: crate::testing::first_instant() };
    for event in [Event::Block, Event::Eof, Event::Close].into_iter().chain(LOCAL) {
        done().expect(event, "Done", &[]);
        play(&[OPEN, Event::Finish]).expect(event, "Done", &[]);
    }
    done().expect(OURS, "Done", &answer(Refusal::WrongSide));
    done().expect(OPEN, "Active", &[Action::Offer]);
}
