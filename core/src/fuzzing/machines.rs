//! Every machine there is, with events from its alphabet.

use crate::tools::catalog::catalog;

/// The first byte picks the machine.
pub(super) fn run(data: &[u8]) {
    let Some((&which, steps)) = data.split_first() else { return };
    let machines = catalog();
    machines[usize::from(which) % machines.len()].fuzz(steps);
}
