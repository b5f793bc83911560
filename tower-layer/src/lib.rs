//! Farcall for Rust services: what they ask of other people's APIs, counted where the calls are made.
//!
//! Put [`EgressLayer`] around the client, next to the transport:
//!
//! ```
//! use bytes::Bytes;
//! use farcall_tower::{Egress, RequestBody};
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{Service, ServiceExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let client: Client<_, RequestBody<Full<Bytes>>> = Client::builder(TokioExecutor::new()).build_http();
//! let mut client: Egress<_> = Egress::new(client);
//!
//! let request = http::Request::get("http://api.example.com/v1/things").body(Full::<Bytes>::default())?;
//! let response = farcall_tower::customer("acme").scope(client.ready().await?.call(request)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! That is all: calls are counted in the ledger of this user, which `farcall report vendors` shows. They are written each
//! second; those of the last one where the program calls [`Farcall::shutdown`] at its end, and where it dies by SIGTERM,
//! if it was begun with [`Options::handle_sigterm`] and handles that signal nowhere itself:
//!
//! ```no_run
//! use farcall_tower::{Farcall, Options};
//!
//! Farcall::start_global(|| Options { handle_sigterm: true, ..Options::default() });
//! ```
//!
//! | client | what to add |
//! |---|---|
//! | hyper-util, any tower stack over `http` | [`EgressLayer`] |
//! | a connector of hyper-util | [`connector::ConnectTimesLayer`], for DNS, TCP and TLS times |
//! | tonic | `EgressLayer::new().origin(uri).request_body(tonic::body::Body::new)` over the `Channel` |
//! | reqwest | the middleware of the feature `reqwest`, and `redirects` around the client's policy |
//!
//! Who is served by a call is said by [`customer`] around the code, or by the request extension [`Customer`].
//!
//! What a service below the layer adds to requests, a credential say, the layer does not see: answers that a rule of
//! `[[cache]]` keeps are those of one client and its clones, unless [`EgressLayer::client_name`] says that others add the
//! same. Without a name they are not shared by processes either.
//!
//! Where no rule decides anything, the layer adds no task, no lock, no box and no allocation to a call. Where rules
//! do, a call may wait, be sent again or be refused: [`EgressError`] says which, and holds the error of the service
//! below unchanged. Where a process has more than one such layer, it puts a mark among the request's extensions, by which
//! a second layer below knows that the call is counted already; the mark never leaves the process.

mod client;
#[cfg(feature = "hyper")]
pub mod connector;
mod egress;
mod error;
mod local;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod scope;
mod shadows;
mod timer;
mod watched;

pub use egress::{
    AsIs, Egress, EgressError, EgressFuture, EgressLayer, Mapped, Rebody, RequestBody, ResponseBody,
};
pub use error::{Boxed, Cause, Plain, classify};
pub use farcall::{Priority, Refusal, RefusedBy};
pub use farcall_agent::{Farcall, Options};
pub use scope::{Customer, Deadline, Scope, Scoped, Tags, customer, tags};

/// What README tells a newcomer to write compiles as it stands.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../../README.md")]
struct Readme;
