//! Which provider gets a connection (docs/protocols/spn.md, Choosing a provider, PRV-7).

/// A provider session that could take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its weight; 0 takes none.
    pub weight: u16,
    /// Its open connections.
    pub open: u32,
}

/// The candidate with the largest `d = N·w − a·W`: the one that is furthest below its share after this connection.
/// Ties go to the larger weight, then to fewest connections, then to the first (list the oldest first). `None` when all weights are 0.
///
/// ```
/// use towline_core::spn::hub::policy::balance::{Candidate, choose};
///
/// let heavy = Candidate { weight: 100, open: 2 };
/// let light = Candidate { weight: 50, open: 0 };
/// assert_eq!(choose([heavy, light].into_iter()), Some(1));
/// ```
pub fn choose(candidates: impl Iterator<Item = Candidate> + Clone) -> Option<usize> {
    let weighted = candidates.enumerate().filter(|(_, candidate)| candidate.weight > 0);
    let (mut weights, mut connections) = (0i128, 1i128);
    for (_, candidate) in weighted.clone() {
        weights += i128::from(candidate.weight);
        connections += i128::from(candidate.open);
    }
    let mut best: Option<(usize, i128, Candidate)> = None;
    for (index, candidate) in weighted {
        let due = connections * i128::from(candidate.weight) - i128::from(candidate.open) * weights;
        let is_better = best
            .is_none_or(|(_, most, other)| (due, candidate.weight, other.open) > (most, other.weight, candidate.open));
        if is_better {
            best = Some((index, due, candidate));
        }
    }
    best.map(|(index, _, _)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Who gets each of `count` connections, none of which ends.
    fn deal(candidates: &mut [Candidate], count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| {
                let chosen = choose(candidates.iter().copied()).expect("someone takes it");
                candidates[chosen].open += 1;
                chosen
            })
            .collect()
    }

    fn candidates(of: &[(u16, u32)]) -> Vec<Candidate> {
        of.iter().map(|&(weight, open)| Candidate { weight, open }).collect()
    }

    #[test]
    fn two_to_one() {
        assert_eq!(deal(&mut candidates(&[(100, 0), (50, 0)]), 6), [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn a_newcomer_catches_up_and_then_they_alternate() {
        let dealt = deal(&mut candidates(&[(100, 5), (100, 0)]), 9);
        assert_eq!(dealt[..5], [1; 5]);
        assert_eq!(dealt[5..], [0, 1, 0, 1]);
    }

    #[test]
    fn weight_zero_takes_nothing() {
        assert_eq!(deal(&mut candidates(&[(100, 0), (0, 0)]), 5), [0; 5]);
        assert_eq!(choose(candidates(&[(0, 0), (0, 3)]).into_iter()), None);
        assert_eq!(choose(candidates(&[]).into_iter()), None);
    }

    proptest! {
        #[test]
        fn equal_weights_are_least_connections(opens in proptest::collection::vec(0u32..1000, 1..20), weight in 1u16..) {
            let chosen = choose(opens.iter().map(|&open| Candidate { weight, open })).unwrap();
            prop_assert_eq!(opens[chosen], *opens.iter().min().unwrap());
        }

        #[test]
        fn extremes_do_not_overflow(of in proptest::collection::vec((any::<u16>(), any::<u32>()), 0..50)) {
            let any_weight = of.iter().any(|(weight, _)| *weight > 0);
            prop_assert_eq!(choose(candidates(&of).into_iter()).is_some(), any_weight);
        }
    }
}
