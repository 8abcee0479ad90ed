//! Every row of the table `pipe.caller` in docs/protocols/pipe-states.md.

use super::*;
use crate::pipe::machines::{
    end::{By, Refusal},
    play::Play,
};

const ALL: [Event; 10] = [
    Event::Call,
    Event::Open { is_ours: true },
    Event::Send,
    Event::SendEof,
    Event::Finish,
    Event::Block,
    Event::Eof,
    Event::Close,
    Event::Overflow,
    Event::SessionEnded,
];

fn play(way: &[Event]) -> Play<Caller> {
    Play::new(Config {}, way)
}

#[test]
fn idle() {
    play(&[]).expect(Event::Call, "Active", &[Action::SendOpen]);
    for event in ALL.into_iter().filter(|event| *event != Event::Call) {
        play(&[]).expect(event, "Idle", &[]);
    }
}

#[test]
fn active_with_both_directions() {
    let end = |by| Action::End { by };
    for (event, state, actions) in [
        (Event::Call, "Active", &[][..]),
        (Event::Open { is_ours: true }, "Active", &[Action::Answer { with: Refusal::Duplicate }]),
        (Event::Send, "Active", &[Action::SendBlock]),
        (Event::SendEof, "Active", &[Action::SendEof]),
        (Event::Block, "Active", &[Action::Receive]),
        (Event::Eof, "Active", &[Action::ReceiveEof]),
        (Event::Finish, "Done", &[Action::SendClose, end(By::Own)]),
        (Event::Overflow, "Done", &[Action::SendClose, end(By::Overflow)]),
        (Event::Close, "Done", &[end(By::Peer)]),
        (Event::SessionEnded, "Done", &[end(By::Session)]),
    ] {
        play(&[Event::Call]).expect(event, state, actions);
    }
}

#[test]
fn a_direction_ends_once_and_the_other_goes_on() {
    let mut play = play(&[Event::Call, Event::SendEof]);
    play.expect(Event::Send, "Active", &[Action::Reject]);
    play.expect(Event::SendEof, "Active", &[Action::Reject]);
    play.expect(Event::Block, "Active", &[Action::Receive]);
    play.expect(Event::Eof, "Active", &[Action::ReceiveEof]);
    play.expect(Event::Block, "Active", &[]);
    play.expect(Event::Eof, "Active", &[]);
    assert_eq!(play.machine.parts().ignored(), 2);
    play.expect(Event::Close, "Done", &[Action::End { by: By::Peer }]);
}

#[test]
fn done_is_for_good() {
    for last in [Event::Finish, Event::Close, Event::SessionEnded, Event::Overflow] {
        let mut play = play(&[Event::Call, last]);
        for event in ALL {
            play.expect(event, "Done", &[]);
        }
    }
}
