//! The vendors' quotas and the limits of rules, for people.

use super::grid::{Cell, Column, Grid, wrap};
use super::tables::title;
use super::units::grouped;
use super::{Render, Style};
use crate::report::{QuotaRow, Quotas};

impl Render for Quotas {
    fn render(&self, style: &Style) -> String {
        let mut out =
            title(style, "What vendors and rules allow, and what is left of it", self.window.seconds);
        if !self.rows.is_empty() {
            let mut grid = Grid::new(vec![
                Column::name("vendor"),
                Column::name("quota"),
                Column::name("credential").at_least(12).quiet().rank(4),
                Column::number("left"),
                Column::name("now").at_least(17),
                Column::number("until (UTC)").rank(1),
                Column::number("by us").quiet().rank(2),
                Column::number("by others").quiet().rank(3),
                Column::name("kept to by").quiet().rank(5),
                Column::name("seen (UTC)").at_least(8).rank(6),
                Column::name("seen by").rank(7),
            ]);
            let today = self.window.to.get(..10).unwrap_or_default();
            for row in &self.rows {
                // One that is over says nothing is left.
                let resets = row.resets_at.as_ref().filter(|_| row.left.is_some());
                let until = row.blocked_until.as_ref().or(row.free_at.as_ref()).or(resets);
                let counted = |units: Option<u64>| units.map_or_else(|| "-".to_owned(), grouped);
                grid.row(vec![
                    if row.vendor.is_empty() { "several".into() } else { row.label.as_str().into() },
                    row.policy.as_str().into(),
                    if row.credential.is_empty() { "-".into() } else { row.credential.as_str().into() },
                    left(row).into(),
                    Cell::from(now(row)).wrong(matches!(row.now, "blocked" | "used_up")),
                    until.map_or_else(|| "-".to_owned(), |until| clock(until, today)).into(),
                    counted(row.own).into(),
                    Cell::from(counted(row.foreign.filter(|foreign| *foreign > 0)))
                        .wrong(row.foreign > Some(0)),
                    if row.rules.is_empty() { "-".into() } else { row.rules.join(", ").into() },
                    clock(&row.seen, today).into(),
                    format!("{} ({})", row.service, row.pid).into(),
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

/// `488 of 500 requests/min`; of a window that is not known, what it holds; of a learned limit, its rate; of a rule's,
/// how many go at once, where that is more than one: `8 at once, 100 requests/s`.
fn left(row: &QuotaRow) -> String {
    let per = match row.window_seconds {
        None => String::new(),
        Some(seconds) => format!("/{}", span(seconds)),
    };
    match (row.left, row.limit, row.learned_per_second) {
        (left, Some(limit), _) if row.source == "rule" => {
            let at_once = left.filter(|left| *left == 0 || row.burst > Some(1));
            let at_once = at_once.map_or(String::new(), |left| format!("{} at once, ", grouped(left)));
            format!("{at_once}{} {}{per}", grouped(limit), row.unit)
        }
        (Some(left), Some(limit), _) => format!("{} of {} {}{per}", grouped(left), grouped(limit), row.unit),
        (None, Some(limit), _) => format!("{} {}{per}", grouped(limit), row.unit),
        (_, None, Some(rate)) => format!("{rate:.1} {}/s", row.unit),
        (Some(left), None, None) => format!("{} {}", grouped(left), row.unit),
        (None, None, None) => "-".to_owned(),
    }
}

fn now(row: &QuotaRow) -> &'static str {
    match (row.now, row.blocked_why) {
        ("blocked", Some("exhausted")) => "blocked: used up",
        ("blocked", _) => "blocked: too fast",
        ("used_up", _) => "used up",
        ("learned", _) => "learned from 429s",
        ("over", _) => "window over",
        _ => "open",
    }
}

/// `min`, `h`, `day`; `15 min`, `90 s`.
fn span(seconds: f64) -> String {
    for (word, length) in [("day", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)] {
        let many = seconds / length;
        if many >= 1.0 && many.fract() == 0.0 {
            return if many == 1.0 { word.to_owned() } else { format!("{many} {word}") };
        }
    }
    format!("{seconds} s")
}

/// The time of a moment, and its day where that is another one than today.
fn clock(moment: &str, today: &str) -> String {
    match moment.starts_with(today) {
        true => moment.get(11..19).unwrap_or(moment).to_owned(),
        false => moment.get(5..16).unwrap_or(moment).replace('T', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_moments_are_said_shortly() {
        let spans = [1.0, 60.0, 3_600.0, 86_400.0, 900.0, 90.0, 0.5, 1.5].map(span);
        assert_eq!(spans, ["s", "min", "h", "day", "15 min", "90 s", "0.5 s", "1.5 s"]);
        assert_eq!(clock("2026-11-21T10:19:40.000Z", "2026-11-21"), "10:19:40");
        assert_eq!(clock("2026-11-22T10:19:40.000Z", "2026-11-21"), "11-22 10:19");
    }
}
