//! Which name an address had, from the DNS answers that processes of one cgroup received.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

/// Addresses remembered; the oldest answer goes first.
pub const CAPACITY: usize = 16_384;

/// A bounded memory of DNS answers, kept apart by cgroup: two containers may have different resolvers.
#[derive(Debug, Default)]
pub struct Names {
    by_address: HashMap<(u64, IpAddr), (Arc<str>, u64)>,
    // Oldest first. An address that was answered again appears twice; its older place does not evict it.
    order: VecDeque<((u64, IpAddr), u64)>,
    answers: u64,
}

impl Names {
    /// Remembers that in this cgroup the name resolved to this address. A later answer wins: what is connected to next
    /// follows from it.
    pub fn learn(&mut self, cgroup: u64, address: IpAddr, name: &Arc<str>) {
        self.answers += 1;
        let key = (cgroup, address.to_canonical());
        self.by_address.insert(key, (Arc::clone(name), self.answers));
        self.order.push_back((key, self.answers));
        while self.order.len() > CAPACITY {
            let Some((oldest, answer)) = self.order.pop_front() else { break };
            if self.by_address.get(&oldest).is_some_and(|(_, latest)| *latest == answer) {
                self.by_address.remove(&oldest);
            }
        }
    }

    /// The name that was last resolved to this address in this cgroup.
    #[must_use]
    pub fn of(&self, cgroup: u64, address: IpAddr) -> Option<Arc<str>> {
        self.by_address.get(&(cgroup, address.to_canonical())).map(|(name, _)| Arc::clone(name))
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[test]
    fn the_latest_answer_of_the_same_cgroup_wins() {
        let mut names = Names::default();
        names.learn(1, ip(1), &"old.example".into());
        names.learn(1, ip(1), &"new.example".into());
        names.learn(2, ip(1), &"elsewhere.example".into());
        assert_eq!(names.of(1, ip(1)).as_deref(), Some("new.example"));
        assert_eq!(names.of(2, ip(1)).as_deref(), Some("elsewhere.example"));
        assert_eq!(names.of(3, ip(1)), None);
        assert_eq!(names.of(1, "::ffff:0.0.0.1".parse().unwrap()).as_deref(), Some("new.example"));
    }

    #[test]
    fn memory_is_bounded_and_an_address_answered_again_outlives_older_ones() {
        let mut names = Names::default();
        let name: Arc<str> = "a.example".into();
        names.learn(0, ip(0), &name);
        for n in 1..CAPACITY as u32 {
            names.learn(0, ip(n), &name);
        }
        names.learn(0, ip(0), &name);
        names.learn(0, ip(u32::MAX), &name);
        assert!(names.of(0, ip(0)).is_some());
        assert!(names.of(0, ip(1)).is_none());
        assert!(names.len() <= CAPACITY);
    }
}
