//! Cost and budgets allocate nothing for a call. Counted by the allocator, on this thread.
#![allow(clippy::unwrap_used)]

use farcall::budget::{Limit, Rule, State, Unit, Verdict};
use farcall::cost::{Ahead, Answer, Facts, Prices, RequestReader, ServiceTier, UsageReader, model_in_path};
use farcall::units::Period;
use farcall::{Currency, Timestamp};

const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);
const REQUEST: &[u8] =
    br#"{"model":"gpt-4o-2024-08-06","messages":[{"role":"user","content":"Hi"}],"max_tokens":64}"#;
const RESPONSE: &[u8] =
    br#"data: {"model":"gpt-4o-2024-08-06","choices":[{"delta":{"content":"Hello"}}],"usage":null}

data: {"model":"gpt-4o-2024-08-06","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}

data: [DONE]

"#;

fn one(prices: &Prices, rule: &Rule, state: &State) {
    let mut request = RequestReader::new();
    REQUEST.chunks(30).for_each(|chunk| request.push(chunk));
    assert_eq!(model_in_path("/v1/chat/completions"), None);
    let price = prices.find("openai", "POST /v1/chat/completions", request.model()).unwrap();
    let ahead = Ahead::new(REQUEST.len() as u64, NOW).asks(request.max_output(), ServiceTier::Standard);
    let estimate = price.estimate(&ahead);
    let Verdict::Admit(admission) = state.reserve(rule, rule.amount(estimate, 0), NOW) else { panic!() };
    let mut reader = UsageReader::new(Some(price), Some("text/event-stream"), None);
    RESPONSE.chunks(16).for_each(|chunk| reader.push(chunk));
    let usage = reader.finish(true);
    let facts = Facts::new(&usage, Answer::Status(200), NOW).bytes(10, 20);
    let cost = prices.settle("openai", "POST /v1/chat/completions", request.model(), &facts).unwrap();
    assert_eq!(cost.nanos, 9 * 2_500 + 12 * 10_000);
    let spent = rule.spent(cost.part(), cost.unknown.is_none(), usage.tokens());
    let _ = state.settle(rule, admission.reservation, spent, NOW);
}

#[test]
fn a_call_with_cost_and_budget_allocates_nothing() {
    let prices = Prices::default();
    let unit = Unit::Money(Currency::USD);
    let rule = Rule::new(Limit { amount: 50_000_000_000, unit, period: Period::Month });
    let state = State::new();
    one(&prices, &rule, &state);
    let counted = allocation_counter::measure(|| (0..1_000).for_each(|_| one(&prices, &rule, &state)));
    assert_eq!(counted.count_total, 0);
    assert_eq!(state.settled(), 1_001 * (9 * 2_500 + 12 * 10_000));
}
