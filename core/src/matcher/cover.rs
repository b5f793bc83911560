//! Whether one match takes in all of another, so that a rule can be told that it is never reached.

use super::text::{Pattern, Test};
use super::{Condition, Field, Matcher};

impl Matcher {
    /// Whether every call that `other` matches is matched too; `false` also where that cannot be told.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.fields.contains(self.fields)
            && self.conditions.iter().all(|ours| other.conditions.iter().any(|theirs| follows(ours, theirs)))
    }
}

/// Whether `ours` holds wherever `theirs` does.
fn follows(ours: &Condition, theirs: &Condition) -> bool {
    match (ours, theirs) {
        (Condition::One(ours, test), Condition::One(theirs, given)) => {
            // An endpoint that takes any method is looked at in two forms.
            let single = *ours != Field::Endpoint;
            ours == theirs && positives(test, given) && negatives(test, given, single)
        }
        (Condition::VendorTag(test), Condition::VendorTag(given))
        | (Condition::Data(test), Condition::Data(given))
        | (Condition::AnyTag(test), Condition::AnyTag(given)) => {
            positives(test, given) && negatives(test, given, false)
        }
        // A call has one value of a tag at most, but may have none, which fits no positive text.
        (Condition::Tag(ours, test), Condition::Tag(theirs, given)) => {
            ours == theirs && positives(test, given) && negatives(test, given, true)
        }
        (Condition::Bytes(ours), Condition::Bytes(theirs)) => ours.covers(*theirs),
        _ => false,
    }
}

fn positives(test: &Test, given: &Test) -> bool {
    let covered = |theirs: &Pattern| test.any_of.iter().any(|ours| ours.covers(theirs));
    test.any_of.is_empty() || (!given.any_of.is_empty() && given.any_of.iter().all(covered))
}

/// `single`: the thing has one value, so that being this is not being that.
fn negatives(test: &Test, given: &Test, single: bool) -> bool {
    test.none_of.iter().all(|ours| {
        given.none_of.iter().any(|theirs| theirs.covers(ours))
            || (single && !given.any_of.is_empty() && given.any_of.iter().all(|theirs| theirs.excludes(ours)))
    })
}

#[cfg(test)]
mod tests {
    use crate::matcher::{Builder, Matcher, Subject};
    use proptest::prelude::*;

    fn matcher(conditions: &[(&str, &str)]) -> Matcher {
        let mut builder = Builder::default();
        for (key, texts) in conditions {
            builder.add(key, &texts.split('|').collect::<Vec<_>>()).unwrap();
        }
        builder.build()
    }

    #[test]
    fn a_wider_match_covers_a_narrower_one() {
        let covers = |a: &[(&str, &str)], b: &[(&str, &str)]| matcher(a).covers(&matcher(b));
        assert!(covers(&[], &[("vendor", "a")]) && !covers(&[("vendor", "a")], &[]));
        assert!(covers(&[("vendor", "a")], &[("vendor", "a"), ("customer", "x")]));
        assert!(covers(&[("vendor", "a|b")], &[("vendor", "B")]));
        assert!(!covers(&[("vendor", "a")], &[("vendor", "a|b")]));
        assert!(
            covers(&[("vendor", "!a")], &[("vendor", "b")])
                && !covers(&[("vendor", "!a")], &[("vendor", "a*")])
        );
        assert!(covers(&[("vendor", "!ab")], &[("vendor", "!a*")]));
        assert!(!covers(&[("vendor.tag", "!a")], &[("vendor.tag", "b")]), "a vendor may have both tags");
        assert!(
            covers(&[("tag.x", "!a")], &[("tag.x", "b")]) && !covers(&[("tag.x", "b")], &[("tag.y", "b")])
        );
        assert!(covers(&[("bytes", ">1")], &[("bytes", ">1KB")]));
    }

    fn conditions() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let text = "!?[ab*]{1,2}(\\|!?[ab]{1,2})?";
        let key = prop_oneof![
            Just("vendor"),
            Just("customer"),
            Just("vendor.tag"),
            Just("tag.k"),
            Just("endpoint")
        ];
        prop::collection::vec((key, text), 0..3)
    }

    fn build(conditions: &[(&str, String)]) -> Option<Matcher> {
        let mut builder = Builder::default();
        for (key, texts) in conditions {
            builder.add(key, &texts.split('|').collect::<Vec<_>>()).ok()?;
        }
        Some(builder.build())
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched(
            a in conditions(), b in conditions(),
            vendor in "[ab]{1,2}", customer in "[ab]{0,2}", tags in prop::collection::vec("[ab]{1,2}", 0..3), tag in "(k=[ab]{1,2})?",
            endpoint in "(\\* )?[ab]{1,2}",
        ) {
            if let (Some(a), Some(b)) = (build(&a), build(&b)) {
                let subject = Subject {
                    vendor: &vendor, customer: &customer, vendor_tags: &tags, tags: &tag,
                    endpoint: &endpoint, method: "a",
                    ..Subject::default()
                };
                if a.covers(&b) && b.matches(&subject) {
                    prop_assert!(a.matches(&subject), "{a} covers {b}, not {subject:?}");
                }
            }
        }
    }
}
