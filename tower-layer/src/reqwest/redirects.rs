use super::exchange;
use ::reqwest::redirect::Policy;

/// A redirect policy that decides as `policy` does, and makes each hop a call of its own.
///
/// reqwest asks its policy at each redirect, within the future of the request, where the middleware's account of
/// that request is in force. Outside of [`EgressMiddleware`](super::EgressMiddleware) it does nothing more.
#[must_use]
pub fn redirects(policy: Policy) -> Policy {
    Policy::custom(move |attempt| {
        exchange::in_force(|exchange| exchange.redirected(attempt.status(), attempt.url()));
        policy.redirect(attempt)
    })
}
