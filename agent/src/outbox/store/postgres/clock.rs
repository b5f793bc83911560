//! The server's clock, as this process knows it: how far it is ahead of the one of this host that nobody can set. Moments
//! told by it do not depend on how this host's clock is set, nor is their order changed by how long an answer takes.

use super::super::super::clock::{Ahead, uptime};
use super::calls::NOW;
use sqlx::PgConnection;
use std::sync::{Mutex, PoisonError};

/// So often is asked at first: the quickest answer says most.
const FIRST: usize = 3;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    known: Mutex<Option<i64>>,
}

impl ServerClock {
    /// Asks the server. What was known stays, as long as the answer allows it.
    pub(super) async fn ask(&self, db: &mut PgConnection) -> sqlx::Result<Ahead> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = format!("SELECT {NOW}");
        let mut narrowest: Option<Answer> = None;
        for _ in 0..if known.is_some() { 1 } else { FIRST } {
            let before = uptime();
            let now: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *db).await?;
            let answer = Answer { least: now.saturating_sub(uptime()), most: now.saturating_sub(before) };
            narrowest = narrowest.filter(|other| other.width() <= answer.width()).or(Some(answer));
        }
        let ahead = narrowest.map(|answer| answer.judge(known)).or(known).unwrap_or_default();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        Ok(Ahead::by(ahead))
    }
}

/// Between which two numbers it lies how far the server's clock is ahead.
#[derive(Clone, Copy, Debug)]
struct Answer {
    least: i64,
    most: i64,
}

impl Answer {
    fn width(self) -> i64 {
        self.most.saturating_sub(self.least)
    }

    /// What is known as far as this allows it; the middle, where nothing is.
    fn judge(self, known: Option<i64>) -> i64 {
        match known {
            Some(known) => known.max(self.least).min(self.most),
            None => self.least.saturating_add(self.width() / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_takes_long_changes_nothing_and_a_server_whose_clock_was_set_is_followed() {
        let quick = |at: i64| Answer { least: at - 1, most: at + 1 };
        assert_eq!(quick(100).judge(None), 100);
        assert_eq!(Answer { least: -5_000, most: 101 }.judge(Some(100)), 100);
        assert_eq!(quick(100).judge(Some(100)), 100);
        assert_eq!(quick(9_000).judge(Some(100)), 8_999);
        assert_eq!(quick(-9_000).judge(Some(100)), -8_999);
    }
}
