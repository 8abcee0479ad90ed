//! The verdict on each connection, the limit that explains it, and the table of all verdicts.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    books::{Books, End, Entry, Kind},
    plan::{Agent, Past, Trouble},
};

/// A limit that explains a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// The provider's process was killed, and the bytes that it kept are lost. The other end is reset after `--pause-max`.
    ProviderKilled,
    /// The consumer's process was killed.
    ConsumerKilled,
    /// The provider got SIGTERM, and its time limit (30 s) has passed.
    ProviderDrained,
    /// The same for the consumer.
    ConsumerDrained,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ProviderKilled, Self::ConsumerKilled, Self::ProviderDrained, Self::ConsumerDrained];

    /// The head of its column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProviderKilled => "provider killed",
            Self::ConsumerKilled => "consumer killed",
            Self::ProviderDrained => "provider's 30 s",
            Self::ConsumerDrained => "consumer's 30 s",
        }
    }
}

/// The verdict on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Clean at both ends, and all bytes equal.
    Equal,
    /// A reset that is explained.
    Explained(Limit),
    /// One that is not.
    Unexplained,
    /// Bytes that are not what was sent, or a clean end where there is none.
    Wrong,
    /// The connection hung.
    Hung,
}

/// A session without a packet for so long is lost.
const IDLE: Duration = Duration::from_secs(20);
/// Programs notice a signal within this.
const SOON: Duration = Duration::from_millis(500);
/// An agent waits so long for its connections after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);
/// The longest that the loss of a process can take to reach the other end: the idle time-out, `--pause-max`, an agent that stands
/// still meanwhile, an end that sleeps between two bursts, and some time.
const LAST: Duration = Duration::from_secs(IDLE.as_secs() + 120 + 30 + 30 + 15);
/// A provider that dies may have received connections of which nobody else knows: those of this time before, and those until a hub that goes
/// as long before or after has gone.
const TOGETHER: Duration = Duration::from_secs(5);
/// Such a connection waits for its provider's answer at least this long: `--pause-max`, less the time until its hub was missed.
const UNANSWERED: Duration = Duration::from_secs(110);

/// The verdict on a connection, given all troubles.
#[must_use]
pub fn verdict(entry: &Entry, past: &[Past]) -> Verdict {
    if entry.is_twice.is_some() || entry.ends().any(|(_, end)| matches!(end, End::Wrong(..))) {
        return Verdict::Wrong;
    }
    if entry.ends().any(|(_, end)| matches!(end, End::Hung(_) | End::Open)) {
        return Verdict::Hung;
    }
    let resets = entry.ends().filter_map(|(_, end)| if let End::Reset(at, _) = end { Some(*at) } else { None });
    match resets.min() {
        Some(at) => {
            past.iter().find_map(|one| explain(entry, at, one, past)).map_or(Verdict::Unexplained, Verdict::Explained)
        }
        None if entry.service.is_none() => Verdict::Wrong,
        None => Verdict::Equal,
    }
}

/// The limit that explains why this connection was reset then: `past` is what happened, among `all` troubles.
fn explain(entry: &Entry, at: Instant, past: &Past, all: &[Past]) -> Option<Limit> {
    let (agent, is_kill) = match past.trouble {
        Trouble::AgentKill(agent, _) => (agent, true),
        Trouble::AgentTerm(agent) => (agent, false),
        _ => return None,
    };
    // It was that process which carried the connection.
    let began = past.began + SOON;
    let is_its = match agent {
        Agent::Consumer(which) => entry.consumer == which && entry.begun <= began,
        Agent::Provider(which) => match &entry.service {
            // A hub that stood still may deliver a connection to a provider that is already ending.
            Some(served) => served.provider == which && served.accepted <= if is_kill { began } else { past.ended },
            None => is_kill && may_have_died_with(entry, at, past, all),
        },
    };
    if !is_its || at < past.began || at > past.began + LAST {
        return None;
    }
    match (agent, is_kill) {
        // It may take no shorter time, whatever its hubs do.
        (_, false) if at < past.began + DRAIN - SOON => None,
        (Agent::Provider(_), true) => Some(Limit::ProviderKilled),
        (Agent::Provider(_), false) => Some(Limit::ProviderDrained),
        (Agent::Consumer(_), true) => Some(Limit::ConsumerKilled),
        (Agent::Consumer(_), false) => Some(Limit::ConsumerDrained),
    }
}

/// Whether the provider that was killed may have received this connection, which no service has seen: then the consumer waits for an answer
/// that never comes. A hub that leaves or pauses at about the same time does not find out that the provider is silent.
fn may_have_died_with(entry: &Entry, at: Instant, provider: &Past, all: &[Past]) -> bool {
    let is_leave = |past: &&Past| match past.trouble {
        Trouble::HubKill(..) | Trouble::HubTerm(..) | Trouble::BothKill(_) | Trouble::Pause(..) => true,
        // Its sessions are lost in that time.
        Trouble::HubStop(_, time) => time >= IDLE,
        _ => false,
    };
    let is_near = |past: &&Past| past.began + TOGETHER >= provider.began && past.began <= provider.began + TOGETHER;
    let times = all.iter().filter(is_leave).filter(is_near).map(|past| past.began).chain([provider.began]);
    let (first, last) = times.fold((at, provider.began), |(first, last), time| (first.min(time), last.max(time)));
    entry.begun + TOGETHER >= first && entry.begun <= last + SOON && at >= entry.begun + UNANSWERED
}

/// One line of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Connections.
    pub begun: u64,
    /// Of them.
    pub equal: u64,
    /// Resets, by what explains them.
    pub explained: BTreeMap<Limit, u64>,
    /// Resets that nothing explains.
    pub unexplained: u64,
    /// Wrong bytes, or wrong ends.
    pub wrong: u64,
    /// No end at all.
    pub hung: u64,
    /// Bytes that were compared, and right.
    pub bytes: u64,
}

impl Line {
    fn count(&mut self, entry: &Entry, verdict: &Verdict) {
        self.begun += 1;
        self.bytes += entry.received.iter().sum::<u64>();
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Explained(limit) => *self.explained.entry(*limit).or_default() += 1,
            Verdict::Unexplained => self.unexplained += 1,
            Verdict::Wrong => self.wrong += 1,
            Verdict::Hung => self.hung += 1,
        }
    }

    /// Faults among them.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.unexplained + self.wrong + self.hung
    }
}

/// All verdicts.
#[derive(Debug, Default)]
pub struct Tally {
    /// By kind.
    pub kinds: BTreeMap<Kind, Line>,
    /// Together.
    pub all: Line,
    /// TCP connections of services that ended in order before their number came, or brought one that is somebody else's.
    pub strays: u64,
    /// Those that were reset before: nothing was served on them.
    pub silent: u64,
    /// The description of each fault.
    pub faults: Vec<String>,
}

impl Tally {
    /// Counts everything.
    #[must_use]
    pub fn new(books: &Books, past: &[Past], start: Instant) -> Self {
        let mut tally = Self { silent: books.silent_ones(), ..Self::default() };
        books.entries(|entries| {
            for (number, entry) in entries.iter().enumerate() {
                let verdict = verdict(entry, past);
                tally.kinds.entry(entry.kind).or_default().count(entry, &verdict);
                tally.all.count(entry, &verdict);
                if !matches!(verdict, Verdict::Equal | Verdict::Explained(_)) {
                    tally.faults.push(describe_fault(number, entry, &verdict, past, start));
                }
            }
        });
        books.strays(|strays| {
            tally.strays = strays.len() as u64;
            for (at, provider, what) in strays {
                let at = seconds(*at, start);
                tally.faults.push(format!("a stray connection of p{} at {at:.1} s: {what}", provider + 1));
            }
        });
        tally
    }

    /// Whether there is no fault.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.all.faults() + self.strays == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| connections | begun | equal | MB compared |")?;
        for limit in Limit::ALL {
            write!(f, " reset: {} |", limit.name())?;
        }
        writeln!(f, " reset: unexplained | wrong | hung |")?;
        writeln!(f, "|---|{}", "---:|".repeat(6 + Limit::ALL.len()))?;
        let lines = self.kinds.iter().map(|(kind, line)| (kind.name(), line)).chain([("**all**", &self.all)]);
        for (name, line) in lines {
            write!(f, "| {name} | {} | {} | {} |", line.begun, line.equal, line.bytes / 1_000_000)?;
            for limit in Limit::ALL {
                write!(f, " {} |", line.explained.get(&limit).copied().unwrap_or_default())?;
            }
            writeln!(f, " {} | {} | {} |", line.unexplained, line.wrong, line.hung)?;
        }
        if self.strays + self.silent > 0 {
            writeln!(f)?;
            writeln!(
                f,
                "TCP connections at a service without a number: {} reset, {} ended in order or not their own (faults).",
                self.silent, self.strays
            )?;
        }
        Ok(())
    }
}

fn seconds(at: Instant, start: Instant) -> f64 {
    at.saturating_duration_since(start).as_secs_f64()
}

/// A fault, with what happened in the two minutes before it.
fn describe_fault(number: usize, entry: &Entry, verdict: &Verdict, past: &[Past], start: Instant) -> String {
    let mut text = format!("#{number} {verdict:?}: {}, c{}", entry.kind.name(), entry.consumer + 1);
    match &entry.service {
        Some(served) => {
            let _ = write!(text, ", p{} since {:.1} s", served.provider + 1, seconds(served.accepted, start));
        }
        None => text += ", no service",
    }
    let _ = write!(text, ", begun {:.1} s; ", seconds(entry.begun, start));
    let mut first = None::<Instant>;
    for (name, end) in entry.ends() {
        let (at, what) = match end {
            End::Open => (entry.moved, "goes on".to_owned()),
            End::Clean(at) => (*at, "clean".to_owned()),
            End::Reset(at, what) => (*at, format!("reset ({what})")),
            End::Wrong(at, what) => (*at, format!("WRONG ({what})")),
            End::Hung(at) => (*at, "hangs since".to_owned()),
        };
        if !matches!(end, End::Clean(_)) {
            first = Some(first.map_or(at, |first| first.min(at)));
        }
        let _ = write!(text, "{name} {what} at {:.1} s; ", seconds(at, start));
    }
    if let Some(at) = entry.is_twice {
        let _ = write!(text, "served twice at {:.1} s; ", seconds(at, start));
        first = first.or(Some(at));
    }
    for (name, way) in [("up", 0), ("down", 1)] {
        let whole = entry.whole[way].map_or("?".to_owned(), |whole| whole.to_string());
        let _ = write!(text, "{name} {}/{}/{whole}; ", entry.received[way], entry.sent[way]);
    }
    let until = first.unwrap_or(entry.moved);
    let from = until.checked_sub(Duration::from_secs(150)).unwrap_or(start);
    let near = past.iter().filter(|past| past.began <= until && past.ended >= from.min(entry.begun).max(from));
    for past in near {
        if !matches!(past.trouble, Trouble::Weight(..) | Trouble::Reload(..)) {
            let _ = write!(
                text,
                "[{:?} {:.1}–{:.1} s] ",
                past.trouble,
                seconds(past.began, start),
                seconds(past.ended, start)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: Trouble = Trouble::AgentKill(Agent::Provider(0), Duration::ZERO);
    const HUB: Trouble = Trouble::HubKill(0, Duration::ZERO);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn past(trouble: Trouble, began: Instant, ended: Instant) -> Past {
        Past { trouble, began, ended, back: None }
    }

    /// The verdict on a connection that begins at `start`, reaches a service of the first provider then, and is reset.
    fn judge(start: Instant, accepted: Option<u64>, reset: u64, troubles: &[Past]) -> Verdict {
        let books = Books::default();
        let number = books.begin(Kind::Short, 0);
        if let Some(accepted) = accepted {
            books.serve(number, 0, at(start, accepted)).expect("the first service");
        }
        for is_client in [true, false] {
            books.over(number, is_client, End::Reset(at(start, reset), "reset".to_owned()));
        }
        books.entries(|entries| entries.iter().map(|entry| verdict(entry, troubles)).next().expect("one connection"))
    }

    #[test]
    fn a_provider_that_dies_with_its_hub_explains_what_nobody_served() {
        let begun = Instant::now();
        // The provider dies, and a connection begins 2 s later.
        let start = begun.checked_sub(Duration::from_secs(2)).unwrap_or(begun);
        let killed = |hub: u64| [past(PROVIDER, start, at(start, 5)), past(HUB, at(start, hub), at(start, hub + 5))];
        let judge = |accepted, reset, troubles: &[Past]| judge(begun, accepted, reset, troubles);
        assert_eq!(judge(None, 121, &killed(3)), Verdict::Explained(Limit::ProviderKilled));
        assert_eq!(judge(None, 121, &killed(8)), Verdict::Unexplained, "the hub died too late");
        assert_eq!(judge(None, 60, &killed(3)), Verdict::Unexplained, "nobody waited for an answer");
        assert_eq!(judge(None, 121, &killed(3)[..1]), Verdict::Unexplained, "the hub lives");
        assert_eq!(judge(None, 121, &killed(3)[1..]), Verdict::Unexplained, "the provider lives");
        let stopped = |seconds| {
            let stop = Trouble::HubStop(0, Duration::from_secs(seconds));
            [past(PROVIDER, start, at(start, 5)), past(stop, at(start, 3), at(start, 3 + seconds))]
        };
        assert_eq!(judge(None, 121, &stopped(25)), Verdict::Explained(Limit::ProviderKilled));
        assert_eq!(judge(None, 121, &stopped(10)), Verdict::Unexplained, "its sessions outlive that");
        let later = [past(PROVIDER, at(begun, 3), at(begun, 8))];
        assert_eq!(judge(None, 121, &later), Verdict::Explained(Limit::ProviderKilled), "it had 3 s to receive it");
    }

    #[test]
    fn what_a_provider_received_while_it_ended_may_be_reset_after_its_time() {
        let start = Instant::now();
        let term = [past(Trouble::AgentTerm(Agent::Provider(0)), start, at(start, 31))];
        assert_eq!(judge(start, Some(2), 30, &term), Verdict::Explained(Limit::ProviderDrained));
        assert_eq!(judge(start, Some(2), 20, &term), Verdict::Unexplained, "too early");
        assert_eq!(judge(start, Some(40), 45, &term), Verdict::Unexplained, "its successor's");
        let kill = [past(PROVIDER, start, at(start, 31))];
        assert_eq!(judge(start, Some(2), 30, &kill), Verdict::Unexplained, "nobody receives anything after SIGKILL");
    }
}
