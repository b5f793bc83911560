//! How long a kept answer is fresh, and what may be done with it then and after (RFC 9111, section 4.2; RFC 5861).

use super::Answer;
use crate::cache::Rule;
use crate::cache::ask::Ask;
use crate::cache::control::Control;
use crate::units::Timestamp;
use std::time::Duration;

/// What may be done with a kept answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Hand it out: fresh for so many seconds yet.
    Fresh(i64),
    /// Hand it out: stale for so many seconds, and the request says that this will do.
    Accepted(i64),
    /// Ask whether it is still good; `meanwhile`: others may have it until that is known.
    Validate { requested: bool, ttl: i64, meanwhile: bool },
}

/// That there is nothing.
const NEGATIVE: [u16; 5] = [404, 405, 410, 414, 501];

/// Beyond this a stale answer with a validator is not kept for being asked about, where room is scarce.
const ASKED_ABOUT: Duration = Duration::from_secs(3_600);

impl Answer {
    /// RFC 9111, section 4.2.3.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        self.initial_age + now.since(self.received_at)
    }

    /// What the rule says of how long it is fresh, instead of its headers.
    pub(super) fn overridden(&self, rule: &Rule) -> Option<Duration> {
        match self.status {
            200..300 | 300 | 301 | 308 => rule.ttl,
            status if NEGATIVE.contains(&status) => rule.negative_ttl,
            _ => None,
        }
    }

    pub(super) fn lifetime(&self, rule: &Rule) -> Duration {
        match self.overridden(rule) {
            Some(lifetime) => lifetime,
            // It must be asked about each time (section 5.2.2.4).
            None if self.control.no_cache => Duration::ZERO,
            None => self.explicit.or(self.heuristic).unwrap_or_default(),
        }
    }

    /// For how many seconds it is fresh yet; negative: stale for so many.
    fn ttl(&self, rule: &Rule, now: Timestamp) -> (Duration, Duration) {
        // A rule's time runs from the arrival: how old an answer was when it came, the rule does not ask.
        let age = match self.overridden(rule) {
            Some(_) => now.since(self.received_at),
            None => self.age(now),
        };
        (self.lifetime(rule), age)
    }

    /// What may be done with it for `ask`, now.
    pub(crate) fn judge(&self, rule: &Rule, ask: &Ask, now: Timestamp) -> Use {
        let (lifetime, age) = self.ttl(rule, now);
        let ttl = seconds_left(lifetime, age);
        let Control { no_cache, max_age, min_fresh, max_stale, .. } = ask.control;
        let wanted = no_cache
            || max_age.is_some_and(|most| self.age(now) > most)
            || min_fresh.is_some_and(|least| lifetime.saturating_sub(age) < least);
        let stale_for = age.saturating_sub(lifetime);
        if age < lifetime {
            return match wanted {
                true => Use::Validate { requested: true, ttl, meanwhile: false },
                false => Use::Fresh(ttl),
            };
        }
        if !wanted && max_stale.is_some_and(|most| stale_for <= most) && self.may_be_stale(rule) {
            return Use::Accepted(ttl);
        }
        let meanwhile = !wanted && self.serves_meanwhile(rule, stale_for);
        Use::Validate { requested: false, ttl, meanwhile }
    }

    /// Whether it may be handed out although the vendor did not say that it is still good; its ttl then.
    /// `refused`: not by an error of the vendor's, but because we are not to ask.
    pub(crate) fn instead(&self, rule: &Rule, refused: bool, now: Timestamp) -> Option<i64> {
        let (lifetime, age) = self.ttl(rule, now);
        // By the header only for errors (RFC 5861, section 4).
        let told = self.control.stale_if_error.filter(|_| !refused);
        let window = rule.stale_if_error.or(told)?;
        let fits = age.saturating_sub(lifetime) <= window && self.may_be_stale(rule) && !self.is_error(rule);
        fits.then(|| seconds_left(lifetime, age))
    }

    pub(super) fn spare(&self, rule: &Rule) -> Duration {
        let window = rule.stale_if_error.or(self.control.stale_if_error);
        window.filter(|_| self.may_be_stale(rule) && !self.is_error(rule)).unwrap_or_default()
    }

    /// How long after it came it may be of use: fresh, handed out stale, or asked about for a while.
    pub(in crate::cache) fn useful_for(&self, rule: &Rule) -> Duration {
        let (lifetime, age) = self.ttl(rule, self.received_at);
        let while_asking = rule.stale_while_revalidate.or(self.control.stale_while_revalidate);
        let while_asking = while_asking.filter(|_| self.may_be_stale(rule) && !self.is_error(rule));
        let validator = self.headers.contains_key("etag") || self.headers.contains_key("last-modified");
        let asked_about = if validator { ASKED_ABOUT } else { Duration::ZERO };
        let spare = self.spare(rule).max(while_asking.unwrap_or_default()).max(asked_about);
        lifetime.saturating_sub(age).saturating_add(spare)
    }

    /// Whether it is an error that no rule takes for an answer: nobody is helped by an old one.
    fn is_error(&self, rule: &Rule) -> bool {
        self.status >= 400 && self.overridden(rule).is_none()
    }

    /// RFC 9111, section 4.2.4.
    fn may_be_stale(&self, rule: &Rule) -> bool {
        let Control { must_revalidate, no_cache, proxy_revalidate, s_maxage, .. } = self.control;
        let of_shared = rule.share_credentials && (proxy_revalidate || s_maxage.is_some());
        // A rule's ttl stands instead of `no-cache`, too.
        let asked_about = no_cache && self.overridden(rule).is_none();
        rule.ignore_must_revalidate || !(must_revalidate || asked_about || of_shared)
    }

    /// Whether it is of use to who asks the same a moment later.
    pub(crate) fn is_of_use(&self, rule: &Rule, now: Timestamp) -> bool {
        let (lifetime, age) = self.ttl(rule, now);
        age < lifetime || self.serves_meanwhile(rule, age.saturating_sub(lifetime))
    }

    /// Whether it may be handed out while one call asks for a new one, so long after it was fresh (RFC 5861,
    /// section 3).
    fn serves_meanwhile(&self, rule: &Rule, stale_for: Duration) -> bool {
        let window = rule.stale_while_revalidate.or(self.control.stale_while_revalidate);
        self.may_be_stale(rule) && !self.is_error(rule) && window.is_some_and(|window| stale_for <= window)
    }
}

fn seconds_left(lifetime: Duration, age: Duration) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds(lifetime).saturating_sub(seconds(age))
}
