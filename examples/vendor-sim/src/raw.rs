//! Answers that no HTTP library agrees to send, written by hand on an HTTP/1.1 connection.
//!
//! The connection is taken from hyper for good: what follows here is its last exchange.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{HeaderValue, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::answer::{Answer, Ending};
use crate::clock;
use crate::counts::Exchange;
use crate::wire::{RESET_GRACE, Wire};

/// How long a closing connection goes on reading: closing with unread input would turn FIN to RST.
const DRAIN: Duration = Duration::from_secs(2);

/// An answer to be written by hand, with the exchange that it ends.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub(crate) answer: Answer,
    pub(crate) exchange: Exchange,
}

/// Writes the answer and ends the connection; an error means that the client was gone first.
pub(crate) async fn play(mut wire: Wire, takeover: Takeover) -> io::Result<()> {
    let Takeover { answer, mut exchange } = takeover;
    if answer.ending == Ending::ResetBeforeHead {
        drop(exchange);
        wire.reset();
        return Ok(());
    }
    if let Some(raw) = &answer.raw {
        exchange.settle();
        wire.write_all(raw).await?;
        return close(wire).await;
    }
    exchange.answered(answer.status.as_u16());
    wire.write_all(&head(&answer)).await?;
    let ending = answer.ending;
    let mut until = match ending {
        Ending::Reset(k) | Ending::Close(k) | Ending::Stall(k) => k,
        Ending::Complete | Ending::ResetBeforeHead => u64::MAX,
    };
    let chunked = !answer.sized && !answer.verbatim;
    let every = answer.body.every();
    let mut pieces = answer.body.into_pieces();
    let mut first = true;
    while until > 0 {
        let Some(mut piece) = pieces.next() else { break };
        if !first && !every.is_zero() {
            wire.flush().await?;
            sleep(every).await;
        }
        first = false;
        piece.truncate(usize::try_from(until).unwrap_or(usize::MAX));
        until -= piece.len() as u64;
        if chunked {
            wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        wire.write_all(&piece).await?;
        exchange.sent(piece.len() as u64);
        if chunked {
            wire.write_all(b"\r\n").await?;
        }
    }
    if ending == Ending::Complete {
        exchange.settle();
        if chunked {
            wire.write_all(b"0\r\n\r\n").await?;
        }
    }
    wire.flush().await?;
    drop(exchange);
    match ending {
        Ending::Reset(_) | Ending::ResetBeforeHead => {
            sleep(RESET_GRACE).await;
            wire.reset();
        }
        Ending::Stall(_) => drain(&mut wire).await,
        Ending::Close(_) | Ending::Complete => close(wire).await?,
    }
    Ok(())
}

fn head(answer: &Answer) -> BytesMut {
    let mut head = BytesMut::with_capacity(512);
    let reason = answer.status.canonical_reason().unwrap_or("Unassigned");
    head.put_slice(format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_str()).as_bytes());
    for (name, value) in &answer.headers {
        line(&mut head, name.as_str(), value);
    }
    let bodiless = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !answer.verbatim {
        match answer.body.len() {
            _ if bodiless => {}
            Some(length) if answer.sized => line(&mut head, "content-length", &HeaderValue::from(length)),
            _ => line(&mut head, "transfer-encoding", &HeaderValue::from_static("chunked")),
        }
        if !answer.headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::from_str(&clock::http_date(clock::now()))
        {
            line(&mut head, "date", &date);
        }
    }
    head.put_slice(b"\r\n");
    head
}

fn line(head: &mut BytesMut, name: &str, value: &HeaderValue) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value.as_bytes());
    head.put_slice(b"\r\n");
}

async fn close(mut wire: Wire) -> io::Result<()> {
    wire.shutdown().await?;
    // Whether the client closes or the time runs out, the connection is over.
    let _ = timeout(DRAIN, drain(&mut wire)).await;
    Ok(())
}

/// Reads until the client closes.
async fn drain(wire: &mut Wire) {
    let mut sink = [0; 4096];
    while matches!(wire.read(&mut sink).await, Ok(n) if n > 0) {}
}
