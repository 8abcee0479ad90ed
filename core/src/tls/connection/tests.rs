use super::*;
use crate::{machine::Inspect as _, machine::Machine as _, testing::first_instant};

/// Events of a new machine, and what it asks for after the last of them.
fn run(events: &[Event]) -> (Connection, Vec<Action>) {
    let mut machine = Connection::new(Config::default());
    let mut actions = Vec::new();
    for event in events {
        machine.handle_event(first_instant(), event.clone());
        actions = std::iter::from_fn(|| machine.poll_action()).collect();
    }
    (machine, actions)
}

const FIN: Event = Event::Close { how: Close::Fin };
const RESET: Event = Event::WireError { fault: Fault::Reset };

#[track_caller]
fn expect(events: &[Event], state: &str, actions: &[Action]) {
    let (machine, found) = run(events);
    assert_eq!((machine.state(), &*found), (state, actions), "{events:?}");
    machine.check().unwrap();
}

/// The same, and what the machine asks for when the timer of its state fires.
#[track_caller]
fn expect_late(events: &[Event], state: &str, actions: &[Action]) {
    let (mut machine, _) = run(events);
    let due = machine.poll_timeout().expect("a timer");
    machine.handle_timeout(due);
    let found: Vec<_> = std::iter::from_fn(|| machine.poll_action()).collect();
    assert_eq!((machine.state(), &*found), (state, actions), "{events:?}");
    machine.check().unwrap();
}

#[test]
fn a_connection_that_came_in() {
    use Action::*;
    let refused = |fault| ReportHandshakeFailed { fault };
    let cut = CloseWire { how: Close::Abort };
    expect(&[Event::Accepted], "AcceptHandshake", &[StartHandshake]);
    expect(&[Event::Accepted, Event::Secured], "Secured", &[Offer]);
    expect(&[Event::Accepted, Event::Secured, Event::Admitted], "Open", &[]);
    expect(&[Event::Accepted, Event::Secured, RESET], "Closed", &[refused(Fault::Reset), cut.clone()]);
    expect(&[Event::Accepted, Event::Secured, Event::GiveWay], "Closed", std::slice::from_ref(&cut));
    expect(&[Event::Accepted, Event::Refused], "Closing", &[refused(Fault::Tls), Flush]);
    expect(&[Event::Accepted, Event::Refused, Event::Flushed], "Closed", &[CloseWire { how: Close::Fin }]);
    expect(&[Event::Accepted, Event::PeerClosed], "Closed", &[refused(Fault::Reset), cut.clone()]);
    expect(&[Event::Accepted, Event::WireEnd], "Closed", &[refused(Fault::Reset), cut.clone()]);
    expect(&[Event::Accepted, RESET], "Closed", &[refused(Fault::Reset), cut.clone()]);
    expect(&[Event::Accepted, Event::GiveWay], "Closed", &[refused(Fault::TimedOut), cut.clone()]);
    expect_late(&[Event::Accepted], "Closed", &[refused(Fault::TimedOut), cut]);
}

#[test]
fn a_connection_that_is_dialled() {
    use Action::*;
    let failed = |fault| [ReportHandshakeFailed { fault }, ReportConnectFailed { fault }];
    let dialled = [Event::Dial, Event::Connected];
    let then = |event: Event| [&dialled[..], &[event]].concat();
    expect(&dialled[..1], "Dialing", &[]);
    expect(&[Event::Dial, FIN], "Closed", &[CloseWire { how: Close::Abort }]);
    expect(&dialled, "DialHandshake", &[StartHandshake]);
    expect(&then(Event::Secured), "Open", &[ReportConnected]);
    expect(&then(Event::Refused), "Failed", &failed(Fault::Tls));
    expect(&then(Event::PeerClosed), "Failed", &failed(Fault::Reset));
    expect(&then(Event::WireEnd), "Failed", &failed(Fault::Reset));
    expect(&then(RESET), "Failed", &failed(Fault::Reset));
    expect(&then(FIN), "Closing", &[Flush]);
    expect_late(&dialled, "Failed", &failed(Fault::TimedOut));
    expect(&[&then(Event::Refused)[..], &[FIN]].concat(), "Closing", &[Flush]);
}

#[test]
fn the_ends_of_an_open_connection() {
    use Action::*;
    let open = [Event::Dial, Event::Connected, Event::Secured];
    let then = |events: &[Event]| [&open[..], events].concat();
    let abort = Event::Close { how: Close::Abort };
    expect(&then(&[Event::PeerClosed]), "ReadClosed", &[ReportEnd]);
    expect(&then(&[Event::PeerClosed, Event::PeerClosed]), "ReadClosed", &[]);
    // The transport of a direction that has ended in good order may end as it likes.
    expect(&then(&[Event::PeerClosed, Event::WireEnd]), "ReadClosed", &[]);
    expect(&then(&[Event::WireEnd]), "Failed", &[ReportError { fault: Fault::Reset }]);
    expect(&then(&[Event::Refused]), "Failed", &[ReportError { fault: Fault::Tls }]);
    expect(&then(&[RESET]), "Failed", &[ReportError { fault: Fault::Reset }]);
    expect(&then(&[Event::PeerClosed, RESET]), "Failed", &[ReportError { fault: Fault::Reset }]);
    expect(&then(std::slice::from_ref(&abort)), "Closed", &[CloseWire { how: Close::Abort }]);
    expect(&then(&[FIN]), "Closing", &[SendCloseNotify, Flush]);
    expect(&then(&[Event::PeerClosed, FIN]), "Closing", &[SendCloseNotify, Flush]);
    expect(&then(&[FIN, Event::Flushed]), "Closed", &[CloseWire { how: Close::Fin }]);
    expect(&then(&[FIN, RESET]), "Closed", &[CloseWire { how: Close::Abort }]);
    expect(&then(&[FIN, Event::Flushed, RESET]), "Closed", &[]);
    expect_late(&then(&[FIN]), "Closed", &[CloseWire { how: Close::Abort }]);
}
