//! Looking a call up in the cache, before anything is asked or paid for: what is at hand, whether an equal call is
//! under way in this process or in another one of the host, and what lies further away.

use super::Engine;
use super::cached::{Cached, Stage};
use super::decide::Halt;
use super::events::What;
use super::flow::Flow;
use super::plan::{CachePart, Plan};
use crate::cache::{Answer, Forwarded, Found, Key, Landing, Place, Status, Use};
use crate::call::{Outcome, RefusedBy};
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A waiting call looks again after a part of the time that it waited, within these bounds.
const SOONEST: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(20);
/// How often a call has what is not at hand looked for: more than it takes, and an end to it.
const MOST_FETCHES: u8 = 6;

/// What is kept need not be asked for again; of equal calls one asks, and the others wait for it.
#[inline]
pub(super) fn before(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    match &plan.cache {
        Some(part) if flow.cached.stage == Stage::Asks => ask(engine, part, flow, now),
        _ => Ok(()),
    }
}

#[inline(never)]
fn ask(engine: &Engine, part: &CachePart, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let Flow { cached, events, side, .. } = flow;
    if let Some(why) = cached.ask.bypass() {
        cached.stage = Stage::Done;
        cached.status = Status { forwarded: Some(Forwarded::Bypass), detail: Some(why), ..Status::default() };
        events.add(now, What::Cache { rule: Arc::clone(&part.name), status: cached.status });
        return Ok(());
    }
    if cached.waits_since.is_none() {
        let variant = side.filter(|(_, side)| side.is_new()).map(|(place, _)| place);
        cached.ask.apart(variant, flow.seed);
    }
    let seen = loop {
        let seen = look(engine, part, cached, now)?;
        let place = place(engine, part, cached, &seen, now)?;
        match place {
            Place::Wait => {
                let since = *cached.waits_since.get_or_insert(now);
                let waited = now.since(since);
                // A client that asked would give up by then: its own time begins when it does.
                let longest = cached.patience.map_or(part.rule.coalesce, |own| own.min(part.rule.coalesce));
                if waited < longest {
                    if !cached.joined {
                        cached.joined = true;
                        events.add(now, What::Joined { rule: Arc::clone(&part.name) });
                    }
                    let again = now.plus((waited / 8).clamp(SOONEST, LATEST));
                    return Err(Halt::Wait(again.min(since.plus(longest))));
                }
                // Long enough: it asks for itself.
            }
            Place::Lead | Place::Alone => {}
        }
        if !fetched(engine, cached, seen.key, now)? {
            break seen;
        }
    };
    if cached.ask.only_if_cached() {
        cached.status = Status { nothing: true, detail: Some("only-if-cached"), ..Status::default() };
        return Err(Halt::Cached(Answer::gateway_timeout(), Outcome::Refused(RefusedBy::Cache)));
    }
    // Whoever leads need not wait for the vendor himself, where that can be done beside the call.
    if cached.refreshes
        && cached.leads.is_some()
        && !side.is_some_and(|(_, side)| side.is_new())
        && let Some(halt) = instead(cached, &seen)
    {
        cached.refreshing = true;
        return Err(halt);
    }
    // Whoever goes by himself has nobody left to wait for, whatever he waits for later.
    (cached.stage, cached.waits_for) = (Stage::Sent, None);
    Ok(())
}

/// What answers a call at once: what is at hand for it and will do as it is, and for how many seconds it is fresh.
pub(super) fn at_hand(
    engine: &Engine,
    part: &CachePart,
    cached: &Cached,
    now: Timestamp,
) -> Option<(Arc<Answer>, i64)> {
    if cached.stage != Stage::Asks || cached.ask.bypass().is_some() {
        return None;
    }
    let (Found::Answer(answer), _) = engine.cache.find(&cached.ask, &part.rule) else { return None };
    match answer.judge(&part.rule, &cached.ask, now) {
        Use::Fresh(ttl) | Use::Accepted(ttl) => Some((answer, ttl)),
        Use::Validate { .. } => None,
    }
}

/// What is at hand for a call, and will not do as it is.
struct Seen {
    key: Key,
    /// For how many seconds it is fresh, where others may have it while it is asked for.
    meanwhile: Option<i64>,
}

/// Looks at what is at hand: the answer, where that will do.
fn look(engine: &Engine, part: &CachePart, cached: &mut Cached, now: Timestamp) -> Result<Seen, Halt> {
    let (found, key) = engine.cache.find(&cached.ask, &part.rule);
    // What an earlier look found may have been made useless since.
    (cached.found, cached.looked) = (None, now);
    cached.status.forwarded = Some(Forwarded::UriMiss);
    let mut meanwhile = None;
    match found {
        Found::Nothing => {}
        Found::OtherHeaders => cached.status.forwarded = Some(Forwarded::VaryMiss),
        Found::Answer(answer) => match answer.judge(&part.rule, &cached.ask, now) {
            Use::Fresh(ttl) | Use::Accepted(ttl) => {
                cached.land(Landing::Kept, now);
                cached.status = match cached.joined {
                    true => Status { ttl: Some(ttl), collapsed: true, ..cached.status },
                    false => Status { ttl: Some(ttl), ..Status::default() },
                };
                return Err(Halt::Cached(answer, Outcome::Cached));
            }
            Use::Validate { requested, ttl, meanwhile: may } => {
                cached.status.forwarded = Some(if requested { Forwarded::Request } else { Forwarded::Stale });
                meanwhile = may.then_some(ttl);
                cached.found = Some(answer);
            }
        },
    }
    Ok(Seen { key, meanwhile })
}

/// The call's place among equal ones, of this process and then of the host. Who has to wait takes a stale answer
/// instead, where that may be handed out meanwhile.
fn place(
    engine: &Engine,
    part: &CachePart,
    cached: &mut Cached,
    seen: &Seen,
    now: Timestamp,
) -> Result<Place, Halt> {
    if part.rule.coalesce.is_zero() || cached.ask.insists() || cached.ask.only_if_cached() {
        return Ok(Place::Alone);
    }
    if cached.leads.is_some() && cached.key != seen.key {
        // What varies is known by now, and lies elsewhere: whoever waits is to look there.
        cached.land(Landing::Kept, now);
    }
    let place = match cached.leads.is_some() {
        true => Place::Lead,
        false => engine.cache.flights.join(seen.key, cached.ask.number(), now),
    };
    cached.waits_for = (place == Place::Wait).then_some(seen.key);
    match place {
        Place::Lead if cached.leads.is_none() => {
            cached.leads = Some(Arc::clone(&engine.cache));
            cached.key = seen.key;
            // Whoever led before may have come to its end since the first look.
            let why = cached.status.forwarded;
            look(engine, part, cached, now).inspect_err(|_| {
                cached.status.forwarded = why;
                cached.status.collapsed = true;
            })?;
        }
        Place::Lead => {}
        Place::Wait => return instead(cached, seen).map_or(Ok(Place::Wait), Err),
        // Whoever led hung: what is kept is better than to hang, too.
        Place::Alone => return instead(cached, seen).map_or(Ok(Place::Alone), Err),
    }
    let Some(store) = engine.cache.shared().filter(|_| !cached.hosted) else { return Ok(Place::Lead) };
    match store.join(seen.key, now) {
        Place::Lead => {
            cached.hosted = true;
            Ok(Place::Lead)
        }
        Place::Alone => Ok(Place::Alone),
        // It may be there already: whoever asks may be asking for something newer.
        Place::Wait if cached.fetched.is_none() => Ok(Place::Alone),
        Place::Wait => match instead(cached, seen) {
            Some(halt) => {
                cached.land(Landing::Kept, now);
                Err(halt)
            }
            None => Ok(Place::Wait),
        },
    }
}

/// A stale answer for one of those who would have to wait.
fn instead(cached: &mut Cached, seen: &Seen) -> Option<Halt> {
    let (ttl, found) = seen.meanwhile.zip(cached.found.clone())?;
    cached.status = Status { ttl: Some(ttl), detail: Some("stale-while-revalidate"), ..Status::default() };
    Some(Halt::Cached(found, Outcome::Cached))
}

/// Has it looked for further away, once for each key and place among those of the host. Whether that is over just now,
/// so that another look is worth while.
fn fetched(engine: &Engine, cached: &mut Cached, key: Key, now: Timestamp) -> Result<bool, Halt> {
    let Some(store) = engine.cache.shared() else { return Ok(false) };
    let wanted = (key, cached.hosted);
    if cached.fetch.is_none() {
        if cached.fetched == Some(wanted) || cached.fetches >= MOST_FETCHES || cached.ask.insists() {
            return Ok(false);
        }
        cached.fetched = Some(wanted);
        cached.fetches += 1;
        cached.fetch = store.fetch(key, now);
    }
    let Some(fetch) = &cached.fetch else { return Ok(false) };
    let until = fetch.until();
    if !fetch.is_over() && now < until {
        let since = *cached.waits_since.get_or_insert(now);
        return Err(Halt::Wait(now.plus((now.since(since) / 8).clamp(SOONEST, LATEST)).min(until)));
    }
    if !fetch.is_over() {
        engine.tallies.unfetched_answers.fetch_add(1, Ordering::Relaxed);
    }
    cached.fetch = None;
    Ok(true)
}
