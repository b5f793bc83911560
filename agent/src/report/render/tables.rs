//! Each report as a table for people.

use super::grid::{Cell, Column, Grid, wrap};
use super::units::{bytes, grouped, millis, money, percent, short};
use super::{Render, Style};
use crate::report::row::is_refused;
use crate::report::{
    CallRow, CallerRow, CustomerRow, EndpointRow, Finding, Inventory, Numbers, Table, VendorRow, Warning,
    Window,
};
use std::fmt::Write;

/// What to do where there is nothing to show.
pub(super) const NO_CALLS: &str = "No calls in this window. Make some with a program that has farcall installed, look further \
                        back with --since 1d, or ask `farcall doctor` whether it is attached at all.";

impl Render for Table<VendorRow> {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("vendor"),
            Column::number("calls"),
            Column::number("errors"),
            Column::number("refused").quiet().rank(3),
            Column::number("cached").quiet().rank(3),
            Column::number("parked").quiet().rank(3),
            Column::number("waited").quiet().rank(6),
            Column::number("p50").rank(1),
            Column::number("p99"),
            Column::number("cost").quiet(),
            Column::number("saved").quiet().rank(6),
            Column::number("tokens").quiet().rank(7),
            Column::number("sent").rank(5),
            Column::number("received").rank(3),
            Column::number("cust.").rank(4),
            Column::name("callers").rank(6),
            Column::name("tap").rank(2),
        ]);
        for row in &self.rows {
            let [calls, errors, p50, p99, sent, received, tap] = cells(&row.numbers);
            let [refused, cached, parked, waited, cost, saved, tokens] = decided(&row.numbers);
            let (customers, callers) = (grouped(row.customer_count as u64).into(), list(&row.callers).into());
            grid.row(vec![
                row.label.as_str().into(),
                calls,
                errors,
                refused,
                cached,
                parked,
                waited,
                p50,
                p99,
                cost,
                saved,
                tokens,
                sent,
                received,
                customers,
                callers,
                tap,
            ]);
        }
        let [calls, errors, p50, p99, sent, received, _] = cells(&self.totals);
        let [refused, cached, parked, waited, cost, saved, tokens] = decided(&self.totals);
        let mut total = vec![
            "total".into(),
            calls,
            errors,
            refused,
            cached,
            parked,
            waited,
            p50,
            p99,
            cost,
            saved,
            tokens,
            sent,
            received,
        ];
        total.extend(std::iter::repeat_n(Cell::from(""), 3));
        grid.total(total);
        page(style, "Whom we call", self, &grid)
    }
}

impl Render for Table<EndpointRow> {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("vendor"),
            Column::name("endpoint").at_least(22).middle(),
            Column::number("calls"),
            Column::number("errors"),
            Column::number("refused").quiet().rank(3),
            Column::number("cached").quiet().rank(3),
            Column::number("parked").quiet().rank(3),
            Column::number("waited").quiet().rank(6),
            Column::number("p50").rank(2),
            Column::number("p99"),
            Column::number("cost").quiet().rank(1),
            Column::number("saved").quiet().rank(6),
            Column::number("tokens").quiet().rank(7),
            Column::number("ttfb").rank(4).mean(),
            Column::number("transfer").rank(10).mean(),
            Column::number("dns").rank(11).mean(),
            Column::number("connect").rank(12).mean(),
            Column::number("tls").rank(11).mean(),
            Column::number("sent").rank(9),
            Column::number("received").rank(8),
            Column::name("tap").rank(5),
        ]);
        for row in &self.rows {
            let [calls, errors, p50, p99, sent, received, tap] = cells(&row.numbers);
            let [refused, cached, parked, waited, cost, saved, tokens] = decided(&row.numbers);
            grid.row(vec![
                row.label.as_str().into(),
                row.endpoint.as_str().into(),
                calls,
                errors,
                refused,
                cached,
                parked,
                waited,
                p50,
                p99,
                cost,
                saved,
                tokens,
                millis(row.ttfb_ms).into(),
                millis(row.transfer_ms).into(),
                millis(row.dns_ms).into(),
                millis(row.connect_ms).into(),
                millis(row.tls_ms).into(),
                sent,
                received,
                tap,
            ]);
        }
        let [calls, errors, p50, p99, sent, received, _] = cells(&self.totals);
        let [refused, cached, parked, waited, cost, saved, tokens] = decided(&self.totals);
        let mut total = vec![
            "total".into(),
            "".into(),
            calls,
            errors,
            refused,
            cached,
            parked,
            waited,
            p50,
            p99,
            cost,
            saved,
            tokens,
        ];
        total.extend(std::iter::repeat_n(Cell::from(""), 5));
        total.extend([sent, received, "".into()]);
        grid.total(total);
        page(style, "What we ask of them", self, &grid)
    }
}

impl Render for Table<CustomerRow> {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("customer"),
            Column::number("calls"),
            Column::number("share").rank(1),
            Column::number("errors"),
            Column::number("refused").quiet().rank(3),
            Column::number("cached").quiet().rank(3),
            Column::number("parked").quiet().rank(3),
            Column::number("waited").quiet().rank(4),
            Column::number("p50").rank(6),
            Column::number("p99").rank(2),
            Column::number("cost").quiet(),
            Column::number("saved").quiet().rank(6),
            Column::number("tokens").quiet().rank(5),
            Column::number("sent").rank(8),
            Column::number("received").rank(7),
            Column::name("vendors"),
        ]);
        for row in &self.rows {
            let [calls, errors, p50, p99, sent, received, _] = cells(&row.numbers);
            let [refused, cached, parked, waited, cost, saved, tokens] = decided(&row.numbers);
            let share = percent(row.share).into();
            let vendors = list(&row.vendors).into();
            grid.row(vec![
                row.customer.as_str().into(),
                calls,
                share,
                errors,
                refused,
                cached,
                parked,
                waited,
                p50,
                p99,
                cost,
                saved,
                tokens,
                sent,
                received,
                vendors,
            ]);
        }
        let [calls, errors, p50, p99, sent, received, _] = cells(&self.totals);
        let [refused, cached, parked, waited, cost, saved, tokens] = decided(&self.totals);
        grid.total(vec![
            "total".into(),
            calls,
            "100%".into(),
            errors,
            refused,
            cached,
            parked,
            waited,
            p50,
            p99,
            cost,
            saved,
            tokens,
            sent,
            received,
            "".into(),
        ]);
        page(style, "On whose behalf", self, &grid)
    }
}

impl Render for Table<CallerRow> {
    fn render(&self, style: &Style) -> String {
        let mut grid = Grid::new(vec![
            Column::name("service"),
            Column::name("program").rank(2),
            Column::number("pids"),
            Column::name("user").rank(4),
            Column::name("container").rank(5),
            Column::number("calls"),
            Column::number("errors"),
            Column::number("p50").rank(6),
            Column::number("p99").rank(3),
            Column::number("sent").rank(8),
            Column::number("received").rank(7),
            Column::name("tap"),
            Column::name("vendors"),
        ]);
        for row in &self.rows {
            let [calls, errors, p50, p99, sent, received, tap] = cells(&row.numbers);
            grid.row(vec![
                row.service.as_str().into(),
                row.executable.rsplit('/').next().unwrap_or_default().into(),
                row.process_count.map_or_else(|| "-".into(), |count| grouped(count as u64).into()),
                row.user.as_str().into(),
                if row.containers.is_empty() { "-".into() } else { list(&row.containers).into() },
                calls,
                errors,
                p50,
                p99,
                sent,
                received,
                tap,
                list(&row.vendors).into(),
            ]);
        }
        let [calls, errors, p50, p99, sent, received, _] = cells(&self.totals);
        let mut total: Vec<Cell> = vec!["total".into()];
        total.extend(std::iter::repeat_n(Cell::from(""), 4));
        total.extend([calls, errors, p50, p99, sent, received, "".into(), "".into()]);
        grid.total(total);
        page(style, "Who calls", self, &grid)
    }
}

impl Render for Table<CallRow> {
    fn render(&self, style: &Style) -> String {
        let dated = other_days(&self.window, self.rows.iter().map(|row| row.begun.as_str()));
        let mut grid = Grid::new(vec![
            Column::name("time").at_least(if dated && style.width >= 72 { 14 } else { 8 }),
            Column::name("id").at_least(8).rank(2),
            Column::name("caller").rank(6),
            Column::name("customer").rank(3),
            Column::name("vendor").rank(1),
            Column::name("endpoint").at_least(22).middle(),
            Column::name("result").at_least(17),
            Column::number("took"),
            Column::number("waited").quiet().rank(5),
            Column::number("ttfb").rank(7),
            Column::number("cost").quiet().rank(4),
            Column::number("sent").rank(9),
            Column::number("received").rank(8),
        ]);
        for row in &self.rows {
            let result = match (row.status, row.outcome.as_str()) {
                // A fault refuses nothing: the application gets what a vendor in trouble would give it.
                (status, "refused-fault") => {
                    let by = row.rule.as_deref().unwrap_or("unknown");
                    if status == 0 { format!("fault: {by}") } else { format!("{status} fault: {by}") }
                }
                (_, outcome) if is_refused(outcome) => match &row.rule {
                    Some(rule) => format!("refused: {rule}"),
                    None => outcome.replacen("refused-", "refused: ", 1),
                },
                (0, outcome) => outcome.to_owned(),
                (status, "complete") => status.to_string(),
                (status, outcome) => format!("{status} {outcome}"),
            };
            let result = match row.warned.first() {
                Some(Warning { rule, verdict: "warn" }) => format!("{result}, warned: {rule}"),
                Some(Warning { rule, verdict }) => format!("{result}, would {verdict}: {rule}"),
                None => result,
            };
            grid.row(vec![
                // The id tells calls apart.
                moment(&row.begun, dated).into(),
                row.id.as_str().into(),
                row.service.as_str().into(),
                row.customer.as_str().into(),
                row.vendor.as_str().into(),
                row.endpoint.as_str().into(),
                Cell::from(result).wrong(row.error || is_refused(&row.outcome)),
                millis(Some(row.duration_ms)).into(),
                if row.waited_ms > 0.0 { millis(Some(row.waited_ms)).into() } else { "-".into() },
                millis(row.ttfb_ms).into(),
                match is_refused(&row.outcome) {
                    true => "-".into(),
                    false => money(row.cost.as_deref(), &row.currency, row.cost_unknown.is_some()).into(),
                },
                bytes(row.bytes_out).into(),
                bytes(row.bytes_in).into(),
            ]);
        }
        page(style, "Single calls, the newest first (times in UTC)", self, &grid)
    }
}

/// Whether some of these moments (RFC 3339) are of another day than the end of the window: then they need their date.
pub(super) fn other_days<'m>(window: &Window, mut moments: impl Iterator<Item = &'m str>) -> bool {
    let today = window.to.get(..10);
    moments.any(|moment| moment.get(..10) != today)
}

/// A moment, with month and day or without.
pub(super) fn moment(rfc3339: &str, dated: bool) -> String {
    let shown = if dated { rfc3339.get(5..19) } else { rfc3339.get(11..19) };
    shown.unwrap_or_default().replace('T', " ")
}

impl Render for Table<Finding> {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "What to look at", self.window.seconds);
        if self.totals.calls == 0 && self.rows.is_empty() {
            wrap(NO_CALLS, style.width, 0, &mut out);
        } else if self.rows.is_empty() {
            out.push_str("Nothing stands out.\n");
        }
        for finding in &self.rows {
            wrap(&format!("- {} [{}]", finding.sentence, finding.rule), style.width, 2, &mut out);
        }
        out
    }
}

impl Render for Inventory {
    fn render(&self, style: &Style) -> String {
        let mut parts = vec![
            self.vendors.render(style),
            self.endpoints.render(style),
            self.customers.render(style),
            self.callers.render(style),
        ];
        parts.extend(self.coverage.as_ref().map(|coverage| coverage.render(style)));
        parts.push(self.findings.render(style));
        parts.join("\n")
    }
}

/// The numbers that all tables of calls share.
fn cells(numbers: &Numbers) -> [Cell; 7] {
    let errors = match numbers.errors {
        0 => "-".to_owned(),
        errors => format!("{} {}", grouped(errors), percent(numbers.error_rate)),
    };
    let tap = match numbers.tap {
        "library+kernel" => "both",
        tap => tap,
    };
    [
        grouped(numbers.calls).into(),
        Cell::from(errors).wrong(numbers.errors > 0),
        millis(numbers.p50_ms).into(),
        millis(numbers.p99_ms).into(),
        bytes(numbers.bytes_out).into(),
        bytes(numbers.bytes_in).into(),
        tap.into(),
    ]
}

/// What rules did to the calls, and what they cost: refused, cached, parked, waited, cost, saved,
/// tokens.
fn decided(numbers: &Numbers) -> [Cell; 7] {
    let some = |calls: u64| if calls == 0 { "-".to_owned() } else { grouped(calls) };
    let waited = (numbers.waited_ms > 0.0).then_some(numbers.waited_ms);
    let partly = numbers.cost_unknown_calls > 0;
    [
        Cell::from(some(numbers.refused)).wrong(numbers.refused > 0),
        some(numbers.cached).into(),
        Cell::from(some(numbers.parked)).wrong(numbers.parked > 0),
        millis(waited).into(),
        money(numbers.cost.as_deref(), &numbers.currency, partly).into(),
        money(numbers.saved_cost.as_deref(), &numbers.currency, false).into(),
        short(numbers.tokens_in.saturating_add(numbers.tokens_out)).into(),
    ]
}

pub(super) fn list(names: &[String]) -> String {
    names.join(", ")
}

fn page<R>(style: &Style, heading: &str, table: &Table<R>, grid: &Grid) -> String {
    let mut out = title(style, heading, table.window.seconds);
    if table.rows.is_empty() && table.totals.calls == 0 {
        wrap(NO_CALLS, style.width, 0, &mut out);
        return out;
    }
    if !table.rows.is_empty() {
        grid.write(style, &mut out);
    }
    for note in &table.notes {
        wrap(note, style.width, 0, &mut out);
    }
    out
}

pub(super) fn title(style: &Style, heading: &str, seconds: u64) -> String {
    let window = match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    let mut out = String::new();
    let _ = match style.color {
        true => writeln!(out, "\x1b[1m{heading}\x1b[0m, last {window}"),
        false => writeln!(out, "{heading}, last {window}"),
    };
    out
}
