//! A decision of the policy allocates nothing, whatever it matches. Counted by the allocator, on this thread.
#![allow(clippy::unwrap_used)]

use farcall::matcher::Subject;
use farcall::policy::PolicySet;
use farcall::{Caller, Config};

const RULES: &str = r#"
[[policy]]
match = { vendor = ["stripe", "openai"], endpoint = ["GET /v1/*", "!*/health"], tag.team = "Éq*" }
verdict = "warn"
[[policy]]
match = { vendor.tag = "llm", caller.service = "!billing", customer = "CÉDRIC*" }
verdict = "throttle"
throttle = "10 requests / 1s"
[[policy]]
match = { data = "card", bytes = ">1MiB", host = "*.example.com" }
verdict = "deny"
[[policy]]
match = { customer = "*", credential = "*" }
verdict = "allow"
"#;

#[test]
fn a_decision_allocates_nothing() {
    let set = PolicySet::new(Config::parse("farcall.toml", RULES).unwrap().policies);
    let caller = Caller::new("checkout");
    let tags = ["llm".to_owned(), "ai".to_owned()];
    let mut subject = Subject::default();
    subject.caller = &caller;
    subject.vendor_tags = &tags;
    subject.data = &["card"];
    let mut decided = 0;
    let counted = allocation_counter::measure(|| {
        for vendor in ["stripe", "openai", "example.com"] {
            for endpoint in ["GET /v1/x", "* /v1/health", "POST /ÄÖ"] {
                for customer in ["acme", "Cédric", "cédric und söhne"] {
                    for (tags, bytes) in [("", None), ("env=prod,team=ÉQUIPE", Some(2 << 20))] {
                        subject.vendor = vendor;
                        subject.endpoint = endpoint;
                        subject.method = "GET";
                        subject.customer = customer;
                        subject.host = "eu.example.com";
                        subject.tags = tags;
                        subject.bytes = bytes;
                        decided += u32::from(set.decide(&subject).verdict != farcall::policy::Verdict::Allow);
                        for rule in set.rules() {
                            decided +=
                                u32::try_from(rule.matcher.partition().values(&subject).count()).unwrap();
                        }
                    }
                }
            }
        }
    });
    assert!(decided > 54, "all verdicts are reached: {decided}");
    assert_eq!(counted.count_total, 0);
}
