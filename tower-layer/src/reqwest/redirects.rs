use super::{exchange, hops};
use ::reqwest::redirect::Policy;

/// A redirect policy that decides as `policy` does, and makes each hop a call of its own, about which rules decide.
///
/// reqwest asks its policy at each redirect, within the future of the request, where the middleware's account of
/// that request is in force. Outside of [`EgressMiddleware`](super::EgressMiddleware) it does nothing more.
///
/// Rules are asked about a hop that `policy` follows, and only then: where it stops, the application gets the
/// redirect, or its error, as without Farcall. A hop that a rule refuses is not sent, and the request fails with
/// [`EgressError::Refused`](crate::EgressError::Refused).
#[must_use]
pub fn redirects(policy: Policy) -> Policy {
    Policy::custom(move |attempt| {
        exchange::in_force(|exchange| exchange.redirected(attempt.status(), attempt.url()));
        hops::asked(&attempt);
        policy.redirect(attempt)
    })
}
