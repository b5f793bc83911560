//! `rolled-back` and `budget`: rules that told of themselves what somebody should know.

use super::{Finding, Scene, evidence};
use crate::report::ReportError;
use crate::report::notices::{self, NoticeRow};
use serde_json::json;
use std::collections::HashMap;

/// Rules of a kind that are told of, those that were heard of last.
const MOST: usize = 10;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) -> Result<(), ReportError> {
    // They are about rules, not about calls: where calls are asked for, they say nothing.
    if !scene.source.query.filters.is_empty() {
        return Ok(());
    }
    // By rule the newest, and how many there are.
    let mut found: [Vec<(NoticeRow, u64)>; 2] = Default::default();
    let mut places: HashMap<(String, String), Option<usize>> = HashMap::new();
    notices::each(scene.source, |row, _| {
        let kind = match row.concept.as_str() {
            "rollout" => 0,
            "budget" => 1,
            _ => return Ok(()),
        };
        let place = places.entry((row.concept.clone(), row.rule.clone()));
        match *place.or_insert_with(|| (found[kind].len() < MOST).then_some(found[kind].len())) {
            Some(place) if place < found[kind].len() => found[kind][place].1 += 1,
            Some(_) => found[kind].push((row, 1)),
            None => {}
        }
        Ok(())
    })?;
    let [rollouts, budgets] = found;
    // What a canary came to last is where it stands: one that was started over since is no longer rolled back.
    let rolled_back = rollouts.into_iter().filter(|(row, _)| row.what.starts_with("was rolled back"));
    findings.extend(rolled_back.map(|(row, _)| finding("rolled-back", "Rollout", &row, 1)));
    findings.extend(budgets.iter().map(|(row, times)| finding("budget", "Budget", row, *times)));
    Ok(())
}

fn finding(rule: &'static str, kind: &str, row: &NoticeRow, times: u64) -> Finding {
    let at = row.at.get(..16).unwrap_or(&row.at).replace('T', " ");
    let mut sentence = format!("{kind} {} {}, at {at} UTC", row.rule, row.what);
    if times > 1 {
        sentence += &format!(", the last of {times} times that it told something");
    }
    Finding {
        rule,
        sentence: sentence + ".",
        vendor: None,
        endpoint: None,
        callers: vec![row.service.clone()],
        evidence: evidence([
            ("name", json!(row.rule)),
            ("what", json!(row.what)),
            ("at", json!(row.at)),
            ("times", json!(times)),
        ]),
    }
}
