//! Endpoints that no pattern names: learned from the traffic, with bounded memory.
//!
//! Two steps. A segment that looks like an id becomes `{id}` at once, by its form alone. What is left may
//! still vary without looking like an id (`/users/alice`), so a trie counts how many different segments
//! follow each place; where they are too many, they become one `{id}` too.

use crate::ledger::Text;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// The longest template in bytes; a longer path is cut and ends in `…`.
pub(crate) const MAX_TEMPLATE: usize = 240;
/// So many different segments may follow one place before they are one `{id}`.
pub(crate) const FAN_OUT: usize = 48;
/// The most places that the trie remembers, over all vendors; a full trie starts anew.
const MAX_NODES: usize = 16_384;
const MAX_SEGMENTS: usize = 12;
/// What stands for a segment that is an id.
pub(crate) const ID: &str = "{id}";

/// Writes `METHOD /path/{id}` for a request, by the form of its segments alone.
pub(crate) fn normalise(method: &str, path: &str) -> Text<MAX_TEMPLATE> {
    let mut text = Text::new();
    text.push(if is_method(method) { method } else { "OTHER" });
    text.push(" ");
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let (mut rest, mut before) = (Some(path), "");
    for place in 0.. {
        let Some(left) = rest else { break };
        let (segment, next) = match left.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&left[..slash], Some(&left[slash + 1..])),
            None => (left, None),
        };
        if place >= MAX_SEGMENTS || text.len() + segment.len() + 8 > MAX_TEMPLATE {
            text.push("/…");
            break;
        }
        text.push("/");
        text.push(if looks_like_id(segment) || is_before_a_secret(before) { ID } else { segment });
        before = segment;
        rest = next;
    }
    text
}

/// Whether a method may be part of an endpoint's name; any other token would let a caller make endpoints at
/// will.
fn is_method(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "CONNECT" | "TRACE" | "QUERY"
    )
}

/// Whether what follows this segment opens something: the address of a webhook, a link that was mailed to somebody.
/// It may be a word like any other.
fn is_before_a_secret(segment: &str) -> bool {
    const WORDS: [&str; 19] = [
        "hook",
        "hooks",
        "webhook",
        "webhooks",
        "bot",
        "bots",
        "token",
        "tokens",
        "secret",
        "secrets",
        "reset",
        "invite",
        "invites",
        "invitation",
        "invitations",
        "verify",
        "activate",
        "unsubscribe",
        "magic",
    ];
    matches!(segment.len(), 3..=11) && WORDS.iter().any(|word| segment.eq_ignore_ascii_case(word))
}

/// Whether a path segment has the form of an id: a number, a UUID, a hash, a prefixed or random token, an
/// address, a date; or something that no API names its endpoints by.
fn looks_like_id(segment: &str) -> bool {
    if segment.len() > 40 {
        return true; // No name of an endpoint is so long.
    }
    let lanes = segment.bytes().fold(0, |lanes, byte| lanes + KINDS[usize::from(byte)]);
    let lane = |kind: u64| (lanes / kind) as u8;
    let (digits, letters, hex, upper, marks) =
        (lane(DIGIT), lane(LETTER), lane(HEX), lane(UPPER), lane(MARK));
    if lane(OTHER) > 0 {
        return true; // `@`, `%`, `:`, spaces, other alphabets: values, not names.
    }
    if digits + letters >= 16 && upper < letters && (upper >= 4 || (upper >= 2 && digits >= 1)) {
        return true; // Long and of mixed case: a token. Better a name lost than a secret kept.
    }
    if upper > 0 && upper < letters && is_scrambled(segment, letters) {
        return true;
    }
    if digits == 0 {
        return marks == 0 && letters >= 24; // Longer than a word.
    }
    if letters == 0 {
        return true; // Numbers, dates, versions such as `2024-06`.
    }
    if marks == 0 || marks == 4 && segment.len() == 36 {
        // One word: `v1`, `oauth2` and `s3` are names; `3f2a9c01` and `9s6XKzkNRiz8i3` are ids.
        let all_hex = hex == digits + letters;
        return (all_hex && segment.len() >= 8) || (digits >= 2 && segment.len() >= 10) || segment.len() > 24;
    }
    // `cus_9s6XKzkNRiz8i3`: some part after a mark is itself an id.
    segment
        .split(['-', '_', '.'])
        .any(|part| part.len() >= 6 && part.len() < segment.len() && looks_like_id(part))
}

/// Whether capitals stand where nobody who joins words writes them: five in a row before a small letter (`SECRETlive`;
/// `parseJSONBody` has four, and the one of its next word), or in every third place (`aBcDeFgH`).
fn is_scrambled(segment: &str, letters: u8) -> bool {
    let (mut run, mut humps, mut after_small) = (0, 0, false);
    for byte in segment.bytes() {
        if byte.is_ascii_uppercase() {
            run += 1;
            humps += u8::from(after_small);
        } else {
            if byte.is_ascii_lowercase() && run > 5 {
                return true;
            }
            run = 0;
        }
        after_small = byte.is_ascii_lowercase();
    }
    letters >= 8 && u16::from(humps) * 3 >= u16::from(letters)
}

const DIGIT: u64 = 1;
const LETTER: u64 = 1 << 8;
const HEX: u64 = 1 << 16;
const UPPER: u64 = 1 << 24;
const MARK: u64 = 1 << 32;
const OTHER: u64 = 1 << 40;

/// What each byte counts as: eight bits for each kind, so that one addition counts all of them.
static KINDS: [u64; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        let upper = if b.is_ascii_uppercase() { UPPER } else { 0 };
        let hex = if b.is_ascii_hexdigit() { HEX } else { 0 };
        if b.is_ascii_digit() {
            kinds[byte] = DIGIT + hex;
        } else if b.is_ascii_alphabetic() {
            kinds[byte] = LETTER + hex + upper;
        } else if matches!(b, b'-' | b'_' | b'.') {
            kinds[byte] = MARK;
        }
        byte += 1;
    }
    kinds
};

/// The trie of segments over all vendors.
#[derive(Debug)]
pub(crate) struct Learner {
    nodes: Vec<Node>,
    roots: HashMap<Box<str>, u32, FixedState>,
    /// Grows with every merge, after which templates given earlier may be given otherwise.
    generation: u32,
    /// How often it was full and started anew.
    resets: u64,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32, FixedState>,
    /// What follows, once there were too many to tell apart.
    any: Option<u32>,
}

impl Learner {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), roots: HashMap::default(), generation: 0, resets: 0 }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// The template for a path that [`normalise`] has written, as far as is known by now.
    pub(crate) fn template(&mut self, vendor: &str, normalised: &str) -> Text<MAX_TEMPLATE> {
        let mut text = Text::new();
        let Some((method, path)) = normalised.split_once(" /") else {
            text.push(normalised);
            return text;
        };
        if self.nodes.len() + 2 * MAX_SEGMENTS + 4 > MAX_NODES {
            // Merges leave dead places behind, and vendors come and go: learning again is cheap.
            self.nodes.clear();
            self.roots.clear();
            self.generation += 1;
            self.resets += 1;
        }
        text.push(method);
        text.push(" ");
        let mut at = match self.roots.get(vendor) {
            Some(&root) => root,
            None => {
                let root = self.grow();
                self.roots.insert(vendor.into(), root);
                root
            }
        };
        for segment in path.split('/') {
            let (shown, next) = self.follow(at, segment);
            text.push("/");
            text.push(shown);
            at = next;
        }
        text
    }

    fn follow<'a>(&mut self, at: u32, segment: &'a str) -> (&'a str, u32) {
        let node = &self.nodes[at as usize];
        if segment == "…" {
            return (segment, at);
        }
        if let Some(any) = node.any {
            return (ID, any);
        }
        if let Some(&child) = node.children.get(segment) {
            return (segment, child);
        }
        if segment != ID && node.children.len() >= FAN_OUT {
            self.generation += 1;
            return (ID, self.merge(at));
        }
        let child = self.grow();
        self.nodes[at as usize].children.insert(segment.into(), child);
        (segment, child)
    }

    /// Joins all that follows a place into one child.
    fn merge(&mut self, at: u32) -> u32 {
        let joined = self.grow();
        for child in std::mem::take(&mut self.nodes[at as usize].children).into_values() {
            self.absorb(joined, child, 0);
        }
        self.nodes[at as usize].any = Some(joined);
        joined
    }

    fn absorb(&mut self, into: u32, from: u32, depth: usize) {
        if depth > MAX_SEGMENTS {
            return;
        }
        let Node { children, any } = std::mem::take(&mut self.nodes[from as usize]);
        for (segment, child) in children {
            match self.nodes[into as usize].children.get(&segment) {
                Some(&known) => self.absorb(known, child, depth + 1),
                None => {
                    self.nodes[into as usize].children.insert(segment, child);
                }
            }
        }
        if let Some(child) = any {
            match self.nodes[into as usize].any {
                Some(known) => self.absorb(known, child, depth + 1),
                None => self.nodes[into as usize].any = Some(child),
            }
        }
    }

    /// A new place; [`Learner::template`] has made sure that there is room.
    fn grow(&mut self) -> u32 {
        self.nodes.push(Node::default());
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(method: &str, path: &str) -> String {
        normalise(method, path).as_str().to_owned()
    }

    #[test]
    fn ids_of_every_usual_form_become_one_template() {
        for id in [
            "42",
            "3fa85f64-5717-4562-b3fc-2c963f66afa6",
            "9s6XKzkNRiz8i3",
            "cus_9s6XKzkNRiz8i3",
            "5d41402abc4b2a76b9719d911017c592",
            "2026-11-21",
            "a@b.example",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "B%20C",
            "org:repo",
            "T024BE7LD0",
            "chatcmpl-8x7Hk2PqLmN",
            "aBcDeFgHiJk1LmNoPqRs",
            "abcDEfgh-ijkLMnop_qRst",
            "tok_SECRETlive",
            "tok_SECRETlive1",
            "aBcDeFgH",
            "correcthorsebatterystaple",
        ] {
            assert_eq!(template("GET", &format!("/things/{id}/parts")), "GET /things/{id}/parts", "{id}");
        }
    }

    #[test]
    fn names_stay_names() {
        for name in [
            "v1",
            "v2beta",
            "chat",
            "completions",
            "oauth2",
            "s3",
            "latest-all",
            "payment_intents",
            "sha256",
            "users.list",
            "postgresql",
            "i18n",
            "sendMessage",
            "chat.postMessage",
            "GetItemByID",
            "parseJSONBody",
            "grpc.health.v1.Health",
            "README",
            "internationalization",
        ] {
            assert_eq!(template("GET", &format!("/{name}")), format!("GET /{name}"));
        }
    }

    #[test]
    fn what_opens_something_is_no_name_whatever_it_looks_like() {
        for (path, written) in [
            ("/hooks/opensesame", "/hooks/{id}"),
            ("/Webhooks/in/events", "/Webhooks/{id}/events"),
            ("/users/reset/letmein", "/users/reset/{id}"),
            ("/invite/tiger", "/invite/{id}"),
            ("/v1/token", "/v1/token"),
            ("/robots/list", "/robots/list"),
        ] {
            assert_eq!(template("GET", path), format!("GET {written}"));
        }
    }

    #[test]
    fn odd_methods_and_endless_paths_make_no_endpoints_of_their_own() {
        assert_eq!(template("BREW", "/pot"), "OTHER /pot");
        assert!(template("GET", &"/a".repeat(5_000)).ends_with("/…"));
        assert!(template("GET", &format!("/{}", "x".repeat(5_000))).len() <= MAX_TEMPLATE);
        assert_eq!(template("GET", "/"), "GET /");
        assert_eq!(template("GET", ""), "GET /");
    }

    #[test]
    fn too_many_different_segments_become_one() {
        let mut learner = Learner::new();
        let letter = |n: u8| char::from(b'a' + n % 26);
        let names: Vec<String> =
            (0..200_u8).map(|n| ['u', letter(n), letter(n / 26), 'x'].iter().collect()).collect();
        for name in &names {
            learner.template("v", &template("GET", &format!("/users/{name}/posts")));
        }
        assert!(learner.generation() > 0);
        assert_eq!(learner.template("v", "GET /users/whoever/posts").as_str(), "GET /users/{id}/posts");
        assert_eq!(
            learner.template("v", "GET /teams/core").as_str(),
            "GET /teams/core",
            "other places stay apart"
        );
    }

    #[test]
    fn a_full_learner_starts_anew_and_says_so() {
        let mut learner = Learner::new();
        for n in 0..40_000_u32 {
            let vendor = format!("vendor-{n}.example");
            assert_eq!(learner.template(&vendor, "GET /hooks/in").as_str(), "GET /hooks/in");
            assert!(learner.nodes.len() <= MAX_NODES);
        }
        assert!(learner.resets() > 0);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_templates_are_stable_once_merged(paths in proptest::collection::vec("(/[a-z0-9_.-]{0,12}){0,14}", 1..400)) {
            let mut learner = Learner::new();
            for path in &paths {
                let normal = normalise("GET", path);
                let text = learner.template("v", normal.as_str());
                prop_assert!(text.len() <= MAX_TEMPLATE);
                prop_assert!(learner.nodes.len() <= MAX_NODES);
            }
            let generation = learner.generation();
            let first: Vec<String> = paths.iter().map(|p| learner.template("v", normalise("GET", p).as_str()).as_str().to_owned()).collect();
            if learner.generation() == generation {
                for (path, before) in paths.iter().zip(first) {
                    let after = learner.template("v", normalise("GET", path).as_str());
                    prop_assert_eq!(after.as_str(), before);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(method in ".{0,40}", path in ".{0,600}") {
            let normal = normalise(&method, &path);
            Learner::new().template("v", normal.as_str());
        }
    }
}
