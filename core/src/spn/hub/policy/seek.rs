//! Which providers may have a connection that was never confirmed, and whether they have it
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-1 to SEK-3).
//!
//! A consumer must know every provider that could have its connections, or it could not conclude later that none of them has one. So a provider
//! that comes gets none of its connections before PROVIDERS, which names it, has been answered.

use std::collections::BTreeMap;

use crate::{
    quic::Handle,
    spn::wire::frame::{Flags, Frame, MAX_LIST},
};

/// The consumers' sessions that are sent the lists of providers, each with the newest list that it has acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    acknowledged: BTreeMap<Handle, u64>,
}

impl Listeners {
    /// A session is sent lists from now on.
    pub(crate) fn add(&mut self, session: Handle) {
        self.acknowledged.insert(session, 0);
    }

    /// A session has acknowledged a list; none is newer than `newest`. Says whether it is sent any.
    pub(crate) fn acknowledge(&mut self, session: Handle, number: u64, newest: u64) -> bool {
        let Some(known) = self.acknowledged.get_mut(&session) else { return false };
        *known = number.min(newest).max(*known);
        true
    }

    /// The newest list that limits which provider a session's connections get. A session that is sent no lists is not limited.
    pub(crate) fn newest_known(&self, session: Handle) -> u64 {
        self.acknowledged.get(&session).copied().unwrap_or(u64::MAX)
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = Handle> {
        self.acknowledged.keys().copied()
    }

    /// A session has ended.
    pub(crate) fn forget(&mut self, session: Handle) {
        self.acknowledged.remove(&session);
    }
}

/// What PROVIDERS says of the providers of a service. A provider that can be asked has its instance id, another one that is listed is among "others".
pub(crate) fn list_frame(number: u64, of_service: impl Iterator<Item = (bool, Option<[u8; 16]>)>) -> Frame {
    let (mut instances, mut retiring, mut flags) = (Vec::new(), Vec::new(), Flags::NONE);
    for (is_listed, instance) in of_service {
        let list = if is_listed { &mut instances } else { &mut retiring };
        match instance.filter(|_| list.len() < MAX_LIST as usize) {
            Some(instance) => list.push(instance),
            None if is_listed => flags = Flags::OTHERS,
            None => {}
        }
    }
    Frame::Providers { number, flags, instances, retiring }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_knows_what_it_has_acknowledged_and_no_more() {
        let (seeks, plain) = (Handle::of_test(1), Handle::of_test(2));
        let mut listeners = Listeners::default();
        listeners.add(seeks);
        assert_eq!((listeners.newest_known(seeks), listeners.newest_known(plain)), (0, u64::MAX));
        assert!(listeners.acknowledge(seeks, 3, 5) && !listeners.acknowledge(plain, 3, 5));
        listeners.acknowledge(seeks, 2, 5);
        assert_eq!(listeners.newest_known(seeks), 3, "an older answer is late");
        listeners.acknowledge(seeks, 9, 5);
        assert_eq!(listeners.newest_known(seeks), 5, "there is no newer list");
        assert_eq!(listeners.sessions().collect::<Vec<_>>(), [seeks]);
        listeners.forget(seeks);
        assert_eq!(listeners.newest_known(seeks), u64::MAX);
    }

    #[test]
    fn a_list_names_whom_it_can_and_says_that_there_are_others() {
        let instance = |n: u8| Some([n; 16]);
        let of_service = [(true, instance(1)), (false, instance(2)), (false, None), (true, instance(3))];
        let (instances, retiring) = (vec![[1; 16], [3; 16]], vec![[2; 16]]);
        let list = Frame::Providers { number: 7, flags: Flags::NONE, instances, retiring };
        assert_eq!(list_frame(7, of_service.into_iter()), list);
        let cannot_be_asked = Frame::Providers { number: 7, flags: Flags::OTHERS, instances: vec![], retiring: vec![] };
        assert_eq!(list_frame(7, [(true, None)].into_iter()), cannot_be_asked);
        let most = MAX_LIST as usize;
        match list_frame(7, std::iter::repeat_n((true, instance(1)), most + 1)) {
            Frame::Providers { flags: Flags::OTHERS, instances, .. } => assert_eq!(instances.len(), most),
            other => panic!("{other:?}"),
        }
    }
}
