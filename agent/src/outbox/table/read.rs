//! Rows as they are, whatever is in them: one that a failing disk or another program has changed must not keep the
//! others from being delivered. What has become of its request is seen when that is decrypted.

use super::super::queue;
use super::{Item, State};
use rusqlite::types::ValueRef;
use rusqlite::{Row, RowIndex};

pub(super) fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    let small = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    let name = text(row, "queue")?;
    let (service, credential) = queue::parts(&name);
    Ok(Item {
        id: row.get("id")?,
        service: service.to_owned(),
        credential: credential.map(str::to_owned),
        state: State::of(number(row, "state")?),
        method: text(row, "method")?,
        vendor: text(row, "vendor")?,
        endpoint: text(row, "endpoint")?,
        host: text(row, "host")?,
        customer: maybe_text(row, "customer")?,
        order_key: maybe_text(row, "order_key")?,
        blocked: number(row, "blocked")? != 0,
        idempotency_key: text(row, "idempotency_key")?,
        attempts: small(number(row, "attempts")?),
        put_at: number(row, "put_at")?,
        next_at: number(row, "next_at")?,
        expires_at: number(row, "expires_at")?,
        settled_at: maybe_number(row, "settled_at")?,
        status: maybe_number(row, "status")?.and_then(|status| u16::try_from(status).ok()),
        error: maybe_text(row, "error")?,
        bytes: unsigned(number(row, "bytes")?),
        max_attempts: maybe_number(row, "max_attempts")?.map(small),
    })
}

/// A text, with what is no UTF-8 replaced.
pub(in super::super) fn text(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<String> {
    maybe_text(row, column).map(Option::unwrap_or_default)
}

pub(in super::super) fn maybe_text(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// A number; 0 where there is none.
pub(in super::super) fn number(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<i64> {
    maybe_number(row, column).map(Option::unwrap_or_default)
}

pub(in super::super) fn maybe_number(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}

/// What is sealed; nothing where it is none.
pub(in super::super) fn bytes(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    })
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
