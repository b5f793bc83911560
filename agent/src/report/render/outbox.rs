//! The outbox, for people.

use super::grid::{Cell, Column, Grid, wrap};
use super::units::{bytes, grouped, millis};
use super::{Render, Style};
use crate::outbox::{Beside, Count, Item, Shown, State, VendorCount};
use crate::report::time::rfc3339;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

impl Render for [Item] {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::number("id"),
            Column::name("state"),
            Column::name("call").at_least(20),
            Column::name("customer").quiet().rank(2),
            Column::name("order key").quiet().rank(3),
            Column::number("tries").rank(1),
            Column::number("age"),
            Column::number("next in").quiet(),
            Column::name("last").quiet().at_least(16),
        ]);
        for item in self {
            let pending = item.state == State::Pending;
            let next = match (pending, item.blocked) {
                (true, true) => "its key".into(),
                (true, false) => until(item.next_at),
                _ => "-".into(),
            };
            let call = match item.endpoint.is_empty() {
                true => format!("{} {}", item.method, item.host),
                false => format!("{} {}", item.vendor, item.endpoint),
            };
            grid.row(vec![
                item.id.to_string().into(),
                Cell::from(item.state.as_str()).wrong(item.state == State::Dead),
                call.into(),
                item.customer.as_deref().unwrap_or("-").into(),
                item.order_key.as_deref().unwrap_or("-").into(),
                item.attempts.to_string().into(),
                since(item.put_at).into(),
                next.into(),
                last(item).into(),
            ]);
        }
        let mut out = String::new();
        match self.is_empty() {
            true => out.push_str("no calls\n"),
            false => grid.write(style, &mut out),
        }
        out
    }
}

impl Render for [Count] {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("service"),
            Column::name("state"),
            Column::number("calls"),
            Column::number("bodies"),
            Column::number("oldest"),
        ]);
        for count in self {
            grid.row(vec![
                count.service.as_str().into(),
                Cell::from(count.state.as_str()).wrong(count.state == State::Dead),
                grouped(count.calls).into(),
                bytes(count.bytes).into(),
                since(count.oldest).into(),
            ]);
        }
        let mut out = String::new();
        match self.is_empty() {
            true => out.push_str("the outbox is empty\n"),
            false => grid.write(style, &mut out),
        }
        out
    }
}

impl Render for [VendorCount] {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("service"),
            Column::name("vendor"),
            Column::name("endpoint").quiet().at_least(20),
            Column::number("pending"),
            Column::number("oldest"),
            Column::number("delivered").rank(1),
            Column::number("dead"),
        ]);
        for count in self {
            grid.row(vec![
                count.service.as_str().into(),
                count.vendor.as_str().into(),
                Some(count.endpoint.as_str()).filter(|name| !name.is_empty()).unwrap_or("-").into(),
                grouped(count.pending).into(),
                count.oldest.map_or_else(|| "-".to_owned(), since).into(),
                grouped(count.delivered).into(),
                Cell::from(grouped(count.dead)).wrong(count.dead > 0),
            ]);
        }
        let mut out = String::new();
        if !self.is_empty() {
            grid.write(style, &mut out);
        }
        out
    }
}

impl Render for Beside {
    fn render(&self, style: &Style) -> String {
        let mut out = String::new();
        let calls = |many: u64, one: &str, more: &str| match many {
            1 => format!("1 call {one}"),
            many => format!("{} calls {more}", grouped(many)),
        };
        if self.spooled > 0 {
            let mut line = calls(
                self.spooled,
                "waits here until the PostgreSQL takes it",
                "wait here until the PostgreSQL takes them",
            );
            if self.refused > 0 {
                let why = self.why.as_deref().unwrap_or_default();
                let _ = write!(line, "; it refused {} when it was asked last: {why}", grouped(self.refused));
            }
            wrap(&line, style.width, 2, &mut out);
        }
        if self.uncopied > 0 {
            let line = calls(
                self.uncopied,
                "is in fewer copies than asked for, until they can be written",
                "are in fewer copies than asked for, until they can be written",
            );
            wrap(&line, style.width, 2, &mut out);
        }
        for wrong in self.wrong_with_copies() {
            wrap(&wrong, style.width, 2, &mut out);
        }
        out
    }
}

impl Render for Shown {
    fn render(&self, style: &Style) -> String {
        let (item, mut out) = (&self.item, String::new());
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                wrap(&format!("{name:<16}{value}"), style.width, 16, &mut out);
            }
        };
        line("call", &format!("{} {} {}", item.id, item.method, self.url));
        line("state", item.state.as_str());
        line("service", &item.service);
        line("vendor", &item.vendor);
        line("customer", item.customer.as_deref().unwrap_or_default());
        line("order key", item.order_key.as_deref().unwrap_or_default());
        line("idempotency key", &item.idempotency_key);
        line("put", &written(item.put_at));
        if item.state == State::Pending {
            line("next attempt", &written(item.next_at));
            line("given up after", &written(item.expires_at));
        }
        line("settled", &item.settled_at.map(written).unwrap_or_default());
        line("attempts", &item.attempts.to_string());
        line("last", &last(item));
        for (name, value) in &self.headers {
            line("header", &format!("{name}: {value}"));
        }
        line("body", &bytes(item.bytes));
        if let Some(body) = &self.body {
            let _ = writeln!(out, "\n{}", printable(body));
        }
        if let Some(answer) = &self.answer {
            let _ = writeln!(out, "\nanswer          {}", answer.status);
            for (name, value) in &answer.headers {
                wrap(&format!("header          {name}: {value}"), style.width, 16, &mut out);
            }
            let cut = if answer.cut { " (cut)" } else { "" };
            let _ = writeln!(out, "body            {}{cut}", bytes(answer.body.len() as u64));
        }
        if let Some(body) = &self.answer_body {
            let _ = writeln!(out, "\n{}", printable(body));
        }
        out
    }
}

fn last(item: &Item) -> String {
    match (&item.error, item.status) {
        (Some(error), _) => error.clone(),
        (None, Some(status)) => format!("answered {status}"),
        (None, None) => "-".into(),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{FFFD}' } else { c }).collect()
}

fn written(nanos: i64) -> String {
    rfc3339(u64::try_from(nanos).unwrap_or(0))
}

fn since(nanos: i64) -> String {
    span(now().saturating_sub(nanos))
}

fn until(nanos: i64) -> String {
    match nanos.saturating_sub(now()) {
        left if left <= 0 => "now".into(),
        left => span(left),
    }
}

/// A span in its largest two units.
fn span(nanos: i64) -> String {
    let seconds = nanos.max(0) / 1_000_000_000;
    match seconds {
        0..60 => millis(Some(nanos.max(0) as f64 / 1e6)),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
