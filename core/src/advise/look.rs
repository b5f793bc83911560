//! What is known of one call while it is under way.

use super::asked::Asked;
use super::digest::Digest;
use super::url::Got;
use crate::call::Headers;
use crate::units::Timestamp;

/// What is known of a call for advice. Plain data, with no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Its endpoint's place in the table, and the number that must still be there.
    pub(super) place: u16,
    pub(super) endpoint: u64,
    /// It counts for two to the power of this.
    pub(super) level: u8,
    pub(crate) asked: Asked,
    /// Whether its URL is one of those that are looked at.
    pub(super) chosen: bool,
    /// Under what its answer is remembered; 0 before there is one.
    pub(super) key: u64,
    pub(super) digest: Digest,
    /// Whether its body is read.
    pub(super) reads: bool,
    /// Whether the vendor said that what somebody has is still good.
    pub(super) unchanged: bool,
    pub(super) forbidden: bool,
    pub(super) validators: bool,
    pub(super) dated: bool,
    /// Whether it cannot be compared.
    pub(super) apart: bool,
}

/// How a call came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settlement {
    pub(crate) begun: Timestamp,
    pub(crate) answered: Timestamp,
    pub(crate) ended: Timestamp,
    /// 0 where none came.
    pub(crate) status: u16,
    /// Whether its answer came whole.
    pub(crate) whole: bool,
    pub(crate) bytes_in: u64,
    /// Requests of the vendor's quota.
    pub(crate) quota: u32,
    pub(crate) cost: i64,
    pub(crate) cost_unknown: bool,
    pub(crate) deadline: bool,
    pub(crate) fallback: bool,
}

impl Settlement {
    /// Whether the vendor failed, or was asked too often.
    pub(super) const fn failed(&self) -> bool {
        matches!(self.status, 0 | 429 | 500..)
    }
}

impl Look {
    /// Whether the headers of its answer matter.
    pub(crate) const fn wants_headers(&self) -> bool {
        self.chosen
    }

    /// Whether more of its body matters.
    pub(crate) const fn wants_body(&self) -> bool {
        self.reads && self.digest.wants_more()
    }

    /// The head of an answer.
    #[inline]
    pub(crate) fn answer(&mut self, status: u16, headers: &dyn Headers, seed: u64) {
        if self.chosen {
            self.read(status, headers, seed);
        }
    }

    #[inline(never)]
    fn read(&mut self, status: u16, headers: &dyn Headers, seed: u64) {
        (self.forbidden, self.validators, self.dated) = (false, false, false);
        self.unchanged = status == 304;
        let key = self.asked.key(headers.get("vary"));
        (self.key, self.apart) = (key.unwrap_or(0), key.is_none());
        (self.reads, self.digest) = (key.is_some() && is_kept(status), Digest::new(seed));
        if !self.reads {
            return;
        }
        self.validators = headers.get("etag").is_some() || headers.get("last-modified").is_some();
        self.dated = headers.get("expires").is_some();
        if let Some(control) = headers.get("cache-control") {
            for word in control.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.forbidden |= word.eq_ignore_ascii_case(b"no-store");
                self.dated |= word.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"max-age="))
                    && !word.eq_ignore_ascii_case(b"max-age=0");
            }
        }
    }

    /// More of its body.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.digest.push(chunk);
    }

    /// It is asked once more: what came was not the answer.
    pub(crate) fn again(&mut self) {
        (self.key, self.reads, self.apart, self.unchanged) = (0, false, false, false);
    }

    /// The answer that comes is not one to this request.
    pub(crate) fn decline(&mut self) {
        (self.chosen, self.reads, self.key, self.asked.url) = (false, false, 0, 0);
    }

    pub(super) fn got(&self, call: &Settlement) -> Got {
        match call.status {
            _ if call.failed() => Got::Nothing,
            304 => Got::Same,
            // Our own cache asked, and hands out what it has.
            _ if self.unchanged => Got::Same,
            status if !call.whole && is_kept(status) => Got::Nothing,
            status if is_kept(status) && self.key != 0 => {
                Got::Answer(self.digest.finish(status, call.bytes_in))
            }
            _ => Got::Other,
        }
    }
}

/// Whether a cache with a lifetime keeps answers of this status.
const fn is_kept(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308)
}
