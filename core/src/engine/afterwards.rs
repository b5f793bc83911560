//! For adapters that tell of a call only when it is over, many calls at a time: between two calls the application's own
//! work empties the caches, and an account in a row costs a fraction of as many single ones.

use super::{Call, Engine};
use crate::call::Head;
use crate::ledger::Text;
use crate::units::Timestamp;

impl Engine {
    /// Begins a call that was sent at `now`, which may be long ago, while no rule decided ([`decides`](Engine::decides)).
    /// Rules that came into force since let it be: its one step is to be sent as it is.
    pub fn begin_sent(&self, head: &Head<'_>, now: Timestamp, seed: u64) -> Call {
        self.begin_call(head, now, seed, false)
    }

    /// The number of the vendor behind a host, for [`reads_answers`](Engine::reads_answers); the same for all hosts that the
    /// catalogue does not know. Holds for the engine's life.
    #[must_use]
    pub fn vendor_number(&self, host: &str) -> u32 {
        let found = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.catalogue.find(Text::<256>::lower(host).as_str()),
            false => self.catalogue.find(host),
        };
        found.map_or(u32::MAX, |vendor| vendor.0)
    }

    /// Whether the engine looks at the headers of every answer from this vendor. Where not, only those of answers are
    /// wanted whose status is 429.
    #[must_use]
    pub fn reads_answers(&self, vendor: u32) -> bool {
        self.catalogue.states_quotas(vendor) || self.attends(vendor)
    }
}
