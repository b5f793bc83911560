//! The matrix as text.

use std::fmt::{self, Write as _};

/// How one scenario came out with one adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// All accounts agree.
    Pass,
    /// They do not, and how.
    Fail(String),
    /// They do not, and need not: the reason.
    Exempt(String),
    /// The adapter's runtime is not there: what is missing.
    Missing(String),
}

impl Cell {
    pub(crate) fn of(outcome: Result<(), String>) -> Self {
        match outcome {
            Ok(()) => Self::Pass,
            Err(reason) => Self::Fail(reason),
        }
    }

    /// With an exemption: a failure that may be, or a pass that makes the exemption obsolete.
    #[must_use]
    pub fn exempt(self, reason: &str) -> Self {
        match self {
            Self::Fail(_) => Self::Exempt(reason.to_owned()),
            Self::Pass => Self::Fail("passes: remove its line from exemptions.toml".to_owned()),
            other => other,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::Exempt(_) => "exempt",
            Self::Missing(_) => "MISSING",
        }
    }
}

/// Scenarios down, adapters across.
#[derive(Debug, Default)]
pub struct Grid {
    columns: Vec<(String, Vec<(String, Cell)>)>,
}

impl Grid {
    /// Adds an adapter's cells.
    pub fn push(&mut self, adapter: &str, cells: Vec<(String, Cell)>) {
        self.columns.push((adapter.to_owned(), cells));
    }

    /// The cells that keep the matrix from being whole; missing runtimes only where `strict`.
    #[must_use]
    pub fn holes(&self, strict: bool) -> usize {
        let cells = self.columns.iter().flat_map(|(_, cells)| cells);
        cells.filter(|(_, c)| matches!(c, Cell::Fail(_)) || strict && matches!(c, Cell::Missing(_))).count()
    }

    fn notes(&self) -> String {
        let mut notes = String::new();
        for (adapter, cells) in &self.columns {
            let missing = cells.iter().find_map(|(_, cell)| match cell {
                Cell::Missing(reason) => Some(reason),
                _ => None,
            });
            if let Some(reason) = missing {
                let _ = write!(notes, "\nMISSING {adapter}: {reason}\n");
            }
            let mut said: Vec<&str> = Vec::new();
            for (scenario, cell) in cells {
                let (Cell::Fail(reason) | Cell::Exempt(reason)) = cell else { continue };
                // A column that cannot start fails everywhere for one reason.
                if said.contains(&reason.as_str()) {
                    continue;
                }
                said.push(reason);
                let _ = write!(notes, "\n{} {scenario} x {adapter}\n  {reason}\n", cell.word());
            }
        }
        notes
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenarios: Vec<&str> = self
            .columns
            .first()
            .into_iter()
            .flat_map(|(_, cells)| cells)
            .map(|(name, _)| name.as_str())
            .collect();
        let left = scenarios.iter().map(|name| name.len()).max().unwrap_or(0);
        let widths: Vec<usize> = self.columns.iter().map(|(name, _)| name.len().max(7)).collect();
        write!(f, "\n{:left$}", "")?;
        for ((name, _), width) in self.columns.iter().zip(&widths) {
            write!(f, "  {name:width$}")?;
        }
        for (place, scenario) in scenarios.iter().enumerate() {
            write!(f, "\n{scenario:left$}")?;
            for ((_, cells), width) in self.columns.iter().zip(&widths) {
                write!(f, "  {:width$}", cells[place].1.word())?;
            }
        }
        writeln!(f)?;
        f.write_str(&self.notes())
    }
}
