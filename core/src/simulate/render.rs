//! A report as text: one column, or before and after side by side.

use super::report::{Figure, Report, Value};
use crate::units::grouped;
use std::fmt::Write as _;

/// The report as a table; with `after`, both beside each other and what changed.
#[must_use]
pub fn render(before: &Report, after: Option<&Report>) -> String {
    let mut text = String::new();
    let left = before.figures();
    let right = after.map(Report::figures);
    // A figure that only one of them has keeps its place after the ones that it follows.
    let mut rows: Vec<(&Figure, Option<&Figure>, Option<&Figure>)> =
        left.iter().map(|figure| (figure, Some(figure), None)).collect();
    let mut place = 0;
    for figure in right.iter().flatten() {
        let same = |row: &(&Figure, Option<&Figure>, Option<&Figure>)| {
            row.0.about == figure.about && row.0.name == figure.name
        };
        match rows.iter().position(same) {
            Some(found) => (rows[found].2, place) = (Some(figure), found + 1),
            None => {
                rows.insert(place, (figure, None, Some(figure)));
                place += 1;
            }
        }
    }
    let mut about = "";
    for (figure, before, after) in &rows {
        if figure.about != about {
            let gap = if about.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{gap}{}", figure.about);
            if about.is_empty() && right.is_some() {
                let indent = 26usize.saturating_sub(figure.about.len());
                let _ = write!(text, "{:indent$}{:>14}{:>14}{:>10}", "", "before", "after", "change");
            }
            text.push('\n');
            about = &figure.about;
        }
        let shown = |figure: &Option<&Figure>| figure.map_or_else(|| "-".into(), |figure| show(figure.value));
        let _ = write!(text, "  {:<24}{:>14}", figure.name, shown(before));
        if right.is_some() {
            let change = change(before.map(|figure| figure.value), after.map(|figure| figure.value));
            let _ = write!(text, "{:>14}{change:>10}", shown(after));
        }
        text.push('\n');
    }
    for (title, report) in [("", Some(before)), (" after", after)] {
        for worst in report.iter().flat_map(|report| &report.worst) {
            let _ = write!(text, "\nincident{title}: {worst}\n");
        }
    }
    if before.sample < 1.0 {
        let _ = write!(
            text,
            "\nA sample of {}% was simulated, against the same share of every limit and budget; counts are scaled up, \
             incidents and quantiles are those of the sample.\n",
            before.sample * 100.0
        );
    }
    text
}

fn show(value: Value) -> String {
    match value {
        Value::Count(count) => grouped(count),
        Value::Share(share) => format!("{:.1}%", share * 100.0),
        Value::Time(None) => "-".into(),
        Value::Time(Some(time)) => {
            let millis = time.as_secs_f64() * 1e3;
            match millis {
                _ if millis < 10.0 => format!("{millis:.1} ms"),
                _ if millis < 10_000.0 => format!("{millis:.0} ms"),
                _ => format!("{:.1} s", millis / 1e3),
            }
        }
        Value::Money(nanos) => format!("{:.2} USD", nanos as f64 / 1e9),
    }
}

fn change(before: Option<Value>, after: Option<Value>) -> String {
    let number = |value| match value {
        Value::Count(count) => Some(count as f64),
        Value::Share(share) => Some(share),
        Value::Time(time) => time.map(|time| time.as_secs_f64()),
        Value::Money(nanos) => Some(nanos as f64),
    };
    let number = |value: Option<Value>| value.and_then(number).unwrap_or(0.0);
    let (before, after) = (number(before), number(after));
    match after / before - 1.0 {
        _ if before == after => String::new(),
        change if change.is_finite() && change < 9.995 => format!("{:+.1}%", change * 100.0),
        change if change.is_finite() => format!("x{:.1}", change + 1.0),
        _ => "new".into(),
    }
}
