//! What happened to rules, on the host's stderr: a budget that warns, a canary that was rolled back.

use crate::say;
use farcall::Timestamp;
use farcall::ledger::Notice;

/// Sentences a minute. A budget for each customer may warn of many at once.
const MOST: usize = 5;

/// How much was said in the present minute.
#[derive(Debug, Default)]
pub(super) struct Heard {
    minute: u64,
    said: usize,
}

impl Heard {
    /// Says what is urgent of these, and where there is more than anybody reads, where the rest is found.
    pub(super) fn tell(&mut self, notices: &[Notice], now: Timestamp) {
        self.sentences(notices, now).iter().for_each(|sentence| say::say(sentence));
    }

    fn sentences(&mut self, notices: &[Notice], now: Timestamp) -> Vec<String> {
        if self.minute != now.minute() {
            *self = Self { minute: now.minute(), said: 0 };
        }
        let mut sentences = Vec::new();
        for Notice { concept, rule, what, .. } in notices.iter().filter(|notice| notice.urgent) {
            self.said += 1;
            if self.said <= MOST {
                sentences.push(format!("{concept} `{rule}` {what}"));
            } else if self.said == MOST + 1 {
                sentences.push("more happened to rules in this minute: farcall report notices".to_owned());
            }
        }
        sentences
    }
}
