use crate::quota::*;
use crate::units::Timestamp;
use proptest::prelude::*;
use std::sync::{Arc, Weak};
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_700_000_040_000_000_000);

struct Numbered;

impl Names for Numbered {
    fn customer(&self, number: u32) -> String {
        ["acme", "globex", "initech"]
            .get(number as usize)
            .map_or_else(|| format!("c{number}"), |name| (*name).into())
    }
    fn caller(&self, number: u32) -> String {
        format!("worker-{number}")
    }
    fn endpoint(&self, number: u32) -> String {
        ["GET /v1/search", "POST /v1/orders"][number as usize].to_owned()
    }
    fn credential(&self, number: u32) -> String {
        format!("key{number}")
    }
}

fn call(quota: &State, rule: &Rule, user: User, now: Timestamp) -> (Verdict, Claim) {
    let mut claim = Claim::new();
    let verdict = quota.before(rule, &mut claim, &Ask::one(), &user, now);
    (verdict, claim)
}

fn minute(used: u64) -> Stated {
    Stated {
        limit: Some(500),
        remaining: Some(500 - used),
        resets_at: Some(T0.plus_millis(60_000)),
        window: Some(Duration::from_secs(60)),
    }
}

/// A minute in which acme used 455 of 500, and the vendor then said 429 three times.
fn a_bad_minute() -> (State, Rule) {
    let rule = Rule::default();
    let quota = State::new(&rule);
    let search = User { customer: 0, caller: 7, endpoint: 0, credential: 1 };
    let orders = User { customer: 1, caller: 2, endpoint: 1, credential: 1 };
    let mut claim = Claim::new();
    for number in 0..500u64 {
        let user = if number % 11 == 10 { orders } else { search };
        let now = T0.plus_millis(number * 20);
        let (verdict, own) = call(&quota, &rule, user, now);
        assert_eq!(verdict, Verdict::Pass);
        claim = own;
        quota.state(&rule, &claim, &minute(number + 1), now.plus_millis(5));
    }
    for late in 0..3 {
        quota.limited(
            &rule,
            &claim,
            (429, Limited::Rate),
            Some(T0.plus_millis(60_000)),
            T0.plus_millis(10_100 + late),
        );
    }
    (quota, rule)
}

#[test]
fn all_429s_of_a_window_are_one_incident_with_shares() {
    let (quota, rule) = a_bad_minute();
    let now = T0.plus_millis(11_000);
    let incident = quota.incident(&rule, now).unwrap();
    assert_eq!((incident.kind, incident.count, incident.own), (Kind::Rate, 3, 500));
    assert_eq!((incident.limit, incident.remaining, incident.foreign), (Some(500), Some(0), 0));
    assert_eq!(incident.at, T0.plus_millis(10_100));
    assert_eq!(incident.customers[0], Share { id: 0, units: 455, at_least: 455 });
    assert_eq!(incident.customers[1].units, 45);
    assert_eq!(incident.callers[0].id, 7);
    assert_eq!(incident.credentials, [Share { id: 1, units: 500, at_least: 500 }]);
    assert_eq!(incident.mixes[0], Mix { customer: 0, endpoint: 0, caller: 7, units: 455, at_least: 455 });
    assert_eq!(quota.incident(&rule, now), None, "told once");
    // One more in the same window: the same incident, with a higher count.
    quota.limited(&rule, &Claim::new(), (429, Limited::Exhausted), None, now);
    let again = quota.incident(&rule, now).unwrap();
    assert_eq!((again.began, again.kind, again.count), (incident.began, Kind::Exhausted, 4));
}

#[test]
fn an_incident_says_by_which_statuses_the_vendor_refused_and_what_it_meant_by_each() {
    let (quota, rule) = a_bad_minute();
    let now = T0.plus_millis(11_000);
    let explained = |quota: &State| {
        let incident = quota.incident(&rule, now).unwrap();
        let text = explain(&incident.named("example", "", "", &Numbered));
        (incident.count, text.lines().next().unwrap().to_owned())
    };
    quota.limited(&rule, &Claim::new(), (403, Limited::Rate), None, now);
    let fast = "At 2023-11-14 22:14:10 UTC example refused 4 calls for coming too fast (403, 429).";
    assert_eq!(explained(&quota), (4, fast.to_owned()));
    // The body of one says that it meant something else, and another one comes.
    quota.reread(&Claim::new(), 403, (Limited::Rate, Limited::Exhausted), None, now);
    quota.limited(&rule, &Claim::new(), (403, Limited::Exhausted), None, now);
    let both = "At 2023-11-14 22:14:10 UTC example said that the quota is used up, in 2 answers until the window ended \
                (403), and refused 3 calls for coming too fast (429).";
    assert_eq!(explained(&quota), (5, both.to_owned()));
}

#[test]
fn an_incident_of_a_window_that_is_over_is_still_told() {
    let (quota, rule) = a_bad_minute();
    let late = T0.plus_millis(61_000);
    let (verdict, _) = call(&quota, &rule, User { customer: 2, ..User::default() }, late);
    assert_eq!(verdict, Verdict::Pass);
    let incident = quota.incident(&rule, late).unwrap();
    assert_eq!((incident.own, incident.count), (500, 3));
    assert_eq!(quota.incident(&rule, late), None);
    // And the next window has an account of its own.
    quota.limited(&rule, &Claim::new(), (429, Limited::Rate), None, late.plus_millis(1));
    let incident = quota.incident(&rule, late.plus_millis(2)).unwrap();
    assert_eq!((incident.own, incident.customers[0].id), (1, 2));
    assert!(incident.began >= T0.plus_millis(60_000), "{incident:?}");
}

#[test]
fn a_breach_of_a_configured_quota_is_an_incident_too() {
    let rule = Rule { max_wait: Duration::ZERO, ..Rule::limit(10, Unit::Requests, Duration::from_secs(1)) };
    let quota = State::new(&rule);
    let refused = (0..50).filter(|_| call(&quota, &rule, User::default(), T0).0 != Verdict::Pass).count();
    let incident = quota.incident(&rule, T0.plus_millis(1)).unwrap();
    assert_eq!((incident.kind, incident.why), (Kind::Own, Some(Why::OwnLimit)));
    assert_eq!((incident.count, incident.limit), (refused as u64, Some(10)));
    assert!(incident.retry_at.is_some_and(|at| at > T0 && at <= T0.plus_millis(100)));
}

#[test]
fn an_incident_is_explained_in_plain_sentences() {
    let (quota, rule) = a_bad_minute();
    let incident = quota.incident(&rule, T0.plus_millis(11_000)).unwrap();
    let named = incident.named("example", "key1", "per-minute", &Numbered);
    let text = explain(&named);
    assert_eq!(
        text,
        "At 2023-11-14 22:14:10 UTC example refused 3 calls of the quota `per-minute` for coming too fast (429).\n\
         Customer acme used 91% of the 500 requests in this minute, mostly GET /v1/search from worker-7; customer globex 9%.\n\
         Calls may go again from 2023-11-14 22:15:00 UTC.\n\
         What would help: a [[quota]] rule for example with fair = \"customer\", which keeps customer acme to its \
         share while others ask; a [[cache]] rule for GET /v1/search, which made 91% of the calls; \
         pace = \"smooth\", which spreads what is left until the reset."
    );
}

#[test]
fn somebody_else_on_the_credential_is_named_as_the_cause() {
    let named = NamedIncident {
        vendor: "example".into(),
        credential: "key1".into(),
        kind: "exhausted".into(),
        count: 1,
        began: T0,
        ends: T0.plus_millis(60_000),
        unit: "requests".into(),
        limit: Some(500),
        limit_window: Some(Duration::from_secs(60)),
        own: 20,
        counted_in: "requests".into(),
        foreign: Some(480),
        customers: vec![NamedShare { name: "acme".into(), units: 20, at_least: 20 }],
        ..NamedIncident::default()
    };
    let text = explain(&named);
    assert!(text.contains("somebody else uses this credential"), "{text}");
    assert!(text.contains("a credential of our own"), "{text}");
    let of = "Customer acme used 100% of our 20 requests in this minute (the limit is 500 a minute)";
    assert!(text.contains(of), "{text}");
}

#[test]
fn a_limit_is_told_with_the_time_that_it_is_for() {
    let used = NamedIncident {
        ends: T0.plus_millis(60_000),
        began: T0,
        unit: "requests".into(),
        limit: Some(5_000),
        own: 20,
        customers: vec![NamedShare { name: "acme".into(), units: 20, at_least: 20 }],
        ..NamedIncident::default().in_unit("requests", true)
    };
    let said = |seconds: f64| {
        let limit_window = Some(Duration::from_secs_f64(seconds));
        let text = explain(&NamedIncident { limit_window, ..used.clone() });
        let (_, rest) = text.split_once("(the limit is 5,000").unwrap();
        rest.split_once(')').unwrap().0.to_owned()
    };
    assert_eq!([said(1.0), said(3_600.0), said(86_400.0)], [" a second", " an hour", " a day"]);
    assert_eq!(
        [said(900.0), said(7_200.0), said(604_800.0)],
        [" in 15 minutes", " in 2 hours", " in 7 days"]
    );
    assert_eq!([said(0.5), said(90.0)], [" in 0.5 seconds", " in 90 seconds"]);
    // Where nobody states how long a window is, the end of this one says as much.
    let until = explain(&NamedIncident { resets_at: Some(T0), ..used.clone() });
    assert!(until.contains("(the limit is 5,000 until 20"), "{until}");
    assert!(explain(&used).contains("(the limit is 5,000)"));
    // The engine takes it from the vendor's word, or from the rule's limit.
    let (quota, rule) = a_bad_minute();
    assert_eq!(quota.incident(&rule, T0.plus_millis(50_000)).unwrap().limit_window.unwrap().as_secs(), 60);
    let rule = Rule { max_wait: Duration::ZERO, ..Rule::limit(1, Unit::Requests, Duration::from_secs(90)) };
    let quota = State::new(&rule);
    for _ in 0..2 {
        let _ = quota.before(&rule, &mut Claim::new(), &Ask::one(), &User::default(), T0);
    }
    assert_eq!(quota.incident(&rule, T0).unwrap().limit_window.unwrap().as_secs(), 90);
}

#[test]
fn an_empty_incident_is_explained_without_nonsense() {
    let text = explain(&NamedIncident::default());
    assert!(!text.contains("NaN") && !text.is_empty(), "{text}");
}

#[test]
fn an_account_has_a_fixed_size() {
    // Two windows of six sketches of sixteen: nothing that comes from the network makes it larger.
    assert!(size_of::<super::Account>() <= 3_584, "{}", size_of::<super::Account>());
}

#[test]
fn a_clock_that_jumps_back_begins_a_new_window() {
    let rule = Rule::default();
    let quota = State::new(&rule);
    for hours in [5u64, 0, 9, 1] {
        let now = T0.plus_millis(hours * 3_600_000);
        assert_eq!(call(&quota, &rule, User::default(), now).0, Verdict::Pass);
        quota.limited(&rule, &Claim::new(), (429, Limited::Rate), None, now.plus_millis(1));
        let incident = quota.incident(&rule, now.plus_millis(2)).unwrap();
        assert!(incident.began <= now && incident.ends > now, "{hours}: {incident:?}");
        assert_eq!(incident.own, 1);
    }
}

fn users() -> [User; 3] {
    [0, 1, 2].map(|n| User { customer: n, caller: n / 2, endpoint: n, credential: 1 })
}

proptest! {
    /// One quota is told of each call, the other has tallies: what they tell of is the same, in whatever order
    /// calls, breaches, questions and windows follow each other.
    #[test]
    fn what_tallies_add_up_is_told_as_if_each_call_had_been_counted(
        events in prop::collection::vec((0u8..8, 0u64..40_000, 1u64..4), 1..300),
    ) {
        let rule = Rule::default();
        let (plain, tallied) = (State::new(&rule), State::new(&rule));
        let tallies = users().map(|user| tallied.tally(user));
        let mut now = T0;
        for (what, millis, units) in events {
            let ask = Ask::one().units(units);
            match what {
                user @ 0..3 => {
                    let (user, tally) = (users()[usize::from(user)], &tallies[usize::from(user)]);
                    let one = plain.before(&rule, &mut Claim::new(), &ask, &user, now);
                    let other = tallied.before_by(&rule, &mut Claim::new(), &ask, tally, now);
                    prop_assert_eq!(one, other);
                }
                3 => {
                    plain.limited(&rule, &Claim::new(), (429, Limited::Rate), None, now);
                    tallied.limited(&rule, &Claim::new(), (429, Limited::Rate), None, now);
                }
                4 => prop_assert_eq!(plain.incident(&rule, now), tallied.incident(&rule, now)),
                _ => now = now.plus_millis(millis),
            }
        }
        prop_assert_eq!(plain.incident(&rule, now), tallied.incident(&rule, now));
        prop_assert_eq!(plain.incident(&rule, now), tallied.incident(&rule, now));
    }
}

#[test]
fn no_unit_is_lost_or_told_twice_while_threads_add_and_somebody_asks() {
    const CALLS: u64 = 20_000;
    let (rule, now) = (Rule::default(), T0.as_nanos());
    let account = super::Account::default();
    let breach =
        super::Breach { kind: Kind::Rate, status: 429, why: Why::default(), retry_at: now, customer: 0 };
    let ask = || {
        account.breached(breach, &rule, None, now);
        account.tell(Standing::default, None).unwrap()
    };
    // The first window begins before they race: who meets its beginning may count in the one before.
    account.went(&users()[0], 0, &rule, None, now);
    let shared = account.tally(users()[0]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let own = account.tally(users()[1]);
                for n in 0..CALLS {
                    account.went_by(if n % 2 == 0 { &shared } else { &own }, 1, &rule, None, now);
                }
            });
        }
        scope.spawn(|| (0..100).for_each(|_| drop(ask())));
    });
    let incident = ask();
    assert_eq!((incident.own, incident.count), (3 * CALLS, 101));
    let share = |id| Share { id, units: 3 * CALLS / 2, at_least: 3 * CALLS / 2 };
    assert_eq!(incident.customers, [share(0), share(1)]);
}

#[test]
fn a_tally_that_nobody_holds_any_more_leaves_once_it_was_counted() {
    let rule = Rule::default();
    let quota = State::new(&rule);
    let let_go: Vec<Weak<Tally>> = (0..10_000)
        .map(|_| {
            let tally = quota.tally(User::default());
            let verdict = quota.before_by(&rule, &mut Claim::new(), &Ask::one(), &tally, T0);
            assert_eq!(verdict, Verdict::Pass);
            Arc::downgrade(&tally)
        })
        .collect();
    assert!(let_go.iter().filter(|tally| tally.strong_count() > 0).count() <= 32);
    quota.limited(&rule, &Claim::new(), (429, Limited::Rate), None, T0);
    assert_eq!(quota.incident(&rule, T0).unwrap().own, 10_000);
}

#[test]
fn a_tally_counts_beyond_what_it_can_hold() {
    let rule = Rule::default();
    let quota = State::new(&rule);
    let tally = quota.tally(User::default());
    let mut sum = 0u64;
    for units in [u64::from(u32::MAX); 200].into_iter().chain([1 << 41, 1, 0, 1 << 39]) {
        sum += units;
        let ask = Ask::one().units(units);
        let verdict = quota.before_by(&rule, &mut Claim::new(), &ask, &tally, T0);
        assert_eq!(verdict, Verdict::Pass);
    }
    quota.limited(&rule, &Claim::new(), (429, Limited::Rate), None, T0);
    assert_eq!(quota.incident(&rule, T0).unwrap().own, sum);
}

#[test]
fn who_is_not_refused_tells_what_it_used_of_a_window_in_which_another_one_was() {
    let mut rule = Rule::limit(10, Unit::Requests, Duration::from_secs(60));
    (rule.burst, rule.max_wait) = (Some(10), Duration::ZERO);
    let cell: crate::quota::CellHome = std::sync::Arc::new(crate::quota::Cell::new());
    let [glutton, victim, idle] = [(); 3].map(|()| State::at(std::sync::Arc::clone(&cell), None));
    let user = |customer| User { customer, ..User::default() };
    for n in 0..9 {
        assert_eq!(call(&glutton, &rule, user(1), T0.plus_millis(n)).0, Verdict::Pass);
    }
    assert_eq!(glutton.incident(&rule, T0.plus_millis(10)), None, "nobody was refused yet");
    assert_eq!(call(&victim, &rule, user(2), T0.plus_millis(11)).0, Verdict::Pass);
    assert!(matches!(call(&victim, &rule, user(2), T0.plus_millis(12)).0, Verdict::Refuse { .. }));
    let later = T0.plus_millis(20);
    let (told, part) = (victim.incident(&rule, later).unwrap(), glutton.incident(&rule, later).unwrap());
    assert_eq!((told.count, told.own, told.shared), (1, 1, true));
    assert_eq!((part.count, part.own, part.shared), (0, 9, true));
    assert_eq!((part.began, part.ends, part.at), (told.began, told.ends, told.at));
    assert_eq!(part.customers, [Share { id: 1, units: 9, at_least: 9 }]);
    assert_eq!((glutton.incident(&rule, later), victim.incident(&rule, later)), (None, None), "told once");
    assert_eq!(idle.incident(&rule, later), None, "it used nothing");
    // What is used of the window after that is told, too, also where the window is over by then.
    let next = T0.plus_millis(6_100);
    assert_eq!(call(&glutton, &rule, user(1), next).0, Verdict::Pass);
    let after = T0.plus_millis(70_000);
    assert_eq!(call(&glutton, &rule, user(1), after).0, Verdict::Pass);
    let part = glutton.incident(&rule, after).unwrap();
    assert_eq!((part.own, part.began), (10, told.began));
    assert_eq!(glutton.incident(&rule, after), None, "nobody was refused in the new one");
}

#[test]
fn a_window_in_which_another_one_was_refused_waits_to_be_told_of() {
    let mut rule = Rule::limit(10, Unit::Requests, Duration::from_secs(1));
    (rule.burst, rule.max_wait) = (Some(10), Duration::ZERO);
    let cell: crate::quota::CellHome = std::sync::Arc::new(crate::quota::Cell::new());
    let [one, other] = [(); 2].map(|()| State::at(std::sync::Arc::clone(&cell), None));
    let start = Timestamp::from_nanos(T0.as_nanos() - T0.as_nanos() % 1_000_000_000);
    let tally = one.tally(User { customer: 1, ..User::default() });
    for n in 0..10 {
        assert_eq!(
            one.before_by(&rule, &mut Claim::new(), &Ask::one(), &tally, start.plus_millis(n)),
            Verdict::Pass
        );
    }
    assert!(matches!(call(&other, &rule, User::default(), start.plus_millis(20)).0, Verdict::Refuse { .. }));
    // Three windows later it was not asked yet.
    for second in 1..=3 {
        let now = start.plus_millis(second * 1_000 + 500);
        assert_eq!(one.before_by(&rule, &mut Claim::new(), &Ask::one(), &tally, now), Verdict::Pass);
    }
    let now = start.plus_millis(4_000);
    let told = one.incident(&rule, now).unwrap();
    assert_eq!((told.began, told.own, told.count), (start, 10, 0));
    assert_eq!(one.incident(&rule, now), None);
}

#[test]
fn one_is_no_plural_and_a_quota_is_called_one() {
    let mut named =
        NamedIncident { vendor: "openai".into(), policy: "requests".into(), ..NamedIncident::default() };
    (named.own, named.count, named.refused, named.foreign) = (1, 1, 1, Some(8));
    let mut named = NamedIncident { credential: "key1".into(), ..named.in_unit("requests", true) };
    named.kind = Kind::Exhausted.as_str().into();
    named.customers = vec![NamedShare { name: "acme".into(), units: 1, at_least: 1 }];
    let said = explain(&named);
    for words in [
        "openai said that the quota `requests` is used up, in one answer",
        "Customer acme used 100% of our 1 request in",
        "; 1 more call was refused here before it went out",
        "openai counted 8 requests that no call of ours explains: somebody else uses this credential.",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    (named.own, named.refused, named.partition) = (1_435, 2, "customer=acme".into());
    let said = explain(&named);
    for words in [
        "the quota `requests` (customer=acme) is",
        "our 1,435 requests",
        "; 2 more calls were refused here before they",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn units_are_told_as_they_are_and_nobody_is_accused_where_ours_are_not_those_of_the_vendor() {
    let mut named =
        NamedIncident { vendor: "v".into(), credential: "key1".into(), ..NamedIncident::default() };
    named.kind = Kind::Rate.as_str().into();
    (named.own, named.count, named.limit, named.foreign) = (5, 1, Some(250_000), Some(249_995));
    named.limit_window = Some(Duration::from_secs(3_600));
    let share = |name: &str, units| NamedShare { name: name.into(), units, at_least: units };
    named.customers = vec![share("acme", 4), share("globex", 1)];
    named.endpoints = vec![share("GET /v1/search", 5)];
    let of = |unit, countable| explain(&named.clone().in_unit(unit, countable));
    for (unit, limit, only) in [
        ("points", "250,000 points", "How many points they used only v counts."),
        ("cost", "250,000 units of cost", "How many units of cost they used only v counts."),
        ("bytes", "250,000 bytes", "How many bytes they used only v counts."),
        ("concurrency", "250,000 calls at once", "How many of them were under way at once only v counts."),
    ] {
        let said = of(unit, false);
        let used = format!(
            "Customer acme used 80% of our 5 requests in this second (the limit is {limit} an hour), "
        );
        assert!(!said.contains("no call of ours") && !said.contains("credential of our own"), "{said}");
        assert!(!said.contains("smooth"), "what calls will use is not known: {said}");
        let helps = "a [[quota]] rule for v with a `limit` in requests and fair = \"customer\"";
        for words in [used.trim_end_matches(", "), only, helps] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    let said = of("input-tokens", true);
    for words in [
        "Customer acme used 80% of our 5 input tokens in this second (the limit is 250,000 an hour)",
        "v counted 249,995 input tokens that no call of ours explains",
        "a credential of our own for each program",
        "GET /v1/search, which used 100% of the input tokens",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Answers on their way, and calls for which the vendor asks nothing, are nobody else's.
    named.foreign = Some(12_500);
    assert!(!explain(&named.in_unit("requests", true)).contains("no call of ours"));
}
