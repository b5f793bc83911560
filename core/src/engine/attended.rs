//! Whose calls are looked at more closely though no rule decides about them: those of vendors that state quotas,
//! and those that cost.

use crate::catalogue::Catalogue;
use crate::cost::Prices;
use std::sync::atomic::{AtomicU8, Ordering};

const STATES: u8 = 1;
const COSTS: u8 = 2;

/// Marks by vendor of the catalogue, and one for all others.
#[derive(Debug)]
pub(super) struct Attended(Box<[AtomicU8]>);

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
        let attended = Self((0..=catalogue.vendor_count()).map(|_| AtomicU8::new(0)).collect());
        attended.set_prices(catalogue, prices);
        attended
    }

    fn place(&self, vendor: u32) -> &AtomicU8 {
        // There is one for others at least.
        &self.0[(vendor as usize).min(self.0.len() - 1)]
    }

    /// This vendor has stated a quota.
    pub(super) fn states(&self, vendor: u32) {
        self.place(vendor).fetch_or(STATES, Ordering::Relaxed);
    }

    /// What calls cost from now on.
    pub(super) fn set_prices(&self, catalogue: &Catalogue, prices: &Prices) {
        let (others, known) =
            self.0.split_last().map_or((None, [].as_slice()), |(last, all)| (Some(last), all));
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

    /// Whether this vendor has stated a quota, and whether its calls cost.
    pub(super) fn of(&self, vendor: u32) -> (bool, Costs) {
        let marks = self.place(vendor).load(Ordering::Relaxed);
        let costs = match marks & COSTS != 0 {
            false => Costs::No,
            true if (vendor as usize) < self.0.len() - 1 => Costs::Yes,
            true => Costs::Perhaps,
        };
        (marks & STATES != 0, costs)
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
        assert_eq!(attended.of(number("openai")), (false, Costs::Yes));
        assert_eq!(attended.of(number("stripe")), (false, Costs::No));
        assert_eq!(attended.of(u32::MAX), (false, Costs::No), "built-in prices are all of known vendors");
        attended.states(number("stripe"));
        attended.set_prices(&catalogue, &own("stripe"));
        assert_eq!(attended.of(number("stripe")), (true, Costs::Yes));
        attended.set_prices(&catalogue, &own("maps.example.com"));
        assert_eq!(attended.of(number("stripe")), (true, Costs::No));
        assert_eq!(attended.of(u32::MAX), (false, Costs::Perhaps));
    }
}
