//! What rules and quotas did, for people: incidents, budgets, notices, single calls explained.

use super::grid::{Cell, Column, Grid, wrap};
use super::tables::title;
use super::units::{grouped, money, percent};
use super::{Render, Style};
use crate::report::{BudgetRow, Budgets, ExplainedCall, ExplainedIncident, IncidentRow, Incidents, Notices};
use std::fmt::Write;

impl Render for Incidents {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "Why we were rate limited", self.window.seconds);
        if self.rows.is_empty() {
            wrap(
                "No incident in this window: no vendor said that calls came too fast, or that a quota is used up, and \
                 no quota refused a call. Look further back with --since 7d.",
                style.width,
                0,
                &mut out,
            );
        } else {
            let mut grid = Grid::new(vec![
                Column::number("no."),
                Column::name("time (UTC)").at_least(16).rank(4),
                Column::name("vendor"),
                Column::name("quota").rank(3),
                Column::name("what happened").at_least(22),
                Column::number("times"),
                Column::number("limit").quiet().rank(2),
                Column::name("used most").quiet().rank(1),
            ]);
            for row in &self.rows {
                grid.row(vec![
                    row.id.to_string().into(),
                    row.at.get(..16).unwrap_or(&row.at).replace('T', " ").into(),
                    row.label.as_str().into(),
                    match row.partition.as_str() {
                        "" => row.policy.clone(),
                        partition => format!("{} {partition}", row.policy),
                    }
                    .into(),
                    what(row).into(),
                    grouped(row.count).into(),
                    row.limit
                        .map_or_else(|| "-".to_owned(), |limit| format!("{} {}", grouped(limit), row.unit))
                        .into(),
                    most(row).into(),
                ]);
            }
            grid.write(style, &mut out);
        }
        for note in &self.notes {
            wrap(note, style.width, 0, &mut out);
        }
        out
    }
}

fn what(row: &IncidentRow) -> String {
    let meaning = |kind: &str| if kind == "exhausted" { "used up" } else { "too fast" };
    match row.kind.as_str() {
        kind @ ("rate" | "exhausted") => match row.answers.as_slice() {
            // An earlier version did not write down by which status.
            [] => format!("vendor: {}", meaning(kind)),
            [alike] => format!("{}: {}", alike.status, meaning(alike.kind)),
            several => {
                let mut told = String::new();
                let mut before = None;
                for alike in several {
                    told.push_str(if before.is_none() { "" } else { ", " });
                    if before.replace(alike.status) != Some(alike.status) {
                        let _ = write!(told, "{}: ", alike.status);
                    }
                    let _ = write!(told, "{} {}", alike.count, meaning(alike.kind));
                }
                told
            }
        },
        _ if row.why.is_empty() => "refused here".to_owned(),
        _ if row.why == "concurrency" => "refused here: no place".to_owned(),
        _ => {
            // Who had more than its share is not who used most.
            let whose = row.refused_customers.first().filter(|_| row.why == "fair_share");
            let whose = whose.map(|first| format!(" ({} {})", first.name, percent(first.share)));
            format!("refused here: {}{}", row.why.replace('_', " "), whose.unwrap_or_default())
        }
    }
}

fn most(row: &IncidentRow) -> String {
    match row.customers.first() {
        Some(first) if row.own.is_some_and(|own| own > 0) => {
            format!("{} {}", first.name, percent(first.share))
        }
        Some(first) if row.own.is_none() && row.counted > 0 => {
            format!("{} {} of {}", first.name, percent(first.share), row.counted_in)
        }
        _ => "-".to_owned(),
    }
}

impl Render for Notices {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "What happened to rules (UTC)", self.window.seconds);
        if self.rows.is_empty() {
            wrap(
                "Nothing in this window: no budget reached a share that it warns at, no canary moved, no alarm was raised. \
                 Look further back with --since 7d.",
                style.width,
                0,
                &mut out,
            );
        }
        for row in &self.rows {
            let at = row.at.get(..16).unwrap_or(&row.at).replace('T', " ");
            // An alarm names the call: its subject is not the rule.
            let colon = if row.concept == "alarm" { ":" } else { "" };
            let text = format!("{at}  {} {}{colon} {} ({})", row.concept, row.rule, row.what, row.service);
            wrap(&text, style.width, 18, &mut out);
        }
        for note in &self.notes {
            wrap(note, style.width, 0, &mut out);
        }
        out
    }
}

impl Render for ExplainedIncident {
    fn render(&self, style: &Style) -> String {
        let mut out = String::new();
        let heading = format!("Incident {}, {}", self.incident.id, self.incident.label);
        let _ = match style.color {
            true => writeln!(out, "\x1b[1m{}\x1b[0m", heading.replace(char::is_control, "\u{FFFD}")),
            false => writeln!(out, "{}", heading.replace(char::is_control, "\u{FFFD}")),
        };
        for sentence in &self.sentences {
            wrap(sentence, style.width, 0, &mut out);
        }
        out
    }
}

impl Render for ExplainedCall {
    fn render(&self, style: &Style) -> String {
        let mut out = String::new();
        let _ = match style.color {
            true => writeln!(out, "\x1b[1mCall {}\x1b[0m", self.call.id),
            false => writeln!(out, "Call {}", self.call.id),
        };
        for sentence in &self.sentences {
            wrap(sentence, style.width, 0, &mut out);
        }
        out.push('\n');
        if self.call.events.is_empty() {
            wrap("No rule did anything to it: it was sent as it was.", style.width, 0, &mut out);
        }
        for event in &self.call.events {
            out.push_str("  ");
            wrap(event, style.width - 2, 4, &mut out);
        }
        out
    }
}

impl Render for Budgets {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "How far budgets are spent", self.window.seconds);
        // Each row is about a period of its own.
        if let Some(end) = out.find(", last ") {
            out.truncate(end);
            out.push_str(", in their present periods (UTC)\n");
        }
        if !self.rows.is_empty() {
            let mut grid = Grid::new(vec![
                Column::name("budget"),
                Column::name("for").at_least(14).quiet(),
                Column::number("spent of limit"),
                Column::number("used").rank(1),
                Column::name("until").at_least(11).rank(3),
                Column::name("now"),
                Column::name("beyond").rank(2),
            ]);
            for row in &self.rows {
                grid.row(vec![
                    row.budget.as_str().into(),
                    if row.partition.is_empty() { "-".into() } else { row.partition.as_str().into() },
                    spent(row).into(),
                    Cell::from(percent(row.share)).wrong(row.share >= 1.0),
                    row.to.get(5..16).unwrap_or(&row.to).replace('T', " ").into(),
                    Cell::from(row.now.as_str()).wrong(row.now != "pass"),
                    row.over.as_str().into(),
                ]);
            }
            grid.write(style, &mut out);
        }
        for note in &self.notes {
            wrap(note, style.width, 0, &mut out);
        }
        out
    }
}

/// `12.30 of 50.00 USD/month`.
fn spent(row: &BudgetRow) -> String {
    let spent = amount(row, &row.spent);
    // The unit stands once, behind both.
    let spent = spent.strip_suffix(&row.unit).unwrap_or(&spent).trim_end();
    format!("{spent} of {}/{}", amount(row, &row.limit), row.period)
}

fn amount(row: &BudgetRow, amount: &str) -> String {
    match row.unit.as_str() {
        "requests" | "tokens" | "units" => {
            format!("{} {}", amount.parse().map_or_else(|_| amount.to_owned(), grouped), row.unit)
        }
        currency => money(Some(amount), currency, false),
    }
}
