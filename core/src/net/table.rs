//! Values by numbers that are not used again.

use std::marker::PhantomData;

/// A table that numbers its values: connections, or whatever else has a number of type `K`.
///
/// A number is a place and a generation. Places are used again, so tables stay small; a number is not, so an old one finds nothing.
#[derive(Debug, Clone)]
pub struct Table<K, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    keys: PhantomData<fn(K) -> K>,
}

#[derive(Debug, Clone)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), keys: PhantomData }
    }
}

impl<K: Copy + From<u64> + Into<u64>, T> Table<K, T> {
    /// Adds a value; returns its number.
    pub fn insert(&mut self, value: T) -> K {
        self.insert_with(|_| value)
    }

    /// Adds a value that is made from its number; returns the number.
    pub fn insert_with(&mut self, make: impl FnOnce(K) -> T) -> K {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            self.slots.len() as u32 - 1
        });
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        let value = make(key(index, generation));
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.value = Some(value);
        }
        key(index, generation)
    }

    /// The value with this number.
    #[must_use]
    pub fn get(&self, key: K) -> Option<&T> {
        let (index, generation) = parts(key);
        self.slots.get(index as usize).filter(|slot| slot.generation == generation)?.value.as_ref()
    }

    /// The value with this number, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (index, generation) = parts(key);
        self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?.value.as_mut()
    }

    /// Whether there is a value with this number.
    #[must_use]
    pub fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Takes a value out of the table. Its number finds nothing from here on.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let (index, generation) = parts(key);
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values with their numbers, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots.iter().zip(0..).filter_map(|(slot, index)| Some((key(index, slot.generation), slot.value.as_ref()?)))
    }
}

fn key<K: From<u64>>(index: u32, generation: u32) -> K {
    K::from(u64::from(generation) << 32 | u64::from(index))
}

fn parts(key: impl Into<u64>) -> (u32, u32) {
    let number = key.into();
    ((number & u64::from(u32::MAX)) as u32, (number >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ConnId;

    #[test]
    fn places_are_used_again_and_numbers_are_not() {
        let mut table = Table::<ConnId, char>::default();
        let (a, b) = (table.insert('a'), table.insert('b'));
        assert_eq!((a.index(), b.index(), table.len()), (0, 1, 2));
        assert_eq!(table.remove(a), Some('a'));
        assert_eq!((table.remove(a), table.get(a), table.len()), (None, None, 1));
        let c = table.insert_with(|key: ConnId| if key.index() == 0 { 'c' } else { 'd' });
        assert_eq!(c.index(), 0, "the place of the first");
        assert!(c != a && !table.contains(a) && table.get_mut(a).is_none());
        assert_eq!(table.get(c), Some(&'c'));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(c, &'c'), (b, &'b')]);
        assert_eq!(ConnId::from(u64::from(c)), c);
    }

    #[test]
    fn a_number_of_another_table_finds_nothing() {
        let mut table = Table::<ConnId, ()>::default();
        assert!(table.get(ConnId::from(7)).is_none() && table.remove(ConnId::from(u64::MAX)).is_none());
        assert!(table.is_empty());
    }
}
