//! Whose calls are looked at more closely though no rule decides about them: those of vendors that state quotas, by the
//! catalogue or by their answers, and those that cost.

use crate::catalogue::Catalogue;
use crate::cost::Prices;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const STATES: u8 = 1;
const COSTS: u8 = 2;
/// Above the two: for how many silent answers more the catalogue's word holds that a vendor states quotas.
const LOOK: u8 = 4;
const LOOKS: u8 = 16 * LOOK;

#[derive(Debug)]
pub(super) struct Attended {
    /// Marks by vendor of the catalogue, and one for all others.
    marks: Box<[AtomicU8]>,
    /// Counts what may have made more calls worth a closer look.
    changes: AtomicU32,
}

/// Whether calls to a vendor cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Costs {
    No,
    Yes,
    /// Those to some vendor do that the catalogue does not know: its name tells.
    Perhaps,
}

impl Attended {
    pub(super) fn new(catalogue: &Catalogue, prices: &Prices) -> Self {
        let looks = |vendor| if catalogue.states_quotas(vendor) { LOOKS } else { 0 };
        let marks = (0..=catalogue.vendor_count()).map(|vendor| AtomicU8::new(looks(vendor))).collect();
        let attended = Self { marks, changes: AtomicU32::new(0) };
        attended.set_prices(catalogue, prices);
        attended
    }

    fn place(&self, vendor: u32) -> &AtomicU8 {
        // There is one for others at least.
        &self.marks[(vendor as usize).min(self.marks.len() - 1)]
    }

    /// This vendor has stated a quota.
    pub(super) fn states(&self, vendor: u32) {
        let place = self.place(vendor);
        // Read before it is written: threads share the line.
        if place.load(Ordering::Relaxed) & STATES == 0 {
            place.fetch_or(STATES, Ordering::Relaxed);
            self.note_change();
        }
    }

    /// More calls may be worth a closer look from now on.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Counts up with each of these changes.
    pub(super) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// An answer of this vendor stated none.
    pub(super) fn states_nothing(&self, vendor: u32) {
        let place = self.place(vendor);
        if place.load(Ordering::Relaxed) >= LOOK {
            let fewer = |marks: u8| marks.checked_sub(LOOK);
            let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        }
    }

    /// What calls cost from now on.
    pub(super) fn set_prices(&self, catalogue: &Catalogue, prices: &Prices) {
        let (others, known) =
            self.marks.split_last().map_or((None, [].as_slice()), |(last, all)| (Some(last), all));
        let mark = |place: &AtomicU8, costs: bool| {
            match costs {
                true => place.fetch_or(COSTS, Ordering::Relaxed),
                false => place.fetch_and(!COSTS, Ordering::Relaxed),
            };
        };
        for (place, vendor) in known.iter().zip(catalogue.vendors()) {
            mark(place, prices.has(&vendor.name));
        }
        if let Some(others) = others {
            let is_known = |name: &str| catalogue.vendors().iter().any(|vendor| vendor.name == name);
            mark(others, prices.iter().any(|price| !is_known(&price.vendor)));
        }
    }

    /// Whether an answer of this vendor has stated a quota.
    pub(super) fn has_stated(&self, vendor: u32) -> bool {
        self.place(vendor).load(Ordering::Relaxed) & STATES != 0
    }

    /// Whether this vendor has stated a quota or is about to, and whether its calls cost.
    pub(super) fn of(&self, vendor: u32) -> (bool, Costs) {
        let marks = self.place(vendor).load(Ordering::Relaxed);
        let costs = match marks & COSTS != 0 {
            false => Costs::No,
            true if (vendor as usize) < self.marks.len() - 1 => Costs::Yes,
            true => Costs::Perhaps,
        };
        (marks & STATES != 0 || marks >= LOOK, costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_attended_for_its_price_as_long_as_it_has_one() {
        let catalogue = Catalogue::builtin();
        let number = |name: &str| {
            let place = catalogue.vendors().iter().position(|vendor| vendor.name == name);
            u32::try_from(place.unwrap()).unwrap()
        };
        let own = |name: &str| Prices::new(vec![crate::cost::Price::new(name, crate::Currency::USD)]);
        let attended = Attended::new(&catalogue, &Prices::default());
        for _ in 0..16 {
            assert_eq!(attended.of(number("openai")), (true, Costs::Yes), "by the catalogue's word");
            attended.states_nothing(number("openai"));
        }
        attended.states_nothing(number("openai"));
        assert_eq!(attended.of(number("openai")), (false, Costs::Yes));
        assert_eq!(attended.of(number("slack")), (false, Costs::No));
        assert_eq!(attended.of(u32::MAX), (false, Costs::No), "built-in prices are all of known vendors");
        attended.states(number("slack"));
        attended.set_prices(&catalogue, &own("slack"));
        assert_eq!(attended.of(number("slack")), (true, Costs::Yes));
        attended.set_prices(&catalogue, &own("maps.example.com"));
        attended.states_nothing(number("slack"));
        assert_eq!(attended.of(number("slack")), (true, Costs::No), "its own word holds");
        assert!(attended.has_stated(number("slack")) && !attended.has_stated(number("github")));
        assert_eq!(attended.of(u32::MAX), (false, Costs::Perhaps));
    }
}
