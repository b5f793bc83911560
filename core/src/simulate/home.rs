//! What the processes of one host share, on the heap.

use crate::engine::QuotaHome;
use crate::quota::{Cell, CellHome, Rule, Shares, SharesHome};
use crate::rollout::{Canary, CanaryHome};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// One for all engines of a simulated host.
#[derive(Default)]
pub(super) struct Host {
    quotas: Mutex<BTreeMap<u64, (CellHome, Option<SharesHome>)>>,
    canaries: Mutex<BTreeMap<u64, CanaryHome>>,
}

struct Place(Box<Shares>);

impl AsRef<Shares> for Place {
    fn as_ref(&self) -> &Shares {
        &self.0
    }
}

impl QuotaHome for Host {
    fn quota(&self, key: u64, rule: &Rule) -> Option<(CellHome, Option<SharesHome>)> {
        let mut places = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let (cell, shares) = places.entry(key).or_insert_with(|| (Arc::new(Cell::new()), None));
        if rule.fair && shares.is_none() {
            *shares = Some(Arc::new(Place(Shares::new())));
        }
        Some((Arc::clone(cell), shares.clone()))
    }

    fn canary(&self, key: u64) -> Option<CanaryHome> {
        let mut canaries = self.canaries.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(canaries.entry(key).or_insert_with(|| Arc::new(Canary::new()))))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
