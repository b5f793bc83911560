//! The peer that does most of what a decision does: breaker, bulkhead and rate limiter of tower-resilience around a
//! service that does nothing.

use crate::harness::on_threads;
use std::hint::black_box;
use std::time::Duration;
use tower::{Service, ServiceExt};

pub(crate) const PEER: &str = "tower-resilience 0.13: breaker, bulkhead, rate limiter";
/// Its breaker lies behind tokio's fair mutex, which is handed to who waits for it: two threads that meet there put each
/// other to sleep and wake each other with every call, 8 to 25 us. Where they hardly run at the same time, since the
/// machine is busy, they do not meet, and it is 1 us. Hence a stack for each thread in the rows that are compared.
pub(crate) const SHARED: &str = "the same, one stack for both threads";

/// A stack.
macro_rules! new {
    () => {
        tower::ServiceBuilder::new()
            .layer(
                tower_resilience::circuitbreaker::CircuitBreakerLayer::builder()
                    .failure_rate_threshold(0.5)
                    .build()
                    .unwrap(),
            )
            .layer(
                tower_resilience::bulkhead::BulkheadLayer::builder()
                    .max_concurrent_calls(1_000)
                    .build()
                    .unwrap(),
            )
            .layer(
                tower_resilience::ratelimiter::RateLimiterLayer::builder()
                    .limit_for_period(1_000_000_000)
                    .refresh_period(std::time::Duration::from_secs(1))
                    .build()
                    .unwrap(),
            )
            .service(tower::service_fn(|n: u32| async move {
                Ok::<_, std::convert::Infallible>(std::hint::black_box(n))
            }))
    };
}
pub(crate) use new;

/// What `calls` calls take on so many threads: with one stack, of which each has a clone, or with one for each.
pub(crate) fn run<S>(threads: usize, calls: u32, stacks: &[S]) -> Duration
where
    S: Service<u32, Error: std::fmt::Debug> + Clone + Sync,
{
    on_threads(threads, |thread| {
        let mut stack = stacks[thread % stacks.len()].clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for n in 0..calls / u32::try_from(threads).unwrap() {
                let _ = black_box(stack.ready().await.unwrap().call(n).await);
            }
        });
    })
}
