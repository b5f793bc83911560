//! Where both taps meet (docs/hub.md): a call that the library counted is confirmed, and not counted again; a call that
//! the kernel alone saw is counted with `tap = kernel`.
//!
//! `matcher` decides, without I/O and without a clock. `peers` listens for the libraries, `account` writes to the
//! ledger through the agent, and [`Hub`] joins the three.

mod account;
mod matcher;
mod peers;
mod socket;

use std::path::Path;

use farcall_agent::Farcall;

use account::Account;
use matcher::{Decision, Matcher};
use peers::{Message, Peers};

use crate::{clock, tap::Observation};

/// Takes observations and writes what follows from them to the ledger.
#[derive(Debug)]
pub struct Hub {
    matcher: Matcher,
    peers: Peers,
    account: Account,
}

/// The hub cannot listen for the libraries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Another sidecar does, on the same home directory.
    #[error("another sidecar already serves {0}; give this one its own --home")]
    Taken(String),
    /// The socket could not be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket's path.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Hub {
    /// A hub that listens on `sidecar.sock` in `home` and counts through `farcall`.
    ///
    /// # Errors
    /// When the socket cannot be made, or another sidecar has it.
    pub fn start(home: &Path, farcall: Farcall) -> Result<Self, HubError> {
        let peers = Peers::listen(&home.join("sidecar.sock"))?;
        let matcher = Matcher::new(clock::monotonic());
        Ok(Self { matcher, peers, account: Account::new(farcall) })
    }

    /// Takes what the kernel told.
    pub fn observe(&mut self, observations: Vec<Observation>) {
        for observation in observations {
            match observation {
                Observation::Exchange(exchange) => self.matcher.exchange(exchange),
                Observation::Connection(progress) => self.matcher.connection(progress, clock::monotonic()),
            }
        }
    }

    /// Takes what the libraries told, and decides what is due. To be called several times a second.
    pub fn tick(&mut self) {
        self.listen();
        let decisions = self.matcher.due(clock::monotonic());
        self.settle(decisions);
        self.account.forget_idle(clock::monotonic());
    }

    /// Decides everything, because nothing more will come, and writes it.
    pub fn finish(&mut self) {
        self.listen();
        let decisions = self.matcher.finish();
        self.settle(decisions);
        self.account.close();
    }

    fn listen(&mut self) {
        let mut messages = self.peers.messages().into_iter().peekable();
        while let Some((pid, message)) = messages.next() {
            match message {
                Message::Came => self.matcher.came(pid),
                Message::Hello(hello) => self.matcher.hello(pid, hello),
                Message::Sighting(first) => {
                    let mut told = vec![first];
                    while let Some((_, Message::Sighting(sighting))) =
                        messages.next_if(|(of, next)| *of == pid && matches!(next, Message::Sighting(_)))
                    {
                        told.push(sighting);
                    }
                    self.matcher.sightings(pid, told);
                }
                Message::Told(at) => self.matcher.told(pid, at),
                Message::Left { at, greeted } => self.matcher.left(pid, at, greeted),
            }
        }
        // Those that are connected stay so.
        if self.peers.renew() {
            self.matcher.gather(clock::monotonic());
        }
        self.account.count_failures("sidecar_turned_away", self.peers.turned_away());
    }

    fn settle(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Count(exchange, instrumented) => self.account.count(&exchange, instrumented),
                Decision::Confirm(exchange) => self.account.confirm(&exchange),
                Decision::Connection(progress, explained, instrumented) => {
                    self.account.connection(&progress, explained, instrumented);
                }
            }
        }
    }
}
