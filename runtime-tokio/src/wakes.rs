//! Which connections have become ready, for one loop that serves them all.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use towline_core::spn::endpoint::ConnId;

/// The ready connections of one loop, each at most once.
#[derive(Default)]
pub(crate) struct Wakes(Mutex<Ready>);

#[derive(Default)]
struct Ready {
    ids: Vec<ConnId>,
    driver: Option<Waker>,
}

/// Wakes one connection.
struct ConnWake {
    id: ConnId,
    is_queued: AtomicBool,
    wakes: Arc<Wakes>,
}

/// A connection's place among the wakes.
pub(crate) struct ConnWaker {
    wake: Arc<ConnWake>,
    waker: Waker,
}

impl Wakes {
    /// Says whom to wake when a connection becomes ready.
    pub(crate) fn register(&self, driver: &Waker) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.driver.as_ref().is_some_and(|old| old.will_wake(driver)) {
            ready.driver = Some(driver.clone());
        }
    }

    /// Takes all that are ready, in exchange for an empty list.
    pub(crate) fn take(&self, ids: &mut Vec<ConnId>) {
        std::mem::swap(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).ids, ids);
    }
}

impl ConnWaker {
    pub(crate) fn new(wakes: &Arc<Wakes>, id: ConnId) -> Self {
        let wake = Arc::new(ConnWake { id, is_queued: AtomicBool::new(false), wakes: wakes.clone() });
        Self { waker: wake.clone().into(), wake }
    }

    /// Makes the connection ready.
    pub(crate) fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// It is being served: from here on it may be woken again.
    pub(crate) fn begin(&self) -> Waker {
        self.wake.is_queued.store(false, Ordering::Release);
        self.waker.clone()
    }
}

impl Wake for ConnWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = {
            let mut ready = self.wakes.0.lock().unwrap_or_else(PoisonError::into_inner);
            ready.ids.push(self.id);
            // One wake is enough until the list is taken.
            if ready.ids.len() == 1 { ready.driver.clone() } else { None }
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
