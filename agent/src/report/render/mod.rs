//! Tables for people: units, totals, at home in 80 columns.

mod advice;
mod decisions;
mod grid;
mod health;
#[cfg(feature = "outbox")]
mod outbox;
mod policy;
mod quotas;
mod tables;
mod units;

pub(super) use units::{grouped, millis, percent};

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Style {
    /// The columns that there are.
    pub width: usize,
    /// Whether errors and headings may have colours (ANSI escape codes).
    pub color: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 80, color: false }
    }
}

impl Style {
    /// So many columns (40 at least), with or without colours.
    #[must_use]
    pub fn new(width: usize, color: bool) -> Self {
        Self { width: width.max(40), color }
    }
}

/// Sentences, one after the other.
pub(super) fn sentences(sentences: &[String], style: &Style) -> String {
    let mut out = String::new();
    sentences.iter().for_each(|sentence| grid::wrap(sentence, style.width, 0, &mut out));
    out
}

/// What can be written as a table for people.
pub trait Render {
    /// The text, ending in a line break.
    fn render(&self, style: &Style) -> String;
}
