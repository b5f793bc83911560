//! On whose behalf a call is made.
//!
//! The innermost statement wins: a request's own extension, then the scope around the code that makes it.

use crate::local::{self, InForce, Slot};
use pin_project_lite::pin_project;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The customer of one request, as a request extension.
///
/// ```
/// use farcall_tower::Customer;
///
/// let request = http::Request::get("https://api.stripe.com/v1/charges")
///     .extension(Customer::new("acme"))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Customer(Arc<str>);

impl Customer {
    /// A customer by name. Keep it and clone it where many requests carry the same one: a clone allocates
    /// nothing.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The customer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// The tags of one request, as a request extension: free-form `(key, value)` pairs, of which the engine keeps
/// [`MAX_TAGS`](farcall::attribution::MAX_TAGS).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Arc<[(Arc<str>, Arc<str>)]>);

impl Tags {
    /// Tags from pairs.
    #[must_use]
    pub fn new<K: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    pub(crate) fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }
}

/// How long the caller of one request waits for its answer, as a request extension: no rule makes the call wait, or
/// tries again, beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// Attribution for all calls made inside a future or a closure. Made by [`customer`], [`tags`] or
/// [`Scope::current`].
///
/// The scope goes with the task, not with the thread, on any executor. It does not cross a spawn: carry it
/// over with `tokio::spawn(Scope::current().scope(future))`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub(crate) customer: Option<Customer>,
    pub(crate) tags: Tags,
}

thread_local! {
    static CURRENT: Slot<Scope> = const { RefCell::new(None) };
}

/// A scope in which calls are made on behalf of `name`, with the tags that are already in force.
///
/// ```
/// # async fn bill() {}
/// # async fn example() {
/// farcall_tower::customer("acme").scope(bill()).await;
/// # }
/// ```
#[must_use]
pub fn customer(name: impl Into<Arc<str>>) -> Scope {
    Scope { customer: Some(Customer::new(name)), ..Scope::current() }
}

/// A scope in which calls carry these tags beside those already in force, for the customer already in force.
#[must_use]
pub fn tags<K: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Scope {
    Scope::current().tags(pairs)
}

impl Scope {
    /// What is in force here: to carry it over into a spawned task.
    #[must_use]
    pub fn current() -> Self {
        with_current(|scope| scope.cloned().unwrap_or_default())
    }

    /// Adds tags; where a key repeats, the later value holds.
    #[must_use]
    pub fn tags<K: Into<Arc<str>>, V: Into<Arc<str>>>(
        mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut all: Vec<_> = self.tags.0.to_vec();
        for (key, value) in Tags::new(pairs).0.iter() {
            all.retain(|(known, _)| known != key);
            all.push((key.clone(), value.clone()));
        }
        self.tags = Tags(all.into());
        self
    }

    /// Runs a future in this scope.
    pub fn scope<F: Future>(self, future: F) -> Scoped<F> {
        Scoped { inner: future, scope: Some(self) }
    }

    /// Runs a closure in this scope. Calls begun inside belong to it even if they end later.
    pub fn sync_scope<R>(self, f: impl FnOnce() -> R) -> R {
        let mut scope = Some(self);
        let _in_force = InForce::new(&CURRENT, &mut scope);
        f()
    }
}

#[cfg(feature = "reqwest")]
impl Scope {
    /// What holds for a request with these extensions.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        let around = Self::current();
        Self {
            customer: extensions.get().cloned().or(around.customer),
            tags: extensions.get().cloned().unwrap_or(around.tags),
        }
    }
}

/// Shows the scope in force.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Scope>) -> R) -> R {
    local::look(&CURRENT, |scope| f(scope.as_deref()))
}

pin_project! {
    /// A future in a [`Scope`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Scoped<F> {
        #[pin]
        inner: F,
        scope: Option<Scope>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _in_force = InForce::new(&CURRENT, this.scope);
        this.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Option<String> {
        Scope::current().customer.map(|customer| customer.name().to_owned())
    }

    #[test]
    fn the_inner_scope_wins_and_the_outer_one_returns() {
        customer("acme").tags([("team", "growth")]).sync_scope(|| {
            customer("globex").sync_scope(|| {
                assert_eq!(name().as_deref(), Some("globex"));
                assert_eq!(Scope::current().tags.pairs().len(), 1, "tags are inherited");
            });
            assert_eq!(name().as_deref(), Some("acme"));
        });
        assert_eq!(name(), None);
    }

    #[test]
    fn a_later_tag_of_the_same_key_holds() {
        let scope = tags([("env", "test"), ("team", "core")]).tags([("env", "prod")]);
        assert_eq!(scope.tags, Tags::new([("team", "core"), ("env", "prod")]));
    }

    #[test]
    fn a_scope_is_in_force_only_while_its_future_is_polled() {
        let mut one = tokio_test::task::spawn(customer("one").scope(async {
            let before = name();
            tokio::task::yield_now().await;
            (before, name())
        }));
        assert!(one.poll().is_pending());
        assert_eq!(name(), None, "a scope does not leak into the next task of the thread");
        let mut two = tokio_test::task::spawn(customer("two").scope(async { name() }));
        assert_eq!(two.poll(), Poll::Ready(Some("two".into())));
        assert_eq!(one.poll(), Poll::Ready((Some("one".into()), Some("one".into()))));
    }

    #[test]
    fn a_panic_inside_leaves_no_scope_behind() {
        let unwound =
            std::panic::catch_unwind(|| customer("acme").sync_scope(|| panic!("the application's")));
        assert!(unwound.is_err());
        assert_eq!(name(), None);
    }
}
