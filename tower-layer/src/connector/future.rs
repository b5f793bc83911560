use super::{Fresh, MAKING, Parts, TimedConnection};
use crate::local::{InForce, look};
use farcall::ConnectTimes;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

pin_project! {
    /// The future of a [`TimedConnector`](super::TimedConnector).
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Connecting<F> {
        #[pin]
        pub(super) inner: F,
        pub(super) began: Instant,
        pub(super) tls: bool,
        // What the layers inside have seen; none where this is one of them.
        pub(super) parts: Option<Parts>,
    }
}

impl<F, T, E> Future for Connecting<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<TimedConnection<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.parts.is_none() {
            let inner = ready!(this.inner.poll(cx))?;
            let took = this.began.elapsed();
            look(&MAKING, |parts| {
                if let Some(parts) = parts {
                    parts.tcp = Some(took);
                }
            });
            return Poll::Ready(Ok(TimedConnection { inner, fresh: None }));
        }
        let polled = {
            let _in_force = InForce::new(&MAKING, this.parts);
            this.inner.poll(cx)
        };
        let inner = ready!(polled)?;
        let times = this.parts.map(|parts| together(parts, this.began.elapsed(), *this.tls));
        Poll::Ready(Ok(TimedConnection { inner, fresh: times.map(Fresh::new) }))
    }
}

/// The parts of a connection that took `whole` to make.
fn together(parts: Parts, whole: Duration, tls: bool) -> ConnectTimes {
    // Without TLS the whole connector is the TCP connector.
    let tcp = parts.tcp.or((!tls).then_some(whole));
    ConnectTimes {
        dns: parts.dns,
        connect: tcp.map(|tcp| tcp.saturating_sub(parts.dns.unwrap_or_default())),
        tls: tcp.filter(|_| tls).map(|tcp| whole.saturating_sub(tcp)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let parts = Parts { dns: Some(ms(3)), tcp: Some(ms(10)) };
        let times = together(parts, ms(25), true);
        assert_eq!((times.dns, times.connect, times.tls), (Some(ms(3)), Some(ms(7)), Some(ms(15))));
    }

    #[test]
    fn what_was_not_seen_is_not_guessed() {
        let unseen = together(Parts { dns: Some(ms(3)), tcp: None }, ms(25), true);
        assert_eq!((unseen.dns, unseen.connect, unseen.tls), (Some(ms(3)), None, None));
        let plain = together(Parts::default(), ms(25), false);
        assert_eq!((plain.dns, plain.connect, plain.tls), (None, Some(ms(25)), None));
    }
}
