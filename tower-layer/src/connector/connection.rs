use super::Fresh;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use pin_project_lite::pin_project;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

pin_project! {
    /// A connection that carries what it took to make it, until its first call takes that.
    #[derive(Debug)]
    pub struct TimedConnection<T> {
        #[pin]
        pub(super) inner: T,
        pub(super) fresh: Option<Fresh>,
    }
}

impl<T> TimedConnection<T> {
    /// The connection inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The connection inside, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The connection inside, without its times.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Connection> Connection for TimedConnection<T> {
    fn connected(&self) -> Connected {
        let connected = self.inner.connected();
        match &self.fresh {
            Some(fresh) => connected.extra(fresh.clone()),
            None => connected,
        }
    }
}

impl<T: Read> Read for TimedConnection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<Result<()>> {
        self.project().inner.poll_read(cx, buf)
    }
}

impl<T: Write> Write for TimedConnection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }
}
