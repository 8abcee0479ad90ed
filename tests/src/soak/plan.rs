//! Which troubles come when: a plan that follows from a seed. Each lane has one trouble at a time, so that what must not come together
//! does not; different lanes go on side by side.

use std::{fmt, time::Duration};

use crate::random::Random;

/// The two hubs, the two providers, the two consumers: first or second.
pub type Which = usize;

/// One of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// A provider.
    Provider(Which),
    /// A consumer.
    Consumer(Which),
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(which) => write!(f, "p{}", which + 1),
            Self::Consumer(which) => write!(f, "c{}", which + 1),
        }
    }
}

/// What may go wrong, or be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// SIGKILL for a hub, and a new one after so long.
    HubKill(Which, Duration),
    /// SIGTERM, and a new one so long after its end.
    HubTerm(Which, Duration),
    /// SIGSTOP, and SIGCONT after so long.
    HubStop(Which, Duration),
    /// SIGKILL for both at once.
    BothKill(Duration),
    /// DNS does not list a hub for so long.
    Unlisted(Which, Duration),
    /// DNS lists nothing.
    Unnamed(Duration),
    /// DNS lists an address where nobody is, too.
    Stranger(Duration),
    /// DNS lists a second address of a hub, too.
    Alias(Duration),
    /// SIGSTOP for an agent, and SIGCONT after so long.
    AgentStop(Agent, Duration),
    /// SIGKILL for an agent, and a new one after so long.
    AgentKill(Agent, Duration),
    /// SIGTERM for an agent, and a new one beside it.
    AgentTerm(Agent),
    /// SIGHUP with another SPN_WEIGHT.
    Weight(Which, u16),
    /// A hub loads another inventory.
    Reload(Which, u64),
    /// The service is paused at a hub, and unpaused after so long.
    Pause(Which, Duration),
    /// An agent's address translator gives it another port towards a hub.
    Nat(Agent, Which),
}

impl Trouble {
    /// How tables and `--without` call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::HubKill(..) => "hub-kill",
            Self::HubTerm(..) => "hub-term",
            Self::HubStop(..) => "hub-stop",
            Self::BothKill(_) => "both-kill",
            Self::Unlisted(..) => "dns-unlisted",
            Self::Unnamed(_) => "dns-empty",
            Self::Stranger(_) => "dns-stranger",
            Self::Alias(_) => "dns-alias",
            Self::AgentStop(Agent::Provider(_), _) => "provider-stop",
            Self::AgentStop(Agent::Consumer(_), _) => "consumer-stop",
            Self::AgentKill(Agent::Provider(_), _) => "provider-kill",
            Self::AgentKill(Agent::Consumer(_), _) => "consumer-kill",
            Self::AgentTerm(Agent::Provider(_)) => "provider-term",
            Self::AgentTerm(Agent::Consumer(_)) => "consumer-term",
            Self::Weight(..) => "weight",
            Self::Reload(..) => "reload",
            Self::Pause(..) => "pause",
            Self::Nat(..) => "nat-port",
        }
    }

    /// Names, and what they mean in a table.
    pub const NAMES: [(&'static str, &'static str); 18] = [
        ("hub-kill", "a hub is killed, and is back after 0.2 to 8 s"),
        ("hub-term", "a hub drains (SIGTERM), and another one comes within 3 s"),
        ("hub-stop", "a hub stands still (SIGSTOP) for 1 to 30 s"),
        ("both-kill", "both hubs are killed, and are back after 0.2 to 3 s"),
        ("dns-unlisted", "a hub is not in DNS for 5 to 90 s"),
        ("dns-empty", "DNS has no address for 5 to 70 s"),
        ("dns-stranger", "DNS has an address where nobody is, for 20 to 90 s"),
        ("dns-alias", "DNS has a second address of a hub, for 20 to 90 s"),
        ("provider-stop", "a provider stands still for 1 to 30 s"),
        ("consumer-stop", "a consumer stands still for 1 to 30 s"),
        ("provider-kill", "a provider is killed, and is back after 0 to 10 s"),
        ("consumer-kill", "a consumer is killed, and is back after 0 to 10 s"),
        ("provider-term", "a provider ends (SIGTERM), another one takes over"),
        ("consumer-term", "a consumer ends (SIGTERM), another one takes over"),
        ("weight", "a provider's weight changes (SIGHUP)"),
        ("reload", "a hub loads a changed inventory (SIGUSR1 or ctl)"),
        ("pause", "the service is paused at a hub for 1 to 20 s (ctl)"),
        ("nat-port", "an agent's address changes on the way to a hub"),
    ];
}

/// A trouble, and how long its lane is quiet before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The quiet time.
    pub after: Duration,
    /// What comes then.
    pub trouble: Trouble,
}

/// Lanes: the troubles of one lane happen one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Hubs, and the names by which they are found: somebody is always there.
    Hubs,
    /// Agents: the other one of the role always is.
    Agents,
    /// What operators do.
    Operators,
    /// Addresses.
    Paths,
}

/// A plan.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
}

impl Plan {
    /// The steps of a lane, without an end.
    pub fn steps(self, lane: Lane) -> impl Iterator<Item = Step> {
        let mut random = Random::new(self.seed.wrapping_mul(31) + lane as u64);
        std::iter::from_fn(move || Some(step(lane, &mut random)))
    }
}

fn step(lane: Lane, random: &mut Random) -> Step {
    let mut ms = |least: u64, most: u64| Duration::from_millis(least + random.below(most - least));
    let (after, away, still, listed) = match lane {
        Lane::Hubs => (ms(4_000, 15_000), ms(200, 8_000), ms(1_000, 30_000), ms(5_000, 90_000)),
        Lane::Agents => (ms(10_000, 30_000), ms(0, 10_000), ms(1_000, 30_000), Duration::ZERO),
        Lane::Operators => (ms(5_000, 20_000), ms(1_000, 20_000), Duration::ZERO, Duration::ZERO),
        Lane::Paths => (ms(5_000, 40_000), Duration::ZERO, Duration::ZERO, Duration::ZERO),
    };
    let (which, dice) = (random.below(2) as Which, random.below(100));
    let agent = if random.chance(50) { Agent::Provider(which) } else { Agent::Consumer(which) };
    let trouble = match lane {
        Lane::Hubs => match dice {
            0..30 => Trouble::HubKill(which, away),
            30..50 => Trouble::HubTerm(which, away.min(Duration::from_secs(3))),
            50..72 => Trouble::HubStop(which, still),
            72..80 => Trouble::BothKill(away.min(Duration::from_secs(3))),
            80..88 => Trouble::Unlisted(which, listed),
            88..92 => Trouble::Unnamed(listed.min(Duration::from_secs(70))),
            92..96 => Trouble::Stranger(listed.max(Duration::from_secs(20))),
            _ => Trouble::Alias(listed.max(Duration::from_secs(20))),
        },
        Lane::Agents => match dice {
            0..60 => Trouble::AgentStop(agent, still),
            60..80 => Trouble::AgentKill(agent, away),
            _ => Trouble::AgentTerm(agent),
        },
        Lane::Operators => match dice {
            0..40 => Trouble::Weight(which, [1, 10, 50, 100, 100, 200, 65_535][random.below(7) as usize]),
            40..70 => Trouble::Reload(which, random.below(200)),
            _ => Trouble::Pause(which, away),
        },
        Lane::Paths => {
            let agent = if random.chance(50) { Agent::Provider(1) } else { Agent::Consumer(1) };
            Trouble::Nat(agent, which)
        }
    };
    Step { after, trouble }
}

/// A trouble that has happened.
#[derive(Debug, Clone)]
pub struct Past {
    /// What it was.
    pub trouble: Trouble,
    /// When it began.
    pub began: tokio::time::Instant,
    /// When everything was as before; for an agent that drains: when its process had ended.
    pub ended: tokio::time::Instant,
    /// How long it took from then until all agents had their sessions with the hub again; `None` if that was not looked at.
    pub back: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_all_troubles_come() {
        let lanes = [Lane::Hubs, Lane::Agents, Lane::Operators, Lane::Paths];
        let plan = |seed| -> Vec<Step> { lanes.iter().flat_map(|&lane| Plan { seed }.steps(lane).take(300)).collect() };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let came: BTreeSet<_> = plan(1).iter().map(|step| step.trouble.name()).collect();
        assert_eq!(came, Trouble::NAMES.iter().map(|(name, _)| *name).collect());
        for step in plan(1) {
            // A new connection waits 10 s for a hub, and no longer.
            if let Trouble::BothKill(away) = step.trouble {
                assert!(away <= Duration::from_secs(3));
            }
        }
    }
}
