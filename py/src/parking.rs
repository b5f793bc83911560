//! A call that a rule has parked, on its way into the outbox.

use crate::call::Call;
use farcall::outbox::Terms;
use farcall_agent::outbox::{Parcel, Parking};
use pyo3::prelude::*;

/// Takes the request for delivery, on these terms; returns once it is on the disk or cannot be, and has told the call.
/// Other threads run meanwhile.
pub(crate) fn park(
    py: Python<'_>,
    call: &Call,
    terms: &Terms,
    (method, url): (&str, &str),
    headers: &[(Vec<u8>, Vec<u8>)],
    body: &[u8],
) {
    let mut parcel = Parcel::new(method, url).body(body);
    for (name, value) in headers {
        // A name that is no text is no header; the outbox says so.
        parcel = parcel.header(String::from_utf8_lossy(name), value);
    }
    // Looking up the key may ask the disk, too.
    let taken = py.detach(|| call.begin_parking(terms, parcel).map(Parking::wait));
    if let Some(taken) = taken {
        call.parked(&taken);
    }
}
