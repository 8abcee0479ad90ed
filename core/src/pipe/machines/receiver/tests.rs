//! Every row of the table `pipe.receiver` in docs/protocols/pipe-states.md.

use Action::{Credit, Deliver, DeliverWaiting, Drop, DropWaiting, Hold, Keep, Overflow, Readable, Reject, Release};
use Event::{Choose, Eof, PipeEnded};
use Mode::{Discard, Messages, Stream};

use super::*;
use crate::pipe::machines::play::Play;

/// Room for 2 blocks or 10 bytes, in a stream for 3 or 20.
fn play(way: &[Event]) -> Play<Receiver> {
    let config = Config { undecided: Room { blocks: 2, bytes: 10 }, stream: Room { blocks: 3, bytes: 20 } };
    Play::new(config, way)
}

fn block(len: usize) -> Event {
    Event::Block { len }
}

fn taken(len: usize) -> Event {
    Event::Taken { len }
}

fn credit(blocks: usize, bytes: usize) -> Action {
    Credit { blocks, bytes }
}

#[test]
fn undecided_keeps_until_it_is_full() {
    let mut few = play(&[]);
    few.expect(taken(1), "Undecided", &[]);
    few.expect(block(1), "Undecided", &[Keep]);
    few.expect(Eof, "Undecided", &[Keep, Hold]);
    few.expect(PipeEnded, "Over", &[credit(2, 1), Release]);

    let mut many = play(&[block(0)]);
    many.expect(block(0), "Undecided", &[Keep, Hold]);
    many.expect(Eof, "Undecided", &[Keep]);
    many.expect(block(0), "Over", &[credit(3, 0), Release, DropWaiting, Overflow]);

    let mut long = play(&[]);
    long.expect(block(10), "Undecided", &[Keep, Hold]);
    long.expect(block(0), "Over", &[credit(1, 10), Release, DropWaiting, Overflow]);
    play(&[]).expect(PipeEnded, "Over", &[]);
}

#[test]
fn what_waited_goes_into_the_choice() {
    for (mode, state, actions) in [
        (Messages, "Messages", &[DeliverWaiting][..]),
        (Stream, "Stream", &[Readable]),
        (Discard, "Discard", &[credit(1, 4), DropWaiting]),
    ] {
        play(&[]).expect(Choose(mode), state, &[]);
        play(&[block(4)]).expect(Choose(mode), state, actions);
    }
    // Full before: a byte stream may have more room, and messages are full until they are taken.
    let full = [block(4), block(5)];
    play(&full).expect(Choose(Stream), "Stream", &[Release, Readable]);
    play(&full).expect(Choose(Discard), "Discard", &[credit(2, 9), Release, DropWaiting]);
    let mut messages = play(&full);
    messages.expect(Choose(Messages), "Messages", &[DeliverWaiting]);
    messages.expect(taken(4), "Messages", &[credit(1, 4), Release]);
    // A byte stream may have less room, too.
    let config = Config { undecided: Room { blocks: 9, bytes: 9 }, stream: Room { blocks: 1, bytes: 9 } };
    Play::<Receiver>::new(config, &[block(1)]).expect(Choose(Stream), "Stream", &[Hold, Readable]);
}

#[test]
fn messages_are_given_as_they_come() {
    let mut play_on = play(&[Choose(Messages)]);
    play_on.expect(block(100), "Messages", &[Deliver]);
    play_on.expect(Eof, "Messages", &[Deliver]);
    play_on.expect(taken(1), "Messages", &[]);
    play_on.expect(Choose(Stream), "Messages", &[Reject]);
    play_on.expect(PipeEnded, "Over", &[]);

    let mut behind = play(&[block(4), Choose(Messages)]);
    behind.expect(block(5), "Messages", &[Keep, Hold]);
    behind.expect(Eof, "Messages", &[Keep]);
    behind.expect(taken(4), "Messages", &[credit(1, 4)]);
    behind.expect(taken(5), "Messages", &[credit(1, 5), Release]);
    behind.expect(taken(0), "Messages", &[credit(1, 0)]);
    behind.expect(block(7), "Messages", &[Deliver]);
    play(&[block(4), Choose(Messages)]).expect(PipeEnded, "Over", &[credit(1, 4)]);
    play(&[block(4), block(4), Choose(Messages)]).expect(
        block(1),
        "Over",
        &[credit(2, 8), Release, DropWaiting, Overflow],
    );
}

#[test]
fn a_stream_keeps_until_it_is_read() {
    let mut stream = play(&[Choose(Stream)]);
    stream.expect(block(9), "Stream", &[Keep, Readable]);
    stream.expect(block(9), "Stream", &[Keep]);
    stream.expect(block(9), "Stream", &[Keep, Hold]);
    stream.expect(Eof, "Stream", &[Keep]);
    stream.expect(taken(9), "Stream", &[credit(1, 9)]);
    stream.expect(taken(9), "Stream", &[credit(1, 9), Release]);
    stream.expect(taken(9), "Stream", &[credit(1, 9)]);
    stream.expect(Choose(Stream), "Stream", &[Reject]);
    stream.expect(taken(0), "Stream", &[credit(1, 0)]);
    stream.expect(taken(0), "Stream", &[]);
    stream.expect(PipeEnded, "Over", &[]);

    play(&[Choose(Stream)]).expect(Eof, "Stream", &[Keep, Readable]);
    let full = [Choose(Stream), block(20)];
    play(&full).expect(block(0), "Over", &[credit(1, 20), Release, DropWaiting, Overflow]);
    play(&full).expect(PipeEnded, "Over", &[credit(1, 20), Release]);
}

#[test]
fn discard_and_over() {
    let mut discard = play(&[Choose(Discard)]);
    discard.expect(block(99), "Discard", &[Drop]);
    discard.expect(Eof, "Discard", &[Drop]);
    discard.expect(taken(0), "Discard", &[]);
    discard.expect(Choose(Discard), "Discard", &[Reject]);
    discard.expect(PipeEnded, "Over", &[]);
    for event in Receiver::alphabet() {
        discard.expect(event, "Over", &[]);
    }
}

/// The 65th block, and what the default allows.
#[test]
fn the_default_room_is_64_blocks_or_256_kib() {
    let mut play = Play::<Receiver>::new(Config::default(), &[]);
    for _ in 0..63 {
        play.expect(block(0), "Undecided", &[Keep]);
    }
    play.expect(block(0), "Undecided", &[Keep, Hold]);
    play.expect(block(0), "Over", &[credit(64, 0), Release, DropWaiting, Overflow]);
}
