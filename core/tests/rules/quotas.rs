//! Quotas, the vendor's own and ours: who waits, who is refused, and who is told of it.

use crate::support::{T0, at, engine, get, pass, refused, sent};
use farcall::{Call, Head, Priority, RefusedBy, Step};

#[test]
fn a_rate_of_our_own_makes_calls_wait_for_a_slot_and_no_longer_than_their_deadline() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "stripe" }
        limit = "10 requests / 1s"
        burst = 1
        max_wait = "5s"
        "#,
    );
    pass(&engine, &get("acme"), T0, 1, 200, &[]);
    let mut second = engine.begin(&get("acme"), T0, 2);
    let Step::Wait(until) = second.step(&engine, T0) else { panic!("it went at once") };
    assert_eq!(until, at(100));
    let _ = sent(&mut second, &engine, until);
    let mut late = engine.begin(&get("acme").deadline(Some(at(150))), T0, 3);
    let refusal = refused(&mut late, &engine, T0);
    assert_eq!(refusal.by, RefusedBy::Quota);
    assert_eq!(refusal.until, Some(at(200)), "it is told when it would pass");
    second.answer(&engine, 200, &[("x", "y")], at(120));
    second.end(&engine, at(120));
    let batch = engine.drain(at(200));
    let waited: u64 = batch.rows.iter().map(|row| row.sums.waited.as_millis() as u64).sum();
    assert_eq!(waited, 100);
    let waits = "waits 100.0 ms for `quota@2`: the limit that the rule states is used up";
    assert!(batch.exemplars.iter().any(|call| call.events.contains(waits)), "{:?}", batch.exemplars);
}

#[test]
fn a_vendors_own_word_holds_calls_back_until_its_reset() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "github" }
        max_wait = "30s"
        "#,
    );
    let head = Head::new("GET", "https://api.github.com/user").body(Some(0), true);
    let reset = at(20_000).as_secs().to_string();
    let headers = [
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", reset.as_str()),
        ("x-ratelimit-resource", "core"),
    ];
    pass(&engine, &head, T0, 1, 200, &headers);
    let mut call = engine.begin(&head, at(10), 2);
    let Step::Wait(until) = call.step(&engine, at(10)) else { panic!("nothing is left") };
    assert!(until.since(T0).as_secs() >= 19, "{until:?}");
    let mut soon = engine.begin(&head.deadline(Some(at(1_000))), at(10), 3);
    assert_eq!(refused(&mut soon, &engine, at(10)).by, RefusedBy::Quota);
}

#[test]
fn a_vendor_that_says_to_stay_away_is_heeded_also_where_it_counts_in_what_only_it_knows() {
    let engine = engine("[[quota]]\nmatch = {}\nmax_wait = \"30s\"\n");
    let head = Head::new("GET", "https://api.twitch.tv/helix/users").body(Some(0), true);
    let reset = at(12_000).as_secs().to_string();
    let stated = |left: &'static str| {
        [("ratelimit-limit", "800"), ("ratelimit-remaining", left), ("ratelimit-reset", &*reset)]
            .map(|(a, b)| (a, b.to_owned()))
    };
    let answer = |n: u64, status: u16, left: &'static str, more: &[(&'static str, &str)]| {
        let owned = stated(left);
        let headers: Vec<(&str, &str)> =
            owned.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        pass(&engine, &head, at(n), n, status, &headers);
    };
    answer(1, 200, "0", &[]);
    // What is left in points is compared with nothing.
    answer(2, 429, "0", &[("retry-after", "3")]);
    let mut call = engine.begin(&head, at(10), 3);
    let Step::Wait(until) = call.step(&engine, at(10)) else { panic!("it was told to stay away") };
    assert!((2_900..3_300).contains(&until.since(T0).as_millis()), "{until:?}");
    let _ = sent(&mut call, &engine, until);
    let mut soon = engine.begin(&head.deadline(Some(at(1_000))), at(11), 4);
    let refusal = refused(&mut soon, &engine, at(11));
    assert_eq!((refusal.by, refusal.until), (RefusedBy::Quota, Some(until)));
    call.answer(&engine, 200, &[("ratelimit-limit", "800")], until);
    call.end(&engine, until);
    // Without a time, until the reset of what the refusing answer says is used up.
    let later = until.plus_millis(100);
    let owned = stated("0");
    let headers: Vec<(&str, &str)> = owned.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pass(&engine, &head, later, 5, 429, &headers);
    let mut call = engine.begin(&head, later, 6);
    let Step::Wait(until) = call.step(&engine, later) else { panic!("nothing is left") };
    assert!((11_000..13_000).contains(&until.since(T0).as_millis()), "{until:?}");
}

#[test]
fn a_429_is_an_incident_that_names_who_used_the_window() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "github" }
        pace = "off"
        "#,
    );
    let head = |customer| Head::new("GET", "https://api.github.com/user").customer(Some(customer));
    let reset = at(60_000).as_secs().to_string();
    for n in 0..20 {
        let left = (19 - n).to_string();
        let headers = [
            ("x-ratelimit-limit", "20"),
            ("x-ratelimit-remaining", left.as_str()),
            ("x-ratelimit-reset", reset.as_str()),
            ("x-ratelimit-resource", "core"),
        ];
        pass(&engine, &head(if n % 10 == 0 { "globex" } else { "acme" }), at(n), n, 200, &headers);
    }
    let headers = [
        ("x-ratelimit-limit", "20"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", reset.as_str()),
        ("x-ratelimit-resource", "core"),
    ];
    let mut call = engine.begin(&head("acme"), at(30), 99);
    // Nobody knows yet that nothing is left, or it would not be sent: another process used the last one.
    let _ = call.step(&engine, at(30));
    call.answer(&engine, 429, &headers, at(40));
    call.end(&engine, at(40));
    let batch = engine.drain(at(1_000));
    let incident = batch.incidents.first().expect("a 429 is an incident");
    assert_eq!((incident.vendor.as_str(), incident.limit, incident.count), ("github", Some(20), 1));
    assert_eq!(incident.customers[0].name, "acme");
    assert_eq!(incident.retry_at.unwrap().as_secs(), at(60_000).as_secs(), "not before the reset");
    assert!(farcall::quota::explain(incident).contains("acme"), "{}", farcall::quota::explain(incident));
}

#[test]
fn a_refusal_by_points_is_told_in_points_and_accuses_nobody() {
    let engine = engine("[[quota]]\nmatch = { vendor = \"linear\" }\npace = \"off\"");
    let head = Head::new("POST", "https://api.linear.app/graphql").customer(Some("acme"));
    let reset = (at(3_600_000).as_nanos() / 1_000_000).to_string();
    for n in 0..6 {
        let left = (250_000 - n * 50_000).to_string();
        let headers = [
            ("x-ratelimit-complexity-limit", "250000"),
            ("x-ratelimit-complexity-remaining", left.as_str()),
            ("x-ratelimit-complexity-reset", reset.as_str()),
        ];
        let mut call = engine.begin(&head, at(n), n);
        let _ = call.step(&engine, at(n));
        call.answer(&engine, if n < 5 { 200 } else { 400 }, &headers, at(n));
        if n == 5 {
            call.read(br#"{"errors":[{"extensions":{"code":"RATELIMITED"}}]}"#);
        }
        let _ = call.step(&engine, at(n));
        call.end(&engine, at(n));
    }
    let incident = engine.drain(at(1_000)).incidents.remove(0);
    assert_eq!(
        (&*incident.unit, incident.limit, &*incident.counted_in),
        ("points", Some(250_000), "requests")
    );
    assert_eq!((incident.is_countable(), incident.own, incident.foreign), (false, 6, None));
    let said = farcall::quota::explain(&incident);
    assert!(said.contains("our 6 requests in") && said.contains("the limit is 250,000 points"), "{said}");
    assert!(!said.contains("somebody else") && !said.contains("credential of our own"), "{said}");
}

#[test]
fn an_incident_of_fair_share_names_whose_calls_were_refused_and_what_the_rule_lacks() {
    let rule = |fair: &str| {
        format!(
            "[[quota]]\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"100 requests / 1s\"\nmax_wait = \"0s\"\n{fair}\n"
        )
    };
    let told = |rules: &str| {
        let engine = engine(rules);
        let (mut n, mut incident) = (0, None);
        for ms in 0..4_000 {
            // Gold asks for less than its share of three quarters, hog for far more than the rest.
            for (customer, every) in [("gold", 40), ("hog", 2)] {
                if ms % every == 0 {
                    n += 1;
                    let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(customer));
                    let mut call = engine.begin(&head, at(ms), n);
                    if matches!(call.step(&engine, at(ms)), Step::Send(_)) {
                        call.answer(&engine, 400, &[("date", ""); 0], at(ms));
                    }
                    let _ = call.step(&engine, at(ms));
                    call.end(&engine, at(ms));
                }
            }
            if ms % 250 == 249 {
                incident = engine.drain(at(ms)).incidents.pop().or(incident);
            }
        }
        incident.unwrap()
    };
    let fair = told(&rule("fair = \"customer\"\nweights = { gold = 3 }"));
    let said = farcall::quota::explain(&fair);
    assert_eq!(fair.kept_back[0].name, "hog", "{fair:?}");
    assert!(said.contains("of them were for customer hog"), "{said}");
    assert!(!said.contains("fair = \"customer\""), "the rule has it: {said}");
    let plain = farcall::quota::explain(&told(&rule("")));
    assert!(plain.contains("fair = \"customer\""), "{plain}");
    let cached = told(&format!("{}[[cache]]\nmatch = {{ vendor = \"stripe\" }}\nttl = \"1s\"", rule("")));
    assert!(
        cached.has.contains(&"cache".to_owned()) && cached.has.contains(&"limit".to_owned()),
        "{cached:?}"
    );
    assert!(!farcall::quota::explain(&cached).contains("[[cache]]"));
}

#[test]
fn a_429_counts_once_whatever_its_body_makes_of_it() {
    for (body, kind) in [("slow down", "rate"), (r#"{"error":{"code":"insufficient_quota"}}"#, "exhausted")] {
        let engine = engine("[[quota]]\nmatch = { vendor = \"openai\" }\npace = \"off\"");
        let head = Head::new("POST", "https://api.openai.com/v1/chat/completions").customer(Some("acme"));
        let mut begun: Vec<Call> = (0..3).map(|n| engine.begin(&head, at(0), n)).collect();
        for call in &mut begun {
            let _ = sent(call, &engine, at(0));
        }
        for (call, n) in begun.iter_mut().zip(0..) {
            let headers: &[(&str, &str)] = &[];
            call.answer(&engine, 429, &headers, at(n));
            if n == 1 {
                // The head is told of, before anybody knows what the body says.
                assert_eq!(engine.drain(at(n)).incidents.len(), 1);
            }
            call.read(body.as_bytes());
            assert_eq!(call.step(&engine, at(n)), Step::Settled);
            call.end(&engine, at(n));
        }
        let batch = engine.drain(at(1_000));
        let incident = &batch.incidents[0];
        assert_eq!((incident.kind.as_str(), incident.count, batch.incidents.len()), (kind, 3, 1));
    }
}

#[test]
fn batch_calls_leave_what_is_kept_for_interactive_ones() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "stripe" }
        limit = "10 requests / 10s"
        burst = 10
        pace = "reserve"
        reserve = { priority = "interactive", share = "50%" }
        max_wait = "1ms"
        "#,
    );
    let sends = |priority, from: u64| {
        (0..10)
            .filter(|n| {
                let mut call = engine.begin(&get("acme").priority(priority), T0, from + n);
                let sent = matches!(call.step(&engine, T0), Step::Send(_));
                call.abandon(&engine, T0);
                sent
            })
            .count()
    };
    assert!(sends(Priority::Batch, 0) <= 6);
    assert!(sends(Priority::Interactive, 100) >= 4);
}

#[test]
fn calls_under_way_are_limited_also_where_the_vendor_states_nothing() {
    let engine = engine(
        "[[quota]]\nname = \"q\"\nmatch = { vendor = \"stripe\" }\nconcurrency = 2\nmax_wait = \"0s\"\n",
    );
    let head = get("acme");
    let mut first = engine.begin(&head, at(0), 1);
    let mut second = engine.begin(&head, at(0), 2);
    let _ = (sent(&mut first, &engine, at(0)), sent(&mut second, &engine, at(0)));
    let mut third = engine.begin(&head, at(1), 3);
    let refusal = refused(&mut third, &engine, at(1));
    assert_eq!((&*refusal.rule, &*refusal.reason), ("q", "concurrency"));
    // Nobody can tell when a place comes free.
    assert_eq!((refusal.until, refusal.to_string().contains("would pass")), (None, false));
    let incident = engine.drain(at(1)).incidents.remove(0);
    assert_eq!((&*incident.kind, &*incident.why, incident.count), ("own", "concurrency", 1));
    assert_eq!((&*incident.policy, incident.retry_at, incident.own), ("q", None, 2));
    let said = farcall::quota::explain(&incident);
    assert!(said.contains("as many calls as the rule's `concurrency` allows were under way"), "{said}");
    assert!(
        said.contains("; a higher `concurrency` in the configuration") && !said.contains("again from"),
        "{said}"
    );
    first.answer(&engine, 200, &[("x", "y")].as_slice(), at(2));
    assert_eq!(first.step(&engine, at(2)), Step::Settled);
    first.end(&engine, at(2));
    let mut fourth = engine.begin(&head, at(3), 4);
    let _ = sent(&mut fourth, &engine, at(3));
    second.abandon(&engine, at(4));
    fourth.abandon(&engine, at(4));
}

#[test]
fn one_refusal_of_a_vendor_that_states_no_quota_silences_nobody() {
    let engine = engine("[[quota]]\nmatch = { vendor = \"stripe\" }\nmax_wait = \"2s\"\n");
    let call = |number: u64, status, headers: &[(&str, &str)]| {
        let (mut call, mut now) = (engine.begin(&get("acme"), at(number * 40), number), at(number * 40));
        loop {
            match call.step(&engine, now) {
                Step::Wait(until) => now = until,
                Step::Send(_) => break,
                _ => return false,
            }
        }
        call.answer(&engine, status, &headers, now);
        call.end(&engine, now);
        true
    };
    // 25 calls a second; one is refused, and to be made again in a second.
    assert!((0..50).all(|number| call(number, 200, &[])));
    assert!(call(50, 429, &[("retry-after", "1")]));
    let went = (80..180).filter(|number| call(*number, 200, &[])).count();
    assert!(went >= 95, "{went} of 100 went once its time was over");
}
