//! The middleware for reqwest.
//!
//! ```
//! use farcall_tower::reqwest::{EgressMiddleware, redirects};
//! use reqwest::redirect::Policy;
//!
//! # async fn example(builder: reqwest::ClientBuilder) -> Result<(), Box<dyn std::error::Error>> {
//! let client = builder.redirect(redirects(Policy::default())).build()?;
//! let client = reqwest_middleware::ClientBuilder::new(client).with(EgressMiddleware::new()).build();
//!
//! let response = client.get("https://api.github.com/rate_limit").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Put it last, after a retry middleware, so that each attempt is seen.
//!
//! What happens inside reqwest is below every middleware, and is seen as follows:
//!
//! - **Redirects.** With [`redirects`] around the client's policy, each hop is a call of its own, with its own
//!   target and time. Rules hold for each: a hop waits for its turn, and one that is denied is not sent. What rules
//!   change in a request (`[[rollout]]` variants, a cheaper model) they change in the first hop; a later one goes as
//!   reqwest makes it, which `farcall doctor` shows as `reqwest_unchanged_redirects`. Nor is a later hop tried again or
//!   hedged. Without `redirects`, reqwest follows unseen: the whole chain is one call to the first URL, with the last
//!   status, and no rule keeps it from any vendor that it leads to; `farcall doctor` shows how often, as
//!   `reqwest_unseen_redirects`.
//! - **Retries** that reqwest makes itself (after a refused HTTP/2 stream, or by `ClientBuilder::retry`) are part
//!   of the call.
//! - **Compression.** With reqwest's `gzip`, `brotli`, `zstd` or `deflate`, the bytes counted are those after
//!   decoding.
//! - **Connections.** reqwest builds its connector itself, and shows neither TCP nor TLS apart: their times are
//!   not reported.

mod acting;
mod detour;
mod exchange;
mod hops;
mod middleware;
mod redirects;

pub use middleware::EgressMiddleware;
pub use redirects::redirects;
