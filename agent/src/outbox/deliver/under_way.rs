//! The calls that are on their way, and which of them an error of ours ended.

use super::super::table::Item;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use tokio::task::{Id, JoinError, JoinSet};

#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) tasks: JoinSet<()>,
    calls: HashMap<Id, Arc<Item>>,
}

/// How the delivery of a call ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was written down what came of it, or is another's to decide.
    Settled,
    /// By an error of ours: nothing is written down.
    Panicked(Arc<Item>),
}

impl UnderWay {
    pub(super) fn add(&mut self, call: Arc<Item>, delivery: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(delivery).id();
        self.calls.insert(id, call);
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn ids(&self) -> HashSet<i64> {
        self.calls.values().map(|call| call.id).collect()
    }

    /// The next one that ends; `None` where there is none.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        let ended = self.tasks.join_next_with_id().await?;
        Some(self.ended(ended))
    }

    pub(super) fn try_next(&mut self) -> Option<Ended> {
        let ended = self.tasks.try_join_next_with_id()?;
        Some(self.ended(ended))
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Ended {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        match self.calls.remove(&id) {
            Some(call) if panicked => Ended::Panicked(call),
            _ => Ended::Settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::item;
    use super::*;

    #[tokio::test]
    async fn a_delivery_that_panics_takes_up_no_room_and_its_call_is_known() {
        let mut under_way = UnderWay::default();
        let call = |id| Arc::new(Item { id, ..item(0) });
        // One that does not end meanwhile.
        under_way.add(call(1), std::future::pending());
        under_way.add(call(2), async { panic!("an error of ours, on purpose") });
        assert!(matches!(under_way.next().await, Some(Ended::Panicked(call)) if call.id == 2));
        under_way.add(call(3), async {});
        assert!(matches!(under_way.next().await, Some(Ended::Settled)));
        assert_eq!(under_way.ids(), HashSet::from([1]));
        under_way.tasks.abort_all();
        assert!(matches!(under_way.next().await, Some(Ended::Settled)));
        assert_eq!((under_way.len(), under_way.next().await.is_none()), (0, true));
    }
}
