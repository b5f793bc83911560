//! Nobody gets what was kept for another.

use crate::support::{Ask, Pairs, World, ok, say};

const FRESH: Pairs<'_> = &[("cache-control", "max-age=600")];

#[test]
fn answers_are_kept_apart_by_customer_and_by_whatever_may_be_a_credential() {
    let asks: [Pairs<'_>; 9] = [
        &[],
        &[("authorization", "Bearer a")],
        &[("authorization", "Bearer b")],
        &[("x-api-key", "a")],
        &[("private-token", "a")],
        &[("private-token", "b")],
        &[("cookie", "session=1")],
        &[("x-nobody-knows", "1")],
        &[("authorization", "Bearer a"), ("x-account", "7")],
    ];
    for customer in [None, Some("acme"), Some("unknown")] {
        let mut world = World::with("");
        for (number, headers) in asks.iter().enumerate() {
            let ask = Ask { customer, ..Ask::get(headers) };
            let body = number.to_string();
            assert!(!world.call(ask, say(200, FRESH, &body), 0.0).is_hit(), "{headers:?}");
        }
        for (number, headers) in asks.iter().enumerate() {
            let ask = Ask { customer, ..Ask::get(headers) };
            assert_eq!(world.call(ask, ok(&[]), 1.0).body(), number.to_string(), "{headers:?}");
            let other = Ask { customer: Some("other"), ..ask };
            assert!(!world.call(other, ok(&[("cache-control", "no-store")]), 1.0).is_hit());
        }
    }
}

#[test]
fn headers_that_change_from_call_to_call_do_not_keep_answers_apart() {
    let mut world = World::with("");
    let first: Pairs<'_> = &[("traceparent", "00-1-1-01"), ("X-Request-Id", "1"), ("user-agent", "a/1")];
    let second: Pairs<'_> = &[("user-agent", "a/2"), ("traceparent", "00-2-2-01"), ("x-request-id", "2")];
    world.call(Ask::get(first), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(second), ok(&[]), 1.0).is_hit());
    for tracing in
        ["x-ms-client-request-id", "X-Cloud-Trace-Context", "uber-trace-id", "x-trace-id", "newrelic"]
    {
        assert!(world.call(Ask::get(&[(tracing, "1")]), ok(&[]), 1.0).is_hit(), "{tracing}");
    }
    for proof in ["cb-access-sign", "x-timestamp", "x-signature", "x-nonce", "x-amz-date"] {
        assert!(
            !world.call(Ask::get(&[(proof, "1")]), ok(&[]), 1.0).is_hit(),
            "{proof} may be a credential's"
        );
    }
}

#[test]
fn what_is_asked_for_one_user_of_a_service_is_not_for_another() {
    for name in ["x-forwarded-for", "forwarded", "from", "origin", "referer"] {
        let mut world = World::with("ttl = \"1h\"");
        let (one, other): (Pairs<'_>, Pairs<'_>) = (&[(name, "10.0.0.1")], &[(name, "10.0.0.2")]);
        world.call(Ask::get(one), ok(&[]), 0.0);
        assert!(!world.call(Ask::get(other), ok(&[]), 1.0).is_hit(), "{name}");
        assert!(world.call(Ask::get(one), ok(&[]), 2.0).is_hit(), "{name}");
    }
    let mut world = World::with("share = [\"credentials\"]");
    let varies: Pairs<'_> = &[("cache-control", "max-age=600"), ("vary", "Origin")];
    world.call(Ask::get(&[("origin", "https://a.example")]), ok(varies), 0.0);
    assert!(world.call(Ask::get(&[("origin", "https://a.example")]), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[("origin", "https://b.example")]), ok(varies), 1.0).is_hit());
}

#[test]
fn an_answer_may_vary_by_a_header_that_a_rule_names_although_credentials_are_shared() {
    let varies: Pairs<'_> = &[("cache-control", "max-age=600"), ("vary", "X-Region")];
    let (eu, us): (Pairs<'_>, Pairs<'_>) = (&[("x-region", "eu")], &[("X-Region", "us")]);
    for (keys, kept) in [("", false), ("key = { headers = [\"X-Region\"] }", true)] {
        let mut world = World::with(&format!("share = [\"credentials\"]\n{keys}"));
        world.call(Ask::get(eu), ok(varies), 0.0);
        assert!(!world.call(Ask::get(us), say(200, varies, "us"), 1.0).is_hit(), "{keys}");
        assert_eq!(world.call(Ask::get(eu), ok(varies), 2.0).is_hit(), kept, "{keys}");
        assert_eq!(world.call(Ask::get(us), ok(varies), 2.0).is_hit(), kept, "{keys}");
    }
}

#[test]
fn calls_to_other_places_and_queries_are_other_calls() {
    let mut world = World::with("");
    let url = "https://api.example.com/v1/rates?base=EUR";
    world.call(Ask::get(&[]).url(url), ok(FRESH), 0.0);
    for other in [
        "https://api.example.com/v1/rates?base=USD",
        "https://api.example.com/v1/rates?BASE=EUR",
        "https://api.example.com/v1/rates",
        "https://api.example.com/v1/Rates?base=EUR",
        "http://api.example.com/v1/rates?base=EUR",
        "https://api.example.com:8443/v1/rates?base=EUR",
        "https://api2.example.com/v1/rates?base=EUR",
    ] {
        assert!(!world.call(Ask::get(&[]).url(other), ok(&[]), 1.0).is_hit(), "{other}");
    }
    for same in
        ["https://API.example.com:443/v1/rates?base=EUR", "https://u@api.example.com/v1/rates?base=EUR#f"]
    {
        assert!(world.call(Ask::get(&[]).url(same), ok(&[]), 1.0).is_hit(), "{same}");
    }
}

#[test]
fn what_an_address_answers_for_one_host_is_not_for_another() {
    for keys in ["", "share = [\"credentials\"]"] {
        for (url, hosts) in [
            ("https://10.0.0.1/v1/rates", ["a.example", "b.example", "10.0.0.1"]),
            ("https://[::1]:8443/v1/rates", ["a.example:8443", "b.example:8443", "[::1]:8443"]),
        ] {
            let mut world = World::with(keys);
            for host in hosts {
                let ask = [("host", host)];
                assert!(!world.call(Ask::get(&ask).url(url), ok(FRESH), 0.0).is_hit(), "{host}");
                assert!(world.call(Ask::get(&ask).url(url), ok(&[]), 1.0).is_hit(), "{host}");
            }
            assert!(
                world.call(Ask::get(&[]).url(url), ok(&[]), 1.0).is_hit(),
                "a host that goes without saying"
            );
        }
    }
    let mut world = World::with("");
    let url = "https://API.example.com:8443/v1/rates";
    world.call(Ask::get(&[]).url(url), ok(FRESH), 0.0);
    for host in ["api.example.com:8443", "api.example.com", "api.example.com."] {
        assert!(world.call(Ask::get(&[("host", host)]).url(url), ok(&[]), 1.0).is_hit(), "{host}");
    }
}

#[test]
fn customers_share_where_a_rule_says_so_and_credentials_still_do_not() {
    let mut world = World::with("share = [\"customers\"]");
    let key: Pairs<'_> = &[("x-api-key", "a")];
    world.call(Ask::get(key).customer("acme"), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(key).customer("other"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[("x-api-key", "b")]).customer("acme"), ok(&[]), 1.0).is_hit());
    let cookie: Pairs<'_> = &[("cache-control", "max-age=600"), ("set-cookie", "session=acme")];
    let page = "https://api.example.com/login";
    world.call(Ask::get(key).url(page), ok(cookie), 0.0);
    assert!(!world.call(Ask::get(key).url(page), ok(&[]), 1.0).is_hit(), "a cookie is one customer's");
}

#[test]
fn a_cache_that_credentials_share_keeps_to_the_rules_of_shared_caches() {
    let shared = "share = [\"customers\", \"credentials\"]";
    let (a, b): (Pairs<'_>, Pairs<'_>) = (&[("authorization", "a")], &[("authorization", "b")]);
    // RFC 9111, sections 3 and 3.5, and 5.2.2.10.
    for (control, hit) in [
        ("max-age=600", false),
        ("max-age=600, public", true),
        ("max-age=0, s-maxage=600", true),
        ("max-age=600, must-revalidate", true),
        ("max-age=600, public, private", false),
    ] {
        let mut world = World::with(shared);
        world.call(Ask::get(a), ok(&[("cache-control", control)]), 0.0);
        assert_eq!(world.call(Ask::get(b), ok(&[]), 1.0).is_hit(), hit, "{control}");
    }
    let mut world = World::with(shared);
    world.call(Ask::get(&[]), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(&[("x-other", "1")]), ok(&[]), 1.0).is_hit(), "nothing was authorized");
}

#[test]
fn kinds_of_clients_share_nothing_whatever_a_rule_says() {
    let mut world = World::with("share = [\"customers\", \"credentials\"]");
    world.call(Ask::get(&[]).client(1), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(&[]).client(1), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[]).client(2), ok(&[]), 1.0).is_hit());
}

#[test]
fn a_body_is_part_of_the_question_only_where_a_rule_says_so() {
    let query = Ask::get(&[]).method("POST");
    let mut world = World::with("");
    world.call(query.content(b"{}"), ok(FRESH), 0.0);
    assert!(!world.call(query.content(b"{}"), ok(FRESH), 1.0).is_hit());
    let mut world = World::with("methods = [\"POST\"]");
    world.call(query.content(b"{\"q\":1}"), ok(FRESH), 0.0);
    assert!(world.call(query.content(b"{\"q\":1}"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(query.content(b"{\"q\":2}"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[]), ok(FRESH), 0.0).is_hit(), "GET is not among the methods");
    assert!(!world.call(Ask::get(&[]), ok(&[]), 1.0).is_hit());
}

#[test]
fn keys_are_made_of_what_a_rule_names() {
    let url = |query: &'static str| Ask::get(&[]).url(query);
    let mut world = World::with("key = { query = [\"q\", \"page\"] }");
    world.call(url("https://a.example.com/s?q=1&page=2&utm=x"), ok(FRESH), 0.0);
    assert!(world.call(url("https://a.example.com/s?page=2&utm=y&q=1"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(url("https://a.example.com/s?page=3&q=1"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(url("https://a.example.com/s?q=1"), ok(&[]), 1.0).is_hit());
    let mut world = World::with("key = { without_query = [\"utm\"] }");
    world.call(url("https://a.example.com/s?q=1&utm=x"), ok(FRESH), 0.0);
    assert!(world.call(url("https://a.example.com/s?q=1&utm=y"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(url("https://a.example.com/s?q=1&z=1"), ok(&[]), 1.0).is_hit());
    let mut world = World::with("key = { headers = [\"Accept-Language\"] }");
    world.call(Ask::get(&[("accept-language", "de")]), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(&[("accept-language", "de")]), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[("accept-language", "en")]), ok(&[]), 1.0).is_hit());
}

#[test]
fn a_parameter_is_the_one_that_a_rule_names_however_either_spells_it() {
    let place = |query: &str| format!("https://a.example.com/s?{query}");
    for named in ["filter[region]", "filter%5Bregion%5D", "filter%5bregion]"] {
        let mut world = World::with(&format!("key = {{ query = [\"{named}\", \"two+words\"] }}"));
        for one in ["filter[region]=eu", "filter%5Bregion%5D=us", "filter%5bregion%5d=de", "two%20words=a"] {
            let (url, traced) = (place(one), place(&format!("{one}&trace=1")));
            assert!(
                !world.call(Ask::get(&[]).url(&url), say(200, FRESH, one), 0.0).is_hit(),
                "{named} {one}"
            );
            assert_eq!(world.call(Ask::get(&[]).url(&traced), ok(&[]), 1.0).body(), one, "{named}");
        }
        let mut world = World::with(&format!("key = {{ without_query = [\"{named}\"] }}"));
        world.call(Ask::get(&[]).url(&place("filter[region]=eu&q=1")), ok(FRESH), 0.0);
        let same = place("filter%5Bregion%5D=us&q=1");
        assert!(world.call(Ask::get(&[]).url(&same), ok(&[]), 1.0).is_hit(), "{named}");
        assert!(!world.call(Ask::get(&[]).url(&place("filter=1&q=1")), ok(&[]), 1.0).is_hit(), "{named}");
    }
    for keys in ["key = { query = [\"q\"] }", "key = { without_query = [\"trace\"] }"] {
        let mut world = World::with(keys);
        for broken in ["q=1&trace=50%", "q=1&trace=%5", "q=1&trace=%zz", "q=1&trace=1"] {
            let url = place(broken);
            assert!(
                !world.call(Ask::get(&[]).url(&url), ok(FRESH), 0.0).is_hit(),
                "{broken} counts as a whole"
            );
            assert!(world.call(Ask::get(&[]).url(&url), ok(&[]), 1.0).is_hit(), "{broken}");
        }
    }
}

#[test]
fn two_rules_do_not_share_answers() {
    let mut world = World::of(
        "[[cache]]\nname = \"a\"\nmatch = { customer = \"a\" }\nshare = [\"customers\"]\n[[cache]]\nname = \"b\"\nmatch = { customer = \"b\" }\nshare = [\"customers\"]\n",
    );
    world.call(Ask::get(&[]).customer("a"), ok(FRESH), 0.0);
    assert!(world.call(Ask::get(&[]).customer("a"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[]).customer("b"), ok(&[]), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[]).customer("c"), ok(FRESH), 1.0).is_hit());
    assert!(!world.call(Ask::get(&[]).customer("c"), ok(&[]), 2.0).is_hit(), "no rule is about it");
}

#[test]
fn a_304_gives_nobody_what_is_only_for_who_asked() {
    let stale: Pairs<'_> = &[("cache-control", "max-age=5"), ("etag", "\"v1\"")];
    for private in [("set-cookie", "session=acme"), ("cache-control", "max-age=600, private")] {
        let mut world = World::with("share = [\"customers\", \"credentials\"]");
        world.call(Ask::get(&[]), ok(stale), 0.0);
        let confirmed: Pairs<'_> = &[("etag", "\"v1\""), private];
        assert!(world.call(Ask::get(&[]).customer("acme"), say(304, confirmed, ""), 10.0).is_hit());
        let mut call = world.begin(&Ask::get(&[]).customer("other"), 11.0);
        let step = call.step(&world.engine, crate::support::at(11.0));
        assert!(matches!(step, farcall::Step::Send(_)), "{private:?}: {step:?}");
    }
}

#[test]
fn a_method_that_a_header_says_is_not_the_one_whose_answers_are_kept() {
    for header in ["x-http-method-override", "X-HTTP-Method", "x-method-override"] {
        for rule in ["methods = [\"GET\", \"POST\"]", "share = [\"customers\", \"credentials\"]"] {
            let mut world = World::with(rule);
            let ask = || Ask::get(&[]);
            world.call(ask(), ok(FRESH), 0.0);
            let deletes = [(header, "DELETE")];
            for second in 1..3 {
                let came = world.call(Ask { headers: &deletes, ..ask() }, ok(FRESH), f64::from(second));
                assert!(!came.is_hit(), "{header}: the vendor was not asked to delete");
            }
        }
    }
}

#[test]
fn of_a_body_only_the_fields_count_that_a_rule_names_and_of_one_that_is_no_json_all() {
    let mut world =
        World::with("methods = [\"POST\"]\nttl = \"1h\"\nkey = { json = [\"model\", \"input\"] }");
    let ask = |content: &'static str| Ask::get(&[]).method("POST").content(content.as_bytes());
    world.call(ask(r#"{"model":"m","input":"a","user":"1"}"#), ok(&[]), 0.0);
    assert!(world.call(ask(r#"{"user":"2", "input":"a", "model":"m"}"#), ok(&[]), 1.0).is_hit());
    assert!(!world.call(ask(r#"{"model":"m","input":"b","user":"1"}"#), ok(&[]), 1.0).is_hit());
    for content in [r#"{"model":"m","input":"a","input":"b"}"#, "model=m", "model=n"] {
        assert!(!world.call(ask(content), ok(&[]), 1.0).is_hit(), "{content}");
        assert!(world.call(ask(content), ok(&[]), 1.0).is_hit(), "{content}");
    }
}

#[test]
fn the_very_client_tells_calls_apart_unless_credentials_are_shared() {
    for (keys, shared) in [("", false), ("share = [\"credentials\"]", true)] {
        let mut world = World::with(keys);
        let open = &[("cache-control", "public, max-age=60")];
        world.call(Ask::get(&[]).client_key(b"one"), ok(open), 0.0);
        assert!(world.call(Ask::get(&[]).client_key(b"one"), ok(&[]), 1.0).is_hit());
        for other in [&b"two"[..], b"one ", b""] {
            let came = world.call(Ask::get(&[]).client_key(other), ok(&[]), 1.0);
            assert_eq!(came.is_hit(), shared, "{other:?}");
        }
    }
}

#[test]
fn headers_tell_calls_apart_whatever_their_order_and_number() {
    let requests: [Pairs<'_>; 7] = [
        &[],
        &[("x-one", "1")],
        &[("x-one", "2")],
        &[("x-one", "1"), ("x-two", "2")],
        &[("x-one", "2"), ("x-two", "1")],
        &[("x-one", "1"), ("x-one", "1")],
        &[("x-one", "1"), ("x-two", "2"), ("x-three", "3")],
    ];
    let mut world = World::with("");
    for (number, headers) in requests.iter().enumerate() {
        let came = world.call(Ask::get(headers), ok(FRESH), 0.0);
        assert!(!came.is_hit(), "{number} got the answer to another");
    }
    for headers in requests {
        let turned: Vec<_> = headers.iter().rev().copied().collect();
        assert!(world.call(Ask::get(&turned), ok(&[]), 1.0).is_hit(), "{headers:?}");
    }
}
