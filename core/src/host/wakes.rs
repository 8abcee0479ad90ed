//! Which connections have become ready, for one loop that serves them all.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// The ready connections of one loop, each at most once. `K` names a connection.
#[derive(Debug)]
pub struct Wakes<K>(Mutex<Ready<K>>);

#[derive(Debug)]
struct Ready<K> {
    keys: Vec<K>,
    driver: Option<Waker>,
}

/// Wakes one connection.
#[derive(Debug)]
struct ConnWake<K> {
    key: K,
    is_queued: AtomicBool,
    wakes: Arc<Wakes<K>>,
}

/// A connection's place among the wakes.
#[derive(Debug)]
pub struct ConnWaker<K> {
    wake: Arc<ConnWake<K>>,
    waker: Waker,
}

impl<K> Default for Wakes<K> {
    fn default() -> Self {
        Self(Mutex::new(Ready { keys: Vec::new(), driver: None }))
    }
}

impl<K> Wakes<K> {
    /// Says whom to wake when a connection becomes ready.
    pub fn register(&self, driver: &Waker) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.driver.as_ref().is_some_and(|old| old.will_wake(driver)) {
            ready.driver = Some(driver.clone());
        }
    }

    /// Takes all that are ready, in exchange for an empty list.
    pub fn take(&self, keys: &mut Vec<K>) {
        std::mem::swap(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).keys, keys);
    }

    /// Wakes the loop itself.
    pub fn wake_driver(&self) {
        let driver = self.0.lock().unwrap_or_else(PoisonError::into_inner).driver.clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl<K: Copy + Send + Sync + 'static> ConnWaker<K> {
    /// A connection that is not ready.
    #[must_use]
    pub fn new(wakes: &Arc<Wakes<K>>, key: K) -> Self {
        let wake = Arc::new(ConnWake { key, is_queued: AtomicBool::new(false), wakes: wakes.clone() });
        Self { waker: wake.clone().into(), wake }
    }

    /// Makes the connection ready.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// It is being served: from here on it may be woken again.
    #[must_use]
    pub fn begin(&self) -> Waker {
        self.wake.is_queued.store(false, Ordering::Release);
        self.waker.clone()
    }
}

impl<K: Copy + Send + Sync + 'static> Wake for ConnWake<K> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = {
            let mut ready = self.wakes.0.lock().unwrap_or_else(PoisonError::into_inner);
            ready.keys.push(self.key);
            // One wake is enough until the list is taken.
            if ready.keys.len() == 1 { ready.driver.clone() } else { None }
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_ready_once_and_again_when_it_is_served() {
        let wakes = Arc::new(Wakes::default());
        let (one, two) = (ConnWaker::new(&wakes, 1), ConnWaker::new(&wakes, 2));
        one.wake();
        two.wake();
        one.wake();
        let mut ready = Vec::new();
        wakes.take(&mut ready);
        assert_eq!(ready, [1, 2]);
        ready.clear();
        one.wake();
        wakes.take(&mut ready);
        assert!(ready.is_empty(), "it has not been served since");
        one.begin().wake();
        wakes.take(&mut ready);
        assert_eq!(ready, [1]);
    }
}
