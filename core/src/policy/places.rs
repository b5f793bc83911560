//! Where learned endpoints depend on the order of calls.
//!
//! A process that meets many names in one place of a path (`/people/alice/orders`) writes the first of them as
//! they are and the rest as `{id}`, so that the same calls in another order are other endpoints. A rule that is
//! to hold for the next process too must not tell them apart.

use crate::catalogue::{FAN_OUT, ID};
use std::collections::{BTreeMap, BTreeSet};

/// From so many names beside an `{id}` on, that `{id}` may stand for further names: fewer, and it was an id by
/// its form. A process that turns names into `{id}` has met [`FAN_OUT`] of them; some may have left the ledger.
const BESIDE_AN_ID: usize = FAN_OUT / 4;

/// The places in the paths of one vendor's learned endpoints that hold for any name.
#[derive(Debug, Default)]
pub(super) struct Places {
    children: BTreeMap<String, Places>,
    /// What follows, where names are not told apart.
    any: Option<Box<Places>>,
}

impl Places {
    /// Of all endpoints of a vendor, as `METHOD /path`; their methods share what is learned.
    pub(super) fn new<'a>(endpoints: impl IntoIterator<Item = &'a str>) -> Self {
        let paths: BTreeSet<Vec<&str>> = endpoints.into_iter().filter_map(segments).collect();
        Self::of(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn of(paths: &[&[&str]]) -> Self {
        let mut next: BTreeMap<&str, Vec<&[&str]>> = BTreeMap::new();
        for path in paths {
            if let Some((segment, rest)) = path.split_first() {
                next.entry(segment).or_default().push(rest);
            }
        }
        let names = next.keys().filter(|segment| **segment != ID).count();
        if names >= FAN_OUT || names >= BESIDE_AN_ID && next.contains_key(ID) {
            let all: Vec<&[&str]> = next.into_values().flatten().collect();
            return Self { children: BTreeMap::new(), any: Some(Box::new(Self::of(&all))) };
        }
        let children = next.into_iter().map(|(segment, rest)| (segment.to_owned(), Self::of(&rest)));
        Self { children: children.collect(), any: None }
    }

    /// The endpoint as a rule is to write it, where that differs: with `*` in the places that hold for any name.
    pub(super) fn widened(&self, endpoint: &str) -> Option<String> {
        let (method, _) = endpoint.split_once(" /")?;
        let mut text = format!("{method} ");
        let (mut at, mut widened) = (Some(self), false);
        for segment in segments(endpoint)? {
            let any = at.and_then(|place| place.any.as_deref());
            widened |= any.is_some();
            text.push('/');
            text.push_str(if any.is_some() { "*" } else { segment });
            at = any.or_else(|| at.and_then(|place| place.children.get(segment)));
        }
        widened.then_some(text)
    }
}

fn segments(endpoint: &str) -> Option<Vec<&str>> {
    endpoint.split_once(" /").map(|(_, path)| path.split('/').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(names: usize) -> Vec<String> {
        (0..names).map(|n| format!("GET /people/{}/orders", "x".repeat(n + 1))).collect()
    }

    fn places(endpoints: &[String], more: &[&str]) -> Places {
        Places::new(endpoints.iter().map(String::as_str).chain(more.iter().copied()))
    }

    #[test]
    fn a_place_of_more_names_than_a_process_tells_apart_holds_for_any() {
        let places = places(&people(FAN_OUT), &["POST /people/x"]);
        assert_eq!(places.widened("GET /people/xx/orders").as_deref(), Some("GET /people/*/orders"));
        assert_eq!(places.widened("POST /people/x").as_deref(), Some("POST /people/*"));
    }

    #[test]
    fn an_id_beside_many_names_holds_for_any_and_one_beside_few_is_an_id() {
        let id = ["GET /people/{id}/orders"];
        let many = places(&people(BESIDE_AN_ID), &id);
        assert_eq!(many.widened(id[0]).as_deref(), Some("GET /people/*/orders"));
        let few = places(&people(2), &id);
        assert_eq!((few.widened(id[0]), few.widened("GET /people/x/orders")), (None, None));
        assert_eq!(places(&people(FAN_OUT - 1), &[]).widened("GET /people/x/orders"), None);
    }

    #[test]
    fn what_follows_such_a_place_is_looked_at_for_all_its_names_together() {
        let endpoints: Vec<String> = (0..FAN_OUT * 2)
            .map(|n| format!("GET /a/{}/b/{}", "x".repeat(n + 1), "y".repeat(n + 1)))
            .collect();
        let places = places(&endpoints, &[]);
        assert_eq!(places.widened(&endpoints[0]).as_deref(), Some("GET /a/*/b/*"));
    }
}
