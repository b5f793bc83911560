//! What it costs: prices, tiers, and which of them holds.

use super::*;

#[test]
fn a_call_costs_what_the_vendor_bills() {
    let prices = Prices::default();
    let cost = |vendor: &str, usage: &Usage| {
        prices.settle(vendor, "POST /v1/x", "", &Facts::new(usage, Answer::Status(200), NOW)).unwrap()
    };
    // 176 * 2.50 + 1024 * 1.25 + 300 * 10 dollars a million.
    assert_eq!(cost("openai", &json(CHAT)).whole().unwrap().to_string(), "0.00472 USD");
    // 25 * 3 + 4000 * 0.30 + 600 * 3.75 + 400 * 6 + 150 * 15.
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM), true);
    assert_eq!(cost("anthropic", &usage).whole().unwrap().to_string(), "0.008175 USD");
    // 600 * 0.30 + 200 * 0.03 + 100 * 1 + 100 * 0.10 + 150 * 2.50.
    assert_eq!(cost("gemini", &json(GEMINI)).whole().unwrap().to_string(), "0.000671 USD");
}

#[test]
fn half_a_statement_is_a_known_part_and_a_reason() {
    let prices = Prices::default();
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM[..4]), false);
    let facts = Facts::new(&usage, Answer::Status(200), NOW);
    let cost = prices.settle("anthropic", "POST /v1/messages", "claude-sonnet-4-5", &facts).unwrap();
    assert_eq!((cost.part().to_string().as_str(), cost.whole()), ("0.00594 USD", None));
    assert_eq!(cost.unknown, Some(Unknown::Abandoned));
}

#[test]
fn a_large_prompt_costs_the_larger_price() {
    let prices = Prices::default();
    let price = prices.find("gemini", "", "gemini-2.5-pro").unwrap();
    let cost = |tokens: u64| {
        let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, tokens).with(Kind::Output, 0);
        price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap().to_string()
    };
    assert_eq!(cost(200_000), "0.25 USD");
    assert_eq!(cost(200_001), "0.5000025 USD");
}

#[test]
fn of_several_tiers_the_narrowest_holds() {
    let text = r#"
        [[price]]
        vendor = "v.example"
        input = "1 USD / token"
        [[price.tier]]
        above_prompt = "1k"
        input = "3 USD / token"
        [[price.tier]]
        above_prompt = "100"
        input = "2 USD / token"
        [[price.tier]]
        hours = "09:00-11:00"
        input = "0.5 USD / token"
        [[price.tier]]
        days = ["sat"]
        input = "0.7 USD / token"
        [[price.tier]]
        service_tier = "flex"
        above_prompt = "100"
        input = "0.1 USD / token"
    "#;
    let prices = Prices::new(crate::config::read_prices("f", text).0);
    let price = prices.find("v.example", "", "").unwrap();
    let rate = |tokens: u64, tier, hours: i64| {
        let mut usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, tokens);
        usage.tier = tier;
        let at = Timestamp::from_nanos((1_795_255_200 + hours * 3_600) as u64 * 1_000_000_000);
        price.settle(&Facts::new(&usage, Answer::Status(200), at)).nanos
            / i64::try_from(tokens).unwrap()
            / 1_000_000
    };
    assert_eq!(rate(1_001, ServiceTier::Standard, 0), 3_000);
    assert_eq!(rate(1_000, ServiceTier::Standard, 0), 2_000);
    assert_eq!(rate(100, ServiceTier::Standard, 0), 500, "10:00 on a Saturday");
    assert_eq!(rate(100, ServiceTier::Standard, 1), 700, "11:00 on a Saturday");
    assert_eq!(rate(100, ServiceTier::Standard, -24), 500, "10:00 on a Friday");
    assert_eq!(rate(100, ServiceTier::Standard, -23), 1_000, "11:00 on a Friday");
    assert_eq!(rate(101, ServiceTier::Flex, 0), 100);
    assert_eq!(rate(100, ServiceTier::Flex, 0), 0, "no price for a small prompt in flex: unknown");
}

#[test]
fn a_service_tier_has_its_own_price_or_none() {
    let price = gpt_4o();
    let mut usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, 1_000_000).with(Kind::Output, 0);
    let cost = |usage: &Usage| price.settle(&Facts::new(usage, Answer::Status(200), NOW));
    assert_eq!(cost(&usage).whole().unwrap().to_string(), "2.50 USD");
    usage.tier = ServiceTier::Priority;
    assert_eq!(cost(&usage).whole().unwrap().to_string(), "4.25 USD");
    usage.tier = ServiceTier::Other;
    assert_eq!(cost(&usage), Cost::unknown(Unknown::UnpricedTier, Currency::USD));
}

#[test]
fn hours_and_days_have_their_prices() {
    let prices = Prices::default();
    let price = prices.find("deepseek", "", "deepseek-flash").unwrap();
    let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, 1_000_000).with(Kind::Output, 0);
    let cost = |at: &str, now: Timestamp| {
        (at.to_owned(), price.settle(&Facts::new(&usage, Answer::Status(200), now)).part().to_string())
    };
    let hours = |hours: i64| Timestamp::from_nanos((1_795_255_200 + hours * 3_600) as u64 * 1_000_000_000);
    assert_eq!(cost("Saturday 10:00", hours(0)).1, "0.15 USD");
    assert_eq!(cost("Saturday 07:00", hours(-3)).1, "0.15 USD");
    assert_eq!(cost("Friday 07:00", hours(-27)).1, "0.30 USD");
    assert_eq!(cost("Friday 10:00", hours(-24)).1, "0.15 USD");
}

#[test]
fn calls_that_fail_cost_nothing_and_calls_without_an_answer_cost_who_knows() {
    let price = gpt_4o();
    let usage = json(r#"{"error":{"message":"slow down"}}"#);
    let cost = |answer| price.settle(&Facts::new(&usage, answer, NOW));
    assert_eq!(cost(Answer::Status(429)).whole(), Some(Money::zero(Currency::USD)));
    assert_eq!(cost(Answer::NotSent).whole(), Some(Money::zero(Currency::USD)));
    assert_eq!(cost(Answer::None).unknown, Some(Unknown::NoAnswer));
    assert_eq!(cost(Answer::Status(200)).unknown, Some(Unknown::NotStated));
}

#[test]
fn what_has_no_price_is_unknown_and_what_asks_for_none_is_nothing() {
    let prices = Prices::default();
    let none = json(r#"{"data":[]}"#);
    let facts = Facts::new(&none, Answer::Status(200), NOW);
    assert_eq!(prices.settle("openai", "GET /v1/models", "", &facts), None);
    let chat = json(CHAT);
    let facts = Facts::new(&chat, Answer::Status(200), NOW);
    assert_eq!(prices.settle("nobody", "POST /x", "", &facts).unwrap().unknown, Some(Unknown::NoPrice));
    let facts = Facts::new(&none, Answer::Status(200), NOW);
    assert_eq!(prices.settle("openai", "POST /x", "gpt-99", &facts).unwrap().unknown, Some(Unknown::NoPrice));
    // A search that Gemini's price list does not have.
    let usage = chat.with(Kind::Search, 1);
    let cost = gpt_4o().settle(&Facts::new(&usage, Answer::Status(200), NOW));
    assert_eq!(
        (cost.part().to_string().as_str(), cost.unknown),
        ("0.00472 USD", Some(Unknown::UnpricedKind))
    );
}

#[test]
fn a_vendors_own_statement_of_the_cost_is_taken_to_the_nano_unit() {
    let prices = Prices::default();
    let price = prices.find("openrouter", "POST /api/v1/chat/completions", "any/model").unwrap();
    for (stated, cost) in [("0.95", "0.95 USD"), ("1.23456789e-05", "0.000012346 USD"), ("3", "3.00 USD")] {
        let body = format!(
            r#"{{"model":"any/model","usage":{{"prompt_tokens":1,"completion_tokens":2,"cost":{stated}}}}}"#
        );
        let mut reader = UsageReader::new(Some(price), Some("application/json"), None);
        reader.push(body.as_bytes());
        let usage = reader.finish(true);
        assert_eq!(
            price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap().to_string(),
            cost
        );
    }
    let usage = UsageReader::new(Some(price), Some("application/json"), None).finish(true);
    let cost = price.settle(&Facts::new(&usage, Answer::Status(200), NOW));
    assert_eq!(cost.unknown, Some(Unknown::NotStated));
}

#[test]
fn own_units_calls_and_bytes_have_prices_and_volume_makes_them_cheaper() {
    let text = r#"
        [[price]]
        vendor = "maps.example"
        call = "5 USD / 1k calls"
        sent = "1 USD / MB"
        received = "0.1 USD / GB"
        charges_errors = true
        [[price.unit]]
        header = "X-Credits-Used"
        price = "0.02 USD / unit"
        [[price.tier]]
        above_volume = "100"
        call = "4 USD / 1k calls"
    "#;
    let (own, errors) = crate::config::read_prices("f", text);
    assert!(errors.is_empty(), "{errors:?}");
    let prices = Prices::new(own);
    let price = prices.find("maps.example", "GET /route", "").unwrap();
    let mut reader = UsageReader::new(Some(price), Some("image/png"), None);
    reader.header(price, "x-credits-used", " 2.5 ");
    let usage = reader.finish(true);
    let cost = |volume, status| {
        let facts = Facts::new(&usage, Answer::Status(status), NOW).bytes(1_000, 1_000_000).volume(volume);
        price.settle(&facts)
    };
    assert_eq!(cost(100, 200).whole().unwrap().to_string(), "0.0561 USD");
    assert_eq!(cost(101, 200).whole().unwrap().to_string(), "0.0551 USD");
    assert_eq!(cost(0, 500).whole().unwrap().to_string(), "0.0561 USD");
    assert!(price.asks_volume() && price.asks_response() && !price.asks_body());
    let unstated = UsageReader::new(Some(price), Some("image/png"), None).finish(true);
    let cost = price.settle(&Facts::new(&unstated, Answer::Status(200), NOW));
    assert_eq!((cost.nanos, cost.unknown), (5_000_000, Some(Unknown::OtherContent)));
}

#[test]
fn the_months_volume_is_counted_as_calls_settle() {
    let text = r#"
        [[price]]
        vendor = "maps.example"
        call = "5 USD / call"
        [[price.tier]]
        above_volume = "1"
        call = "4 USD / call"
    "#;
    let prices = Prices::new(crate::config::read_prices("f", text).0);
    let usage = Usage::unknown(Unknown::OtherContent);
    let settle = |answer, at| {
        let cost = prices.settle("maps.example", "GET /x", "", &Facts::new(&usage, answer, at)).unwrap();
        cost.whole().unwrap().nanos() / 1_000_000_000
    };
    let estimate = |at| {
        prices.estimate("maps.example", "GET /x", "", &Ahead::new(0, at)).unwrap().nanos() / 1_000_000_000
    };
    assert_eq!((settle(Answer::NotSent, NOW), estimate(NOW)), (0, 5));
    assert_eq!((settle(Answer::Status(200), NOW), settle(Answer::Status(200), NOW)), (5, 5));
    assert_eq!((estimate(NOW), settle(Answer::Status(200), NOW)), (4, 4));
    let next = NOW.plus_millis(86_400_000 * 15);
    assert_eq!((estimate(next), settle(Answer::Status(200), next)), (5, 5));
}

#[test]
fn the_narrowest_price_holds_and_own_ones_come_first() {
    let text = r#"
        [[price]]
        vendor = "openai"
        model = "gpt-4o*"
        call = "1 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini*"
        call = "2 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini*"
        endpoint = "POST /v1/embed*"
        call = "3 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini"
        call = "4 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini"
        call = "5 USD / call"
        [[price]]
        vendor = "openai"
        endpoint = "POST /v1/files"
        call = "6 USD / call"
        [[price]]
        vendor = "openai"
        endpoint = "GET /v1/files/{id}*"
        call = "7 USD / call"
    "#;
    let (own, _) = crate::config::read_prices("f", text);
    let prices = Prices::new(own);
    let call = |endpoint: &str, model: &str| {
        let price = prices.find("openai", endpoint, model)?;
        let usage = Usage::unknown(Unknown::NotStated);
        Some(price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).nanos / 1_000_000_000)
    };
    assert_eq!(call("POST /v1/chat", "gpt-4o"), Some(1));
    assert_eq!(call("POST /v1/chat", "gpt-4o-2024-08-06"), Some(1));
    assert_eq!(call("POST /v1/chat", "gpt-4o-mini-2024-07-18"), Some(2));
    assert_eq!(call("POST /v1/embeddings", "gpt-4o-mini-2024-07-18"), Some(3));
    assert_eq!(call("POST /v1/chat", "gpt-4o-mini"), Some(5), "the later line");
    assert_eq!(call("POST /v1/files", ""), Some(6));
    assert_eq!(call("POST /v1/files", "gpt-5"), Some(0), "the catalogue's, which names the model");
    assert_eq!(call("GET /v1/files", ""), None);
    assert_eq!(call("GET /v1/files/{file}/content", ""), Some(7), "whatever a placeholder is called");
    assert!(prices.has("openai") && !prices.has("stripe"));
}

#[test]
fn the_catalogue_prices_the_models_that_people_use() {
    let prices = Prices::default();
    for (vendor, models) in [
        (
            "openai",
            "gpt-4o gpt-4o-2024-08-06 gpt-4o-mini gpt-4.1 gpt-4.1-mini gpt-4.1-nano gpt-5 gpt-5-2025-08-07 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.2 gpt-5.4 gpt-5.4-mini gpt-5.5 gpt-6-luna o1 o3 o3-mini o3-pro o4-mini gpt-3.5-turbo gpt-4-turbo text-embedding-3-small text-embedding-3-large",
        ),
        (
            "anthropic",
            "claude-3-haiku-20240307 claude-3-5-haiku-latest claude-sonnet-4-5-20250929 claude-sonnet-5 claude-sonnet-5-5 claude-opus-4-1-20250805 claude-opus-4-5 claude-opus-5 claude-opus-5-5 claude-haiku-4-5-20251001 claude-haiku-5-5",
        ),
        (
            "gemini",
            "gemini-2.0-flash gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-3-flash-preview gemini-3.5-flash gemini-3.8-flash gemini-embedding-001 models/gemini-2.5-pro",
        ),
        (
            "mistral",
            "mistral-large-latest mistral-small-latest mistral-medium-latest codestral-latest mistral-embed",
        ),
        ("groq", "llama-3.3-70b-versatile llama-3.1-8b-instant openai/gpt-oss-120b"),
        ("deepseek", "deepseek-v4-flash deepseek-v4-pro deepseek-flash"),
        ("xai", "grok-3 grok-4-0709 grok-4.6"),
        ("cohere", "command-a-03-2025 command-r-plus command-r7b-12-2024 embed-v4.0"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("voyageai", "voyage-3.5"),
        ("moonshot", "kimi-k3"),
        (
            "bedrock",
            "amazon.nova-pro-v1:0 us.amazon.nova-lite-v1%3A0 global.anthropic.claude-sonnet-4-5-20250929-v1:0 us.anthropic.claude-opus-4-5-20251101-v1:0",
        ),
    ] {
        for model in models.split(' ') {
            assert!(prices.find(vendor, "POST /x", model).is_some(), "{vendor} {model}");
        }
    }
    assert!(prices.find("openai", "POST /x", "gpt-99").is_none(), "a model that nobody knows has no price");
}

#[test]
fn every_price_of_the_catalogue_is_dated_and_plausible() {
    let mut models = 0;
    for price in Prices::default().iter() {
        models += price.models.len();
        let stated = price.units.is_empty();
        assert_eq!(price.as_of.is_some(), stated, "{price:?}");
        assert_eq!(price.currency, Currency::USD);
        // Nothing is dearer than a thousand dollars for a million tokens.
        let most = Rate::parse("1000 USD / 1M tokens", Per::Token).unwrap().0;
        let kinds = price.rates.kinds.iter().enumerate().filter(|(kind, _)| *kind != Kind::Search as usize);
        for (_, rate) in kinds.filter_map(|(kind, rate)| Some((kind, (*rate)?))) {
            assert!(rate <= most, "{price:?}");
        }
        if stated {
            let (input, cached) = (price.rates.of(Kind::Input), price.rates.of(Kind::CachedInput));
            assert!(input.is_some() && cached <= input, "{price:?}");
        }
    }
    assert!(models >= 300, "{models}");
}

#[test]
fn an_estimate_allows_for_the_longest_answer() {
    let price = gpt_4o();
    let ahead = Ahead::new(4_000, NOW).asks(Some(500), ServiceTier::Standard);
    assert_eq!(price.estimate(&ahead).to_string(), "0.0075 USD");
    assert_eq!(
        price.estimate(&Ahead::new(4_000, NOW)).to_string(),
        "0.0125 USD",
        "a thousand tokens unless said"
    );
    let absurd = Ahead::new(u64::MAX, NOW).asks(Some(u64::MAX), ServiceTier::Standard);
    assert_eq!(price.estimate(&absurd).nanos(), i64::MAX);
}

proptest! {
    #[test]
    fn a_cost_is_the_exact_sum_rounded_once(input in 0u64..10_000_000, cached in 0u64..10_000_000, output in 0u64..10_000_000) {
        let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, input).with(Kind::CachedInput, cached).with(Kind::Output, output);
        let price = gpt_4o();
        let cost = price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap();
        // 2500, 1250 and 10000 nano-dollars a token.
        prop_assert_eq!(cost.nanos() as u64, input * 2_500 + cached * 1_250 + output * 10_000);
    }

    #[test]
    fn the_longest_pattern_is_found_as_by_looking_at_all(
        patterns in proptest::collection::vec("[ab]{0,5}", 1..12),
        model in "[abc]{1,7}",
    ) {
        let text: String = patterns.iter().enumerate().map(|(number, pattern)| {
            format!("[[price]]\nvendor = \"v.example\"\nmodel = \"{pattern}*\"\ncall = \"{number} USD / call\"\n")
        }).collect();
        let (own, errors) = crate::config::read_prices("f", &text);
        prop_assert!(errors.is_empty());
        let expected = patterns.iter().enumerate().filter(|(_, pattern)| model.starts_with(pattern.as_str()))
            .max_by_key(|(number, pattern)| (pattern.len(), *number)).map(|(_, pattern)| format!("{pattern}*"));
        let prices = Prices::new(own);
        let found = prices.find("v.example", "", &model).map(|price| price.models[0].clone());
        prop_assert_eq!(found, expected);
    }
}
