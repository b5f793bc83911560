//! One accepted connection as bytes: TLS or plain, with the handle that can end it rudely.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

/// How long bytes are left alone before an RST or RST_STREAM follows them. A client that happens to write meanwhile
/// (an HTTP/2 acknowledgement) learns of the RST there and never reads what came before it; no
/// condition that this side can observe says that it has read.
pub(crate) const RESET_GRACE: Duration = Duration::from_millis(20);

/// The transport under HTTP.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What answers may decide about the connection that carries them.
///
/// The flushed count lets an HTTP/2 body wait until its bytes are really on the wire before it
/// resets the connection: RST discards what the kernel has not sent.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    reset: AtomicBool,
    killed: Notify,
    written: AtomicU64,
    flushed: AtomicU64,
    progress: Notify,
}

impl Fate {
    /// Ends the connection with RST as soon as its task runs.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.killed.notify_one();
    }

    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits until at least `target` bytes were handed to the kernel.
    pub(crate) async fn flushed_to(&self, target: u64) {
        loop {
            let progress = self.progress.notified();
            if self.flushed.load(Ordering::Acquire) >= target {
                return;
            }
            progress.await;
        }
    }
}

/// A connection; bytes read ahead while sniffing the protocol are replayed first.
#[derive(Debug)]
pub(crate) struct Wire {
    transport: Transport,
    ahead: Bytes,
    fate: Arc<Fate>,
}

impl Wire {
    pub(crate) fn new(transport: Transport, ahead: Bytes, fate: Arc<Fate>) -> Self {
        Self { transport, ahead, fate }
    }

    /// Drops the connection with RST instead of FIN.
    pub(crate) fn reset(self) {
        self.fate.reset.store(true, Ordering::Release);
    }

    fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.fate.reset.load(Ordering::Acquire) {
            // Fails only on a socket that is gone already, which is what we want.
            let _ = self.tcp().set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        })?;
        self.fate.written.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        })?;
        self.fate.written.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
        })?;
        self.fate.flushed.store(self.fate.written(), Ordering::Release);
        self.fate.progress.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
