//! Advice for people: what to do, what it is worth, and the lines to paste.

use super::grid::wrap;
use super::tables::{NO_CALLS, title};
use super::units::{grouped, money};
use super::{Render, Style};
use crate::report::{Advice, Advised, Worth};
use std::fmt::Write;

impl Render for Advice {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "What to do", self.window.seconds);
        if self.rows.is_empty() {
            match self.answers.calls {
                0 => wrap(NO_CALLS, style.width, 0, &mut out),
                _ => out.push_str("Nothing stands out.\n"),
            }
        }
        for (row, number) in self.rows.iter().zip(1..) {
            out.push('\n');
            write_row(row, number, style, &mut out);
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            wrap(note, style.width, 0, &mut out);
        }
        out
    }
}

fn write_row(row: &Advised, number: usize, style: &Style, out: &mut String) {
    const INDENT: usize = 4;
    let rule = match style.color {
        true => format!("\x1b[1m{}\x1b[0m", row.rule),
        false => row.rule.to_owned(),
    };
    let _ = match worth(&row.worth) {
        worth if worth.is_empty() => writeln!(out, "{number:>2}. {rule}"),
        worth => writeln!(out, "{number:>2}. {rule}: {worth}"),
    };
    let mut say = |text: &str| {
        let mut part = String::new();
        wrap(text, style.width - INDENT, 0, &mut part);
        for line in part.lines() {
            let _ = writeln!(out, "{:INDENT$}{line}", "");
        }
    };
    say(&row.sentence);
    if !row.callers.is_empty() {
        say(&format!("By: {}.", row.callers.join(", ")));
    }
    if let Some(risk) = &row.risk {
        say(&format!("Risk: {risk}"));
    }
    say(&format!("Do: {}", row.remedy));
    if let Some(config) = &row.config {
        out.push('\n');
        // As they are: what is broken cannot be pasted.
        for line in config.lines() {
            match line {
                "" => out.push('\n'),
                line => _ = writeln!(out, "{:INDENT$}{line}", ""),
            }
        }
    }
}

fn worth(worth: &Worth) -> String {
    let mut parts = Vec::new();
    if let Some(cost) =
        worth.cost.as_deref().filter(|cost| cost.bytes().any(|digit| digit.is_ascii_digit() && digit != b'0'))
    {
        parts.push(money(Some(cost), &worth.currency, false));
    }
    if worth.seconds >= 0.1 {
        parts.push(super::millis(Some(worth.seconds * 1e3)));
    }
    if worth.calls > 0 {
        parts.push(format!("{} call{}", grouped(worth.calls), if worth.calls == 1 { "" } else { "s" }));
    }
    parts.join(", ")
}
