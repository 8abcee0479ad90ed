//! How much a session holds, and when that is too much (docs/protocols/pipe.md, Load).

use serde::{Deserialize, Serialize};

/// Where back-pressure begins, and where a session ends. Each is reached by messages or by bytes, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Messages at which back-pressure begins.
    pub soft_messages: usize,
    /// Bytes at which it begins.
    pub soft_bytes: usize,
    /// Messages at which the session ends.
    pub hard_messages: usize,
    /// Bytes at which it ends.
    pub hard_bytes: usize,
}

impl Limits {
    /// For what waits to be sent.
    pub const WRITE: Self =
        Self { soft_messages: 1024, soft_bytes: 1 << 20, hard_messages: i32::MAX as usize, hard_bytes: 64 << 20 };
    /// For what came and waits for the application.
    pub const READ: Self =
        Self { soft_messages: 1024, soft_bytes: 4 << 20, hard_messages: i32::MAX as usize, hard_bytes: 64 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::WRITE
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A soft limit was reached: back-pressure is on.
    On,
    /// Both are below their soft limits again: it is off.
    Off,
    /// A hard limit was reached. That is final, and said once.
    Broken,
}

/// What is held, in messages and in bytes.
#[derive(Debug, Clone)]
pub struct Load {
    limits: Limits,
    messages: usize,
    bytes: usize,
    is_on: bool,
    is_broken: bool,
}

impl Load {
    /// Nothing is held.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, messages: 0, bytes: 0, is_on: false, is_broken: false }
    }

    /// One more message of so many bytes.
    #[must_use]
    pub fn add(&mut self, bytes: usize) -> Option<Report> {
        self.messages += 1;
        self.bytes += bytes;
        let Limits { soft_messages, soft_bytes, hard_messages, hard_bytes } = self.limits;
        if !self.is_broken && (self.messages >= hard_messages || self.bytes >= hard_bytes) {
            self.is_broken = true;
            return Some(Report::Broken);
        }
        if !self.is_on && (self.messages >= soft_messages || self.bytes >= soft_bytes) {
            self.is_on = true;
            return Some(Report::On);
        }
        None
    }

    /// So many messages less, of so many bytes in all.
    #[must_use]
    pub fn sub(&mut self, messages: usize, bytes: usize) -> Option<Report> {
        debug_assert!(self.messages >= messages && self.bytes >= bytes, "less than nothing is held");
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
        let is_below = self.messages < self.limits.soft_messages && self.bytes < self.limits.soft_bytes;
        if self.is_on && is_below {
            self.is_on = false;
            return Some(Report::Off);
        }
        None
    }

    /// Whether back-pressure is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Messages that are held.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load::new(Limits { soft_messages: 2, soft_bytes: 10, hard_messages: 4, hard_bytes: 20 })
    }

    #[test]
    fn each_crossing_is_said_once() {
        let mut load = load();
        assert_eq!(load.add(1), None);
        assert_eq!(load.add(1), Some(Report::On), "exactly at the limit");
        assert_eq!(load.add(1), None);
        assert_eq!(load.sub(1, 1), None, "not below it");
        assert_eq!(load.sub(1, 1), Some(Report::Off));
        assert_eq!(load.sub(1, 1), None);
        assert_eq!((load.messages(), load.bytes(), load.is_on()), (0, 0, false));
    }

    #[test]
    fn bytes_count_as_well() {
        let mut load = load();
        assert_eq!(load.add(10), Some(Report::On));
        assert_eq!(load.add(3), None);
        assert_eq!(load.sub(1, 10), Some(Report::Off));
        assert_eq!(load.add(17), Some(Report::Broken));
    }

    #[test]
    fn a_hard_limit_is_final() {
        let mut load = load();
        assert_eq!([(); 4].map(|()| load.add(0)), [None, Some(Report::On), None, Some(Report::Broken)]);
        assert_eq!(load.add(0), None, "said once");
    }
}
