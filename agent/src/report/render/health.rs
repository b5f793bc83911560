//! What is seen, and whether farcall is well, for people.

use super::grid::{Cell, Column, Grid, wrap};
use super::tables::{list, moment, other_days, title};
use super::units::{bytes, grouped, percent};
use super::{Render, Style};
use crate::report::{Coverage, Doctor};
use std::collections::BTreeMap;

impl Coverage {
    fn render_gaps(&self, style: &Style, out: &mut String) {
        for gap in &self.gaps {
            let text = format!("- {} {}: {}", grouped(gap.count), gap.meaning, gap.name);
            wrap(&text, style.width, 2, out);
        }
    }
}

impl Render for Coverage {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "What is explained", self.window.seconds);
        let mut sentence = self.sentence.clone();
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        wrap(&format!("{sentence}."), style.width, 0, &mut out);
        if self.rows.is_empty() {
            self.render_gaps(style, &mut out);
            return out;
        }
        let mut grid = Grid::new(vec![
            Column::name("caller"),
            Column::name("vendor"),
            Column::number("conns").rank(1),
            Column::number("bytes"),
            Column::number("library").rank(2),
            Column::number("kernel").rank(2),
            Column::number("unexplained"),
        ]);
        let of = |part: u64, whole: u64| match part {
            0 => "-".to_owned(),
            _ if whole == 0 => grouped(part),
            _ => percent(crate::report::numbers::share(part, whole)),
        };
        for row in &self.rows {
            let all = row.all.bytes;
            grid.row(vec![
                row.service.as_str().into(),
                row.vendor.as_str().into(),
                grouped(row.all.connections).into(),
                bytes(all).into(),
                of(row.library.bytes, all).into(),
                of(row.kernel.bytes, all).into(),
                Cell::from(of(row.unexplained.bytes, all)).wrong(row.unexplained.bytes > 0),
            ]);
        }
        grid.total(vec![
            "total".into(),
            "".into(),
            grouped(self.totals.connections).into(),
            bytes(self.totals.bytes).into(),
            "".into(),
            "".into(),
            of(self.totals.bytes - self.totals.explained_bytes, self.totals.bytes).into(),
        ]);
        grid.write(style, &mut out);
        for row in &self.rows {
            for reason in row.reasons.iter().filter(|reason| !reason.explained) {
                let text = format!(
                    "- {} to {}: {} ({}), {}: {}",
                    row.service,
                    list(&reason.to),
                    match reason.share.connections {
                        1 => "1 connection".to_owned(),
                        count => format!("{} connections", grouped(count)),
                    },
                    bytes(reason.share.bytes),
                    reason.verdict,
                    reason.reason
                );
                wrap(&text, style.width, 2, &mut out);
            }
        }
        self.render_gaps(style, &mut out);
        out
    }
}

impl Render for Doctor {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "Is farcall well?", self.window.seconds);
        let ledger = &self.ledger;
        let since = ledger.oldest.as_deref().and_then(|oldest| oldest.get(..16)).unwrap_or("nothing yet");
        wrap(
            &format!(
                "Ledger: {}, {}, {} rollups, {} single calls, since {since}.",
                ledger.path,
                bytes(ledger.bytes),
                grouped(ledger.rollups),
                grouped(ledger.exemplars)
            ),
            style.width,
            2,
            &mut out,
        );
        let sidecar = match (self.sidecar.listening, &self.sidecar.last_seen) {
            (true, _) => "Sidecar: running.".to_owned(),
            (false, Some(last)) => {
                format!(
                    "Sidecar: not running; last seen {} UTC.",
                    last.get(..19).unwrap_or(last).replace('T', " ")
                )
            }
            (false, None) => {
                "Sidecar: none; programs without the library, and calls past it, are invisible. \
                              Start one with farcall-sidecar run."
                    .to_owned()
            }
        };
        wrap(&sidecar, style.width, 2, &mut out);
        if let Some(outbox) = &self.outbox {
            let since = outbox.oldest.as_deref().and_then(|oldest| oldest.get(..16));
            let since = since.map_or(String::new(), |since| format!(" since {since}"));
            let text = match (outbox.pending, outbox.delivered, outbox.dead) {
                (Some(pending), Some(delivered), Some(dead)) => format!(
                    "Outbox: {} waiting{since}, {} delivered lately, {} given up.",
                    grouped(pending),
                    grouped(delivered),
                    grouped(dead)
                ),
                _ => "Outbox: how many calls wait is not known; it cannot be read.".to_owned(),
            };
            wrap(&text, style.width, 2, &mut out);
        }
        if !self.processes.is_empty() {
            out.push('\n');
            let mut grid = Grid::new(vec![
                Column::name("process"),
                Column::number("pid"),
                Column::name("state"),
                Column::name("adapters in place"),
                Column::name("sidecar"),
                Column::number("calls"),
                Column::name("last flush (UTC)").rank(1),
            ]);
            let dated = other_days(&self.window, self.processes.iter().map(|row| row.last_flush.as_str()));
            for row in &self.processes {
                let none = row.adapters.is_empty() && row.role == "program";
                let adapters = match row.role.as_str() {
                    "sidecar" => "(sidecar)".to_owned(),
                    _ if none => "none".to_owned(),
                    _ => list(&row.adapters),
                };
                grid.row(vec![
                    row.service.as_str().into(),
                    row.pid.to_string().into(),
                    Cell::from(row.state).wrong(row.state == "vanished"),
                    Cell::from(adapters).wrong(none),
                    if row.hub { "connected".into() } else { "-".into() },
                    grouped(row.calls).into(),
                    moment(&row.last_flush, dated).into(),
                ]);
            }
            grid.write(style, &mut out);
            out.push('\n');
            for (config, processes) in by_config(self) {
                let text = match config {
                    Some(file) if self.config.as_deref().is_some_and(|own| own != file) => format!(
                        "Configuration of {processes}: {file}, and not the farcall.toml of this home directory: one \
                         that is named, or lies in the working directory, comes first."
                    ),
                    Some(file) => format!("Configuration of {processes}: {file}."),
                    None => format!("Configuration of {processes}: none, so no rule is in force."),
                };
                wrap(&text, style.width, 2, &mut out);
            }
        }
        if !self.counters.is_empty() {
            out.push('\n');
            for counter in &self.counters {
                let meaning =
                    if counter.meaning.is_empty() { "counted by an adapter" } else { counter.meaning };
                let text = format!(
                    "{} {} in {} ({}): {meaning}",
                    grouped(counter.value),
                    counter.name,
                    counter.service,
                    counter.pid
                );
                wrap(&format!("- {text}."), style.width, 2, &mut out);
            }
        }
        out.push('\n');
        if self.healthy {
            out.push_str("Nothing to worry about.\n");
        }
        for problem in &self.problems {
            wrap(&format!("- {problem}."), style.width, 2, &mut out);
        }
        out
    }
}

/// Which processes obey which file: one trap is a file in the working directory, which comes before the home's.
fn by_config(doctor: &Doctor) -> BTreeMap<Option<&str>, String> {
    let mut services = BTreeMap::<_, BTreeMap<&str, u64>>::new();
    for row in doctor.processes.iter().filter(|row| row.role == "program" && row.state == "running") {
        *services.entry(row.config.as_deref()).or_default().entry(row.service.as_str()).or_default() += 1;
    }
    let named = |services: BTreeMap<&str, u64>| {
        let names: Vec<String> = services
            .into_iter()
            .map(|(service, processes)| match processes {
                1 => service.to_owned(),
                _ => format!("{service} ({processes} processes)"),
            })
            .collect();
        list(&names)
    };
    services.into_iter().map(|(config, services)| (config, named(services))).collect()
}
