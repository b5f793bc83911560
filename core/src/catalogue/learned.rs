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
const FAN_OUT: usize = 48;
/// The most places that the trie remembers, over all vendors; beyond them a new segment is `{id}`.
const MAX_NODES: usize = 16_384;
const MAX_SEGMENTS: usize = 12;
const ID: &str = "{id}";

/// Writes `METHOD /path/{id}` for a request, by the form of its segments alone.
pub(crate) fn normalise(method: &str, path: &str) -> Text<MAX_TEMPLATE> {
    let mut text = Text::new();
    text.push(if is_method(method) { method } else { "OTHER" });
    text.push(" ");
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut rest = Some(path);
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
        text.push(if looks_like_id(segment) { ID } else { segment });
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

/// Whether a path segment has the form of an id: a number, a UUID, a hash, a prefixed or random token, an
/// address, a date; or something that no API names its endpoints by.
fn looks_like_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let (mut digits, mut letters, mut hex, mut upper, mut marks) = (0, 0, 0, 0, 0);
    for &byte in bytes {
        match byte {
            b'0'..=b'9' => (digits, hex) = (digits + 1, hex + 1),
            b'a'..=b'f' | b'A'..=b'F' => (letters, hex) = (letters + 1, hex + 1),
            b'g'..=b'z' | b'G'..=b'Z' => letters += 1,
            b'-' | b'_' | b'.' => marks += 1,
            _ => return true, // `@`, `%`, `:`, spaces, other alphabets: values, not names.
        }
        upper += usize::from(byte.is_ascii_uppercase());
    }
    if digits == 0 {
        // Without a digit only what is long and unlike words is an id.
        return segment.len() > 40 || (letters >= 16 && upper >= 4 && upper < letters && marks == 0);
    }
    if letters == 0 {
        return true; // Numbers, dates, versions such as `2024-06`.
    }
    if marks == 0 || marks == 4 && segment.len() == 36 {
        // One word: `v1`, `oauth2` and `s3` are names; `3f2a9c01` and `9s6XKzkNRiz8i3` are ids.
        let all_hex = hex == digits + letters;
        return (all_hex && segment.len() >= 8) || (digits >= 2 && segment.len() >= 10) || segment.len() > 24;
    }
    // `cus_9s6XKzkNRiz8i3`: some part after a mark is itself an id; or it is too long for a name.
    segment.len() > 40
        || segment
            .split(['-', '_', '.'])
            .any(|part| part.len() >= 6 && part.len() < segment.len() && looks_like_id(part))
}

/// The trie of segments over all vendors.
#[derive(Debug)]
pub(crate) struct Learner {
    nodes: Vec<Node>,
    roots: HashMap<Box<str>, u32, FixedState>,
    /// Grows with every merge, after which templates given earlier may be given otherwise.
    generation: u32,
    /// Segments that became `{id}` because the trie is full.
    pub(crate) folded: u64,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32, FixedState>,
    /// What follows, once there were too many to tell apart.
    any: Option<u32>,
}

impl Learner {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), roots: HashMap::default(), generation: 0, folded: 0 }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The template for a path that [`normalise`] has written, as far as is known by now.
    pub(crate) fn template(&mut self, vendor: &str, normalised: &str) -> Text<MAX_TEMPLATE> {
        let mut text = Text::new();
        let Some((method, path)) = normalised.split_once(" /") else {
            text.push(normalised);
            return text;
        };
        text.push(method);
        text.push(" ");
        let mut at = match self.roots.get(vendor) {
            Some(&root) => Some(root),
            None => {
                let root = self.grow();
                if let Some(root) = root {
                    self.roots.insert(vendor.into(), root);
                }
                root
            }
        };
        for segment in path.split('/') {
            let (shown, next) = match at {
                Some(node) => self.follow(node, segment),
                None if matches!(segment, ID | "…") => (segment, None),
                None => {
                    self.folded += 1;
                    (ID, None)
                }
            };
            text.push("/");
            text.push(shown);
            at = next;
        }
        text
    }

    fn follow<'a>(&mut self, at: u32, segment: &'a str) -> (&'a str, Option<u32>) {
        let node = &self.nodes[at as usize];
        if segment == "…" {
            return (segment, None);
        }
        if segment != ID && node.any.is_none() {
            if let Some(&child) = node.children.get(segment) {
                return (segment, Some(child));
            }
            if node.children.len() < FAN_OUT {
                let Some(child) = self.grow() else {
                    self.folded += 1;
                    return (ID, None);
                };
                self.nodes[at as usize].children.insert(segment.into(), child);
                return (segment, Some(child));
            }
            self.generation += 1;
            let merged = self.merge(at);
            return (ID, merged);
        }
        let next = match node.any {
            Some(any) => Some(any),
            None if segment == ID => match node.children.get(ID) {
                Some(&child) => Some(child),
                None => {
                    let child = self.grow();
                    if let Some(child) = child {
                        self.nodes[at as usize].children.insert(ID.into(), child);
                    }
                    child
                }
            },
            None => None,
        };
        (ID, next)
    }

    /// Joins all that follows a place into one child.
    fn merge(&mut self, at: u32) -> Option<u32> {
        let children = std::mem::take(&mut self.nodes[at as usize].children);
        // One child takes the place of at least two, so there is room without growing.
        let mut rest = children.into_values();
        let joined = rest.next()?;
        for child in rest {
            self.absorb(joined, child, 0);
        }
        self.nodes[at as usize].any = Some(joined);
        Some(joined)
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

    fn grow(&mut self) -> Option<u32> {
        if self.nodes.len() >= MAX_NODES {
            return None;
        }
        self.nodes.push(Node::default());
        u32::try_from(self.nodes.len() - 1).ok()
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
        ] {
            assert_eq!(template("GET", &format!("/{name}")), format!("GET /{name}"));
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
