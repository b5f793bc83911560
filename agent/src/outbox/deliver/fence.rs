//! No byte leaves for a vendor while the lease is another's: each write to a connection asks first, TLS's own
//! records included.

use super::super::lease::Permit;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use std::future::Future;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

type Inside = <HttpConnector as Service<http::Uri>>::Response;

/// Makes connections that are fenced.
#[derive(Clone)]
pub(super) struct FencedConnector {
    inner: HttpConnector,
    permit: Arc<Permit>,
}

impl FencedConnector {
    pub(super) fn new(inner: HttpConnector, permit: Arc<Permit>) -> Self {
        Self { inner, permit }
    }
}

impl Service<http::Uri> for FencedConnector {
    type Response = Fenced<Inside>;
    type Error = <HttpConnector as Service<http::Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let (connecting, permit) = (self.inner.call(uri), Arc::clone(&self.permit));
        Box::pin(async move { Ok(Fenced { inner: connecting.await?, permit }) })
    }
}

/// A connection that sends only while the lease is ours.
pub(super) struct Fenced<T> {
    inner: T,
    permit: Arc<Permit>,
}

impl<T: Write + Unpin> Fenced<T> {
    fn asked(&mut self) -> Result<Pin<&mut T>> {
        match self.permit.is_good() {
            true => Ok(Pin::new(&mut self.inner)),
            false => Err(Error::other("the lease on the outbox passed to another process")),
        }
    }
}

impl<T: Connection> Connection for Fenced<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<T: Read + Unpin> Read for Fenced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Fenced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.asked()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.asked()?.poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lease;
    use super::*;
    use std::task::Waker;

    #[derive(Default)]
    struct Wire(Vec<u8>);

    impl Write for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            self.0.extend(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_connection_that_is_open_takes_nothing_once_the_lease_is_gone() {
        let permit = Arc::new(Permit::default());
        let mut wire = Fenced { inner: Wire::default(), permit: Arc::clone(&permit) };
        let mut cx = Context::from_waker(Waker::noop());
        let mut write = |text: &[u8]| Pin::new(&mut wire).poll_write(&mut cx, text).map(|sent| sent.is_ok());
        assert_eq!(write(b"never had"), Poll::Ready(false));
        permit.extend(lease::boottime() + 3_600_000_000_000);
        assert_eq!(write(b"mine"), Poll::Ready(true));
        permit.end();
        assert_eq!(write(b"not mine any more"), Poll::Ready(false));
        let pieces = [IoSlice::new(b"nor"), IoSlice::new(b"so")];
        assert!(matches!(Pin::new(&mut wire).poll_write_vectored(&mut cx, &pieces), Poll::Ready(Err(_))));
        assert_eq!(wire.inner.0, b"mine");
    }
}
