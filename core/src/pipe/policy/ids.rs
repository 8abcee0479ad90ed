//! Which pipe ids are in use, which were closed a short time ago, and which comes next (docs/protocols/pipe.md, Pipe ids).

use std::collections::VecDeque;

use crate::pipe::wire::message::PipeId;

/// How many ids a page has.
const PAGE: usize = 256;
/// How many pages a side has.
const PAGES: usize = 0x8000 / PAGE;

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<T> {
    /// No pipe has it.
    Free,
    /// No pipe has it, and one that this end closed had it a short time ago (PIP-7).
    Closed,
    /// This pipe has it.
    Used(T),
}

#[derive(Debug, Clone, Copy)]
enum Entry<T> {
    Free,
    /// With the number of its closing: an id may be closed again while an older closing of it is remembered.
    Closed(u64),
    Used(T),
}

#[derive(Debug, Clone)]
struct Page<T> {
    entries: Box<[Entry<T>; PAGE]>,
    used: usize,
    closed: usize,
}

impl<T: Copy> Page<T> {
    fn new() -> Self {
        Self { entries: Box::new([Entry::Free; PAGE]), used: 0, closed: 0 }
    }

    fn set(&mut self, index: usize, entry: Entry<T>) {
        if let Some(place) = self.entries.get_mut(index) {
            match *place {
                Entry::Free => {}
                Entry::Closed(_) => self.closed -= 1,
                Entry::Used(_) => self.used -= 1,
            }
            match entry {
                Entry::Free => {}
                Entry::Closed(_) => self.closed += 1,
                Entry::Used(_) => self.used += 1,
            }
            *place = entry;
        }
    }
}

/// The ids of one session, of both sides. A page of ids has memory while one of them is in use or remembered, so an idle session has next to none.
#[derive(Debug, Clone)]
pub struct Ids<T> {
    /// The bit of this side.
    side: u16,
    /// The id that was chosen last, without that bit.
    last: u16,
    /// Pages of the client's ids and of the server's.
    pages: [Vec<Option<Page<T>>>; 2],
    /// Ids of our side that are in use.
    used: usize,
    /// The latest closings, oldest first.
    closed: VecDeque<(PipeId, u64)>,
    closings: u64,
    remembered: usize,
}

impl<T: Copy> Ids<T> {
    /// All are free. `remembered` is how many closed ids are kept in mind.
    #[must_use]
    pub fn new(is_server: bool, remembered: usize) -> Self {
        Self {
            side: if is_server { PipeId::SERVER_BIT } else { 0 },
            last: if is_server { 0x7fff } else { 0 },
            pages: [Vec::new(), Vec::new()],
            used: 0,
            closed: VecDeque::new(),
            closings: 0,
            remembered,
        }
    }

    /// Whether the id belongs to this side (PID-1).
    #[must_use]
    pub fn is_ours(&self, id: PipeId) -> bool {
        id.get() & PipeId::SERVER_BIT == self.side
    }

    /// What is known of an id.
    #[must_use]
    pub fn get(&self, id: PipeId) -> Known<T> {
        let (side, page, index) = place(id);
        let page = self.pages.get(side).and_then(|pages| pages.get(page)).and_then(Option::as_ref);
        match page.and_then(|page| page.entries.get(index)) {
            None | Some(Entry::Free) => Known::Free,
            Some(Entry::Closed(_)) => Known::Closed,
            Some(Entry::Used(what)) => Known::Used(*what),
        }
    }

    /// The next free id of this side (PID-2); none when all are in use (PID-3). It is free until it is [used](Self::use_for).
    ///
    /// Pages that are full are passed over as a whole, so this takes some hundred steps at most, and one mostly.
    pub fn next_free(&mut self) -> Option<PipeId> {
        let ids = if self.side == 0 { 0x7fff } else { 0x8000 };
        if self.used >= ids {
            return None;
        }
        let mut low = self.last;
        // Each page once, and the first one twice: its ids behind the last and those before it.
        for _ in 0..=PAGES {
            let page = ((usize::from(low) + 1) & 0x7fff) / PAGE;
            let side = usize::from(self.side != 0);
            let is_full =
                matches!(self.pages.get(side).and_then(|pages| pages.get(page)), Some(Some(page)) if page.used == PAGE);
            if is_full {
                low = (page * PAGE + PAGE - 1) as u16;
                continue;
            }
            loop {
                low = (low + 1) & 0x7fff;
                let id = PipeId::new(low | self.side);
                if let Some(id) = id.filter(|id| !matches!(self.get(*id), Known::Used(_))) {
                    self.last = low;
                    return Some(id);
                }
                if usize::from(low) % PAGE == PAGE - 1 {
                    break;
                }
            }
        }
        None
    }

    /// A pipe has the id.
    pub fn use_for(&mut self, id: PipeId, what: T) {
        self.set(id, Entry::Used(what));
    }

    /// The pipe that has the id is over. If this end closed it, it is remembered for a while.
    pub fn free(&mut self, id: PipeId, is_remembered: bool) {
        if !is_remembered || self.remembered == 0 {
            self.set(id, Entry::Free);
            return;
        }
        self.closings += 1;
        self.set(id, Entry::Closed(self.closings));
        self.closed.push_back((id, self.closings));
        if self.closed.len() > self.remembered
            && let Some((oldest, closing)) = self.closed.pop_front()
            && self.entry(oldest).is_some_and(|entry| matches!(entry, Entry::Closed(of) if *of == closing))
        {
            self.set(oldest, Entry::Free);
        }
    }

    fn entry(&self, id: PipeId) -> Option<&Entry<T>> {
        let (side, page, index) = place(id);
        self.pages.get(side)?.get(page)?.as_ref()?.entries.get(index)
    }

    fn set(&mut self, id: PipeId, entry: Entry<T>) {
        let (side, at, index) = place(id);
        let is_ours = self.is_ours(id);
        let Some(pages) = self.pages.get_mut(side) else { return };
        if pages.len() <= at {
            pages.resize_with(at + 1, || None);
        }
        let Some(slot) = pages.get_mut(at) else { return };
        let page = slot.get_or_insert_with(Page::new);
        let before = page.used;
        page.set(index, entry);
        if is_ours {
            self.used = self.used + page.used - before;
        }
        if page.used + page.closed == 0 {
            *slot = None;
        }
    }
}

/// Side, page, and index in it.
fn place(id: PipeId) -> (usize, usize, usize) {
    let low = usize::from(id.get() & !PipeId::SERVER_BIT);
    (usize::from(id.is_server_side()), low / PAGE, low % PAGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(id: u16) -> PipeId {
        PipeId::new(id).unwrap()
    }

    fn take<T: Copy>(ids: &mut Ids<T>, what: T) -> Option<u16> {
        let id = ids.next_free()?;
        ids.use_for(id, what);
        Some(id.get())
    }

    #[test]
    fn each_side_counts_in_its_half() {
        let mut client = Ids::new(false, 8);
        assert_eq!([take(&mut client, 'a'), take(&mut client, 'b')], [Some(1), Some(2)]);
        let mut server = Ids::new(true, 8);
        assert_eq!([take(&mut server, 'a'), take(&mut server, 'b')], [Some(0x8000), Some(0x8001)]);
        assert!(client.is_ours(id(1)) && !client.is_ours(id(0x8000)) && server.is_ours(id(0x8000)));
        assert_eq!((client.get(id(2)), client.get(id(3))), (Known::Used('b'), Known::Free));
    }

    #[test]
    fn all_ids_can_be_in_use_and_then_there_is_none() {
        for (is_server, all, first) in [(false, 32_767, 1), (true, 32_768, 0x8000)] {
            let mut ids = Ids::new(is_server, 8);
            let taken: BTreeSet<u16> = (0..all).map(|nth| take(&mut ids, nth).unwrap()).collect();
            assert_eq!((taken.len(), taken.first().copied()), (all, Some(first)));
            assert!(taken.iter().all(|low| (low & 0x8000 != 0) == is_server));
            assert_eq!(take(&mut ids, 0), None);
            ids.free(id(first + 500), true);
            assert_eq!(take(&mut ids, 0), Some(first + 500), "a closed one is free");
            assert_eq!(take(&mut ids, 0), None);
        }
    }

    #[test]
    fn behind_the_last_comes_the_first_and_those_in_use_are_passed_over() {
        let mut ids = Ids::new(false, 0);
        ids.use_for(id(2), ());
        for _ in 0..32_766 {
            let taken = take(&mut ids, ()).unwrap();
            assert_ne!(taken, 2);
            ids.free(id(taken), false);
        }
        assert_eq!(take(&mut ids, ()), Some(1), "after 0x7fff");
        assert_eq!(take(&mut ids, ()), Some(3));
    }

    #[test]
    fn memory_is_only_for_what_is_known() {
        let mut ids = Ids::new(true, 4);
        for _ in 0..2000 {
            let taken = take(&mut ids, ()).unwrap();
            ids.free(id(taken), true);
        }
        assert_eq!(ids.pages.iter().flatten().flatten().count(), 1);
    }

    #[test]
    fn the_latest_closings_are_remembered() {
        let mut ids = Ids::new(false, 2);
        for low in [0x8000, 0x8001] {
            ids.use_for(id(low), ());
            ids.free(id(low), true);
        }
        assert_eq!([ids.get(id(0x8000)), ids.get(id(0x8001))], [Known::Closed; 2]);
        // Closed once more: the older closing of the same id, which is forgotten first, must not take this one with it.
        ids.use_for(id(0x8000), ());
        ids.free(id(0x8000), true);
        assert_eq!([ids.get(id(0x8000)), ids.get(id(0x8001))], [Known::Closed; 2]);
        ids.use_for(id(0x8002), ());
        ids.free(id(0x8002), true);
        assert_eq!([0x8000, 0x8001, 0x8002].map(|low| ids.get(id(low))), [Known::Closed, Known::Free, Known::Closed]);
        ids.use_for(id(0x8000), ());
        ids.free(id(0x8000), false);
        assert_eq!(ids.get(id(0x8000)), Known::Free, "the peer closed this one");
    }

    proptest! {
        /// An id is never given while it is in use, whoever uses it, and there is one as long as one is free.
        #[test]
        fn no_id_is_given_twice(steps in proptest::collection::vec((any::<bool>(), 0..40u16), 0..300)) {
            let mut ids = Ids::new(false, 3);
            // Few are left.
            for low in 33..0x8000 {
                ids.use_for(id(low), ());
            }
            let mut used = BTreeSet::new();
            for (take, low) in steps {
                if take {
                    match ids.next_free() {
                        Some(next) => {
                            prop_assert!(next.get() < 33 && used.insert(next.get()), "{next}");
                            ids.use_for(next, ());
                        }
                        None => prop_assert_eq!(used.len(), 32),
                    }
                } else if used.remove(&low) {
                    ids.free(id(low), low % 2 == 0);
                }
                prop_assert!((1..33).all(|low| used.contains(&low) == matches!(ids.get(id(low)), Known::Used(()))));
            }
        }
    }
}
