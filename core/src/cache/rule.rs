//! What a rule of `[[cache]]` says.

use std::time::Duration;

/// How the answers to calls are kept. [`Rule::default`] keeps to the headers of RFC 9111 alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// How long a good answer is fresh, from its arrival on; `None`: what its headers say.
    pub ttl: Option<Duration>,
    /// How long an answer is fresh that says that there is nothing (404, 405, 410, 414, 501); `None`: what its
    /// headers say.
    pub negative_ttl: Option<Duration>,
    /// For how long after that it is still handed out while one call asks for a new one (RFC 5861, section 3);
    /// `None`: what its headers say.
    pub stale_while_revalidate: Option<Duration>,
    /// For how long after that it is still handed out where the vendor cannot be asked (RFC 5861, section 4), or we
    /// may not ask it: a spent budget, a used-up quota, an open breaker. `None`: what its headers say.
    pub stale_if_error: Option<Duration>,
    /// Keep answers that say `no-store`.
    pub ignore_no_store: bool,
    /// Hand out stale answers that say `must-revalidate`, `proxy-revalidate` or `no-cache`.
    pub ignore_must_revalidate: bool,
    /// The methods whose answers are kept. Beside GET that is POST: then its body tells calls apart.
    pub methods: Methods,
    /// One copy for all customers, where not each has its own.
    pub share_customers: bool,
    /// One copy for all credentials: then this is a shared cache, and answers that are `private` or were authorized
    /// are not kept (RFC 9111, sections 3 and 3.5).
    pub share_credentials: bool,
    /// Which parameters of the query tell calls apart.
    pub query: Query,
    /// Headers that tell calls apart beside those that do anyway.
    pub headers: Vec<String>,
    /// The fields of a JSON body that tell calls apart, as names with dots between them; empty: the whole body does.
    pub json: Vec<String>,
    /// Answers with longer bodies are not kept.
    pub max_bytes: u64,
    /// How long a call waits for an equal one that is under way; zero: each asks for itself.
    pub coalesce: Duration,
}

/// The methods whose answers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Methods {
    /// GET.
    #[default]
    Get,
    /// POST, which here means a question that has to be asked with a body.
    Post,
    /// Both.
    GetAndPost,
}

/// Which parameters of a query tell calls apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query {
    /// The query as it is written.
    #[default]
    All,
    /// These, in whatever order they are written.
    Only(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

impl Rule {
    /// Answers with longer bodies are not kept, unless a rule says so.
    pub const MAX_BYTES: u64 = 1 << 20;
    /// How long a call waits for an equal one, unless a rule says so.
    pub const COALESCE: Duration = Duration::from_secs(10);
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            ttl: None,
            negative_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            ignore_no_store: false,
            ignore_must_revalidate: false,
            methods: Methods::Get,
            share_customers: false,
            share_credentials: false,
            query: Query::All,
            headers: Vec::new(),
            json: Vec::new(),
            max_bytes: Self::MAX_BYTES,
            coalesce: Self::COALESCE,
        }
    }
}

impl Methods {
    pub(super) fn contain(self, method: &str) -> bool {
        match method {
            "GET" => self != Self::Post,
            "POST" => self != Self::Get,
            _ => false,
        }
    }
}
