//! Policies before they are in force, for people.

use super::grid::{Cell, Column, Grid, wrap};
use super::tables::{list, title};
use super::units::{grouped, money};
use super::{Render, Style};
use crate::report::{Backtest, PolicyTest, RecommendedPolicy};

/// Rules that are not about a call, as far as people want to read.
const MAX_OTHERS: usize = 12;

impl Render for PolicyTest {
    fn render(&self, style: &Style) -> String {
        let mut out = String::new();
        let tags = match self.vendor_tags.as_slice() {
            [] => String::new(),
            tags => format!(" ({})", list(tags)),
        };
        let service = if self.service.is_empty() { "an unnamed caller" } else { self.service.as_str() };
        let with = if self.tags.is_empty() { String::new() } else { format!(", {}", self.tags) };
        let call = format!(
            "{} of {}{tags} for customer {}, from {service}{with}",
            self.endpoint, self.vendor, self.customer
        );
        wrap(&call, style.width, 2, &mut out);
        wrap(&self.sentence, style.width, 0, &mut out);
        if !self.rows.is_empty() {
            out.push('\n');
            let mut grid = Grid::new(vec![
                Column::name("rule"),
                Column::number("line"),
                Column::name("says"),
                Column::name("decides").at_least(7),
                Column::name("match").at_least(20),
            ]);
            for row in &self.rows {
                let says = match (row.verdict, row.r#final, row.untold) {
                    (verdict, _, true) => format!("{verdict} (untold)"),
                    (verdict, true, _) => format!("{verdict}, last"),
                    (verdict, ..) => verdict.to_owned(),
                };
                let decides = match (row.decided, row.mode) {
                    (true, _) => "yes",
                    (false, "report") => "reports",
                    (false, _) => "no",
                };
                grid.row(vec![
                    row.rule.as_str().into(),
                    row.line.to_string().into(),
                    says.into(),
                    Cell::from(decides).wrong(row.decided && row.verdict == "deny"),
                    row.r#match.as_str().into(),
                ]);
            }
            grid.write(style, &mut out);
        }
        if !self.others.is_empty() {
            out.push_str("\nNot about this call, because of:\n");
            for other in self.others.iter().take(MAX_OTHERS) {
                let text = format!("- {} (line {}): {}", other.rule, other.line, other.unmet.join(", "));
                wrap(&text, style.width, 2, &mut out);
            }
            if self.others.len() > MAX_OTHERS {
                let more = format!("- and {} more; --json has all", self.others.len() - MAX_OTHERS);
                wrap(&more, style.width, 2, &mut out);
            }
        }
        out
    }
}

impl Render for Backtest {
    fn render(&self, style: &Style) -> String {
        let mut out = title(style, "What this policy would have done", self.window.seconds);
        if self.rows.is_empty() {
            wrap("The file has no [[policy]]: every call passes.", style.width, 0, &mut out);
            return out;
        }
        if self.calls == 0 {
            wrap("No calls in this window. Look further back with --since 30d.", style.width, 0, &mut out);
            return out;
        }
        let already = match self.denied_already {
            0 => String::new(),
            all if all == self.denied => " (a policy refused them at the time, too)".to_owned(),
            some => format!(" ({} of them a policy refused at the time, too)", grouped(some)),
        };
        let cost = match &self.denied_cost {
            // What was refused cost nothing: that is no saving.
            Some(cost) if self.denied > 0 && cost.bytes().any(|byte| matches!(byte, b'1'..=b'9')) => {
                format!(", which cost {} as far as known", money(Some(cost), &self.currency, false))
            }
            _ => String::new(),
        };
        let whom = match self.denied_customers.as_slice() {
            [] => String::new(),
            [one] => format!(" of {one}"),
            many if many.len() <= 3 => format!(" of {}", list(many)),
            many => format!(" of {} customers", many.len()),
        };
        let sentence = format!(
            "Of {} calls it would have refused {}{whom}{already}{cost}, and throttled {}.",
            grouped(self.calls),
            grouped(self.denied),
            grouped(self.throttled)
        );
        wrap(&sentence, style.width, 0, &mut out);
        out.push('\n');
        let mut grid = Grid::new(vec![
            Column::name("rule"),
            Column::number("line").rank(2),
            Column::name("verdict").at_least(8),
            Column::name("mode").at_least(7).rank(3),
            Column::number("calls"),
            Column::number("customers"),
            Column::number("cost").quiet(),
            Column::name("vendors").rank(1),
        ]);
        for row in &self.rows {
            let stops = matches!(row.verdict, "deny" | "throttle") && row.calls > 0;
            grid.row(vec![
                row.rule.as_str().into(),
                row.line.to_string().into(),
                row.verdict.into(),
                row.mode.into(),
                Cell::from(if row.calls == 0 { "-".to_owned() } else { grouped(row.calls) })
                    .wrong(stops && row.mode == "enforce"),
                if row.calls == 0 { "-".into() } else { grouped(row.customer_count as u64).into() },
                money(row.cost.as_deref(), &self.currency, row.cost_unknown_calls > 0).into(),
                list(&row.vendors).into(),
            ]);
        }
        grid.write(style, &mut out);
        for note in &self.notes {
            wrap(note, style.width, 0, &mut out);
        }
        out
    }
}

/// The file itself, to be redirected into one.
impl Render for RecommendedPolicy {
    fn render(&self, _: &Style) -> String {
        self.toml.clone()
    }
}
