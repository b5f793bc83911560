//! The calls of a process that are over and that the engine was not told of yet, and where such calls go.

use super::note::Note;
use super::process::{Process, caught};
use farcall::{Engine, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many calls are told of at once at the latest. Others wait for the next flush.
const FULL: usize = 64;

/// Places for routes: each has one of two side by side. Those that were used longer ago are found anew.
const ROUTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Notes {
    state: Mutex<State>,
    /// Held by who tells: whoever gets it after him finds the engine told of all that was over before. What it holds is
    /// empty, and keeps its room.
    telling: Mutex<Vec<Note>>,
}

#[derive(Debug, Default)]
struct State {
    over: Vec<Note>,
    /// As of [`Engine::attention`], when the routes were found.
    attention: u32,
    routes: Vec<Option<Known>>,
}

/// A route, and whether the engine only counts the calls that go there.
#[derive(Debug)]
struct Known {
    route: Arc<Route>,
    only_counts: bool,
}

/// Where calls go, and by which method.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) tls: bool,
    pub(super) port: u16,
    pub(super) host: Box<str>,
    pub(super) method: Box<str>,
}

impl Route {
    fn is(&self, method: &str, target: &Target<'_>) -> bool {
        *self.host == *target.host
            && *self.method == *method
            && self.port == target.port
            && self.tls == target.tls
    }
}

impl Notes {
    /// The route of a call, where the engine only counts those that go there.
    pub(super) fn route(&self, engine: &Engine, method: &str, target: &Target<'_>) -> Option<Arc<Route>> {
        let mut state = lock(&self.state);
        let attention = engine.attention();
        if state.attention != attention || state.routes.is_empty() {
            state.attention = attention;
            state.routes.clear();
            state.routes.resize_with(ROUTES, || None);
        }
        let first = place(method, target);
        let routes = [first, first ^ 1].map(|place| state.routes[place].as_ref());
        let known = routes.into_iter().flatten().find(|known| known.route.is(method, target));
        if let Some(Known { route, only_counts }) = known {
            return only_counts.then(|| Arc::clone(route));
        }
        let found = find(engine, method, target);
        let route = found.only_counts.then(|| Arc::clone(&found.route));
        state.routes.swap(first, first ^ 1);
        state.routes[first] = Some(found);
        route
    }

    /// Takes a call that is over. Whether it is time to tell.
    fn add(&self, note: Note) -> bool {
        let mut state = lock(&self.state);
        if state.over.capacity() == 0 {
            state.over.reserve_exact(FULL);
        }
        state.over.push(note);
        state.over.len() >= FULL
    }
}

#[cold]
#[inline(never)]
fn find(engine: &Engine, method: &str, target: &Target<'_>) -> Known {
    let Target { tls, port, host, .. } = *target;
    // One that cannot be read is counted as such when it begins.
    let only_counts = !host.is_empty() && engine.only_counts(&host.to_ascii_lowercase());
    Known { route: Arc::new(Route { tls, port, host: host.into(), method: method.into() }), only_counts }
}

/// The first place of a route. Its bytes are hashed eight at a time; who chooses names that meet gains nothing.
fn place(method: &str, target: &Target<'_>) -> usize {
    let method = method.as_bytes().first().copied().unwrap_or_default();
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let (words, rest) = target.host.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(u64::from(target.port) << 8 | u64::from(method), |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
    #[expect(clippy::cast_possible_truncation, reason = "a place among few")]
    let place = mix(hash, last) as usize;
    place % ROUTES
}

impl Process {
    /// Takes a call that is over.
    pub(super) fn add(&self, note: Note) {
        if self.notes.add(note) {
            self.tell();
        }
    }

    /// Tells the engine of the calls that are over. To be done before anybody reads what it counted.
    #[cold]
    #[inline(never)]
    pub(super) fn tell(&self) {
        if !self.is_current() {
            // Copied by a fork that nobody announced, they are the parent's to tell.
            lock(&self.notes.state).over.clear();
            return;
        }
        let mut over = lock(&self.notes.telling);
        std::mem::swap(&mut lock(&self.notes.state).over, &mut over);
        for note in over.drain(..) {
            // What a panic may leave half done is the engine's, whose locks recover from poison.
            if catch_unwind(AssertUnwindSafe(|| note.tell(self))).is_err() {
                caught(self);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
