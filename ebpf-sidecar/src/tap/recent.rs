//! Connections that ended a moment ago.

use std::collections::{HashSet, VecDeque};

/// Cookies and openings of the latest connections that ended, so that a late record does not bring one back.
#[derive(Debug, Default)]
pub(super) struct Recent {
    known: HashSet<(u64, u64)>,
    order: VecDeque<(u64, u64)>,
}

impl Recent {
    const CAPACITY: usize = 65_536;

    pub(super) fn insert(&mut self, id: (u64, u64)) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > Self::CAPACITY {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, id: (u64, u64)) -> bool {
        self.known.contains(&id)
    }
}
