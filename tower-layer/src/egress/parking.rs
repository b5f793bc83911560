//! A request that goes into the outbox: its body is read from its start, then it is put.

use super::replay::Reader;
use crate::watched::Watched;
use farcall::outbox::Terms;
use farcall_agent::outbox::{Parcel, Parking};
use http::{Uri, request};
use http_body::Body;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub(super) struct Handing<B> {
    terms: Box<Terms>,
    stage: Stage<B>,
}

enum Stage<B> {
    Reading { reader: Reader<B>, content: Vec<u8> },
    Putting(Parking),
}

impl<B: Body> Handing<B> {
    pub(super) fn new(terms: Box<Terms>, reader: Reader<B>) -> Self {
        Self { terms, stage: Stage::Reading { reader, content: Vec::new() } }
    }

    /// Ready once the call was told what came of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        watched: &mut Watched,
        parts: &request::Parts,
        uri: &Uri,
    ) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Reading { reader, content } => match ready!(reader.poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            content.extend_from_slice(&data);
                        }
                    }
                    Some(Err(_)) => {
                        watched.not_parked("its body failed");
                        return Poll::Ready(());
                    }
                    None => {
                        let mut parcel = Parcel::new(parts.method.as_str(), uri.to_string());
                        for (name, value) in &parts.headers {
                            parcel = parcel.header(name.as_str(), value.as_bytes());
                        }
                        let parcel = parcel.body(std::mem::take(content));
                        self.stage = Stage::Putting(watched.park(&self.terms, parcel));
                    }
                },
                Stage::Putting(parking) => {
                    let taken = ready!(Pin::new(parking).poll(cx));
                    watched.parked(&taken);
                    return Poll::Ready(());
                }
            }
        }
    }
}
