//! The process's one Farcall, and the names that this thread knows by number.

use farcall_agent::{Farcall, Options};
use napi::bindgen_prelude::{AsyncTask, Env, Result};
use napi::{Error, Task};
use napi_derive::napi;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The process's handle, for the hot path: `Farcall::global` would start one with other options.
static FARCALL: OnceLock<&'static Farcall> = OnceLock::new();

thread_local! {
    pub(crate) static NAMES: RefCell<Names> = RefCell::default();
}

/// The handle, once `start` was called.
pub(crate) fn farcall() -> Result<&'static Farcall> {
    FARCALL.get().copied().ok_or_else(|| Error::from_reason("farcall is not installed"))
}

/// Runs what a task does on a thread of libuv's pool: a panic of ours must not end the process.
pub(crate) fn unharmed<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| {
        Err(Error::from_reason("farcall failed within: this was not done, or not told of"))
    })
}

/// Where calls go, how, and on whose behalf, each under the number that JavaScript calls it by.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) origins: Vec<Origin>,
    pub(crate) methods: Vec<String>,
    pub(crate) scopes: Vec<Scope>,
}

/// Scheme, host and port.
pub(crate) struct Origin {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// On whose behalf, and with which tags.
pub(crate) struct Scope {
    pub(crate) customer: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

fn push<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    u32::try_from(list.len() - 1).unwrap_or(u32::MAX)
}

/// Starts Farcall in this process, unless it was started before. `service` and `home` go before the
/// environment, `hint` behind it and the configuration. Returns whether anything is to be counted.
#[napi(catch_unwind)]
pub(crate) fn start(service: Option<String>, home: Option<String>, hint: Option<String>) -> bool {
    let farcall = Farcall::start_global(|| Options {
        service,
        home: home.map(PathBuf::from),
        service_hint: hint,
        ..Options::default()
    });
    FARCALL.get_or_init(|| farcall).is_enabled()
}

/// Tells `farcall doctor` that an adapter is in place.
#[napi(catch_unwind)]
pub(crate) fn adapter_installed(name: String) -> Result<()> {
    farcall()?.adapter_installed(&name);
    Ok(())
}

/// Counts an exception in a hook, for `farcall doctor`.
#[napi(catch_unwind)]
pub(crate) fn count_failure() -> Result<()> {
    farcall()?.count_failure("node_hook_errors");
    Ok(())
}

/// Counts a body that is not kept because too much is, for `farcall doctor`.
#[napi(catch_unwind)]
pub(crate) fn count_unkept() -> Result<()> {
    farcall()?.count_failure("node_unkept_bodies");
    Ok(())
}

/// The directory of the ledger, where there is one.
#[napi(catch_unwind)]
pub(crate) fn home() -> Option<String> {
    let home = farcall().ok()?.home()?;
    Some(home.to_string_lossy().into_owned())
}

/// Numbers an origin.
#[napi(catch_unwind)]
pub(crate) fn name_origin(tls: bool, host: String, port: u32) -> u32 {
    let port = u16::try_from(port).unwrap_or(0);
    NAMES.with_borrow_mut(|names| push(&mut names.origins, Origin { tls, host, port }))
}

/// Numbers a request method.
#[napi(catch_unwind)]
pub(crate) fn name_method(method: String) -> u32 {
    NAMES.with_borrow_mut(|names| push(&mut names.methods, method))
}

/// Numbers a customer and tags; `tags` alternates keys and values.
#[napi(catch_unwind)]
pub(crate) fn name_scope(customer: Option<String>, tags: Vec<String>) -> u32 {
    let mut words = tags.into_iter();
    let mut tags = Vec::new();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        tags.push((key, value));
    }
    NAMES.with_borrow_mut(|names| push(&mut names.scopes, Scope { customer, tags }))
}

/// Forgets all origins: their numbers begin again at 0. Calls under way keep what they were begun with.
#[napi(catch_unwind)]
pub(crate) fn forget_origins() {
    NAMES.with_borrow_mut(|names| names.origins.clear());
}

/// Forgets all methods.
#[napi(catch_unwind)]
pub(crate) fn forget_methods() {
    NAMES.with_borrow_mut(|names| names.methods.clear());
}

/// Forgets all scopes.
#[napi(catch_unwind)]
pub(crate) fn forget_scopes() {
    NAMES.with_borrow_mut(|names| names.scopes.clear());
}

/// Writes what was counted to the ledger, now and on this thread: for the process's exit.
#[napi(catch_unwind)]
pub(crate) fn flush_now() {
    if let Ok(farcall) = farcall() {
        farcall.flush();
    }
}

/// The last flush of the process.
#[napi(catch_unwind)]
pub(crate) fn shutdown() {
    if let Ok(farcall) = farcall() {
        farcall.shutdown();
    }
}

/// Flushes on a thread of libuv's pool.
pub(crate) struct FlushTask;

impl Task for FlushTask {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> Result<()> {
        unharmed(|| {
            farcall()?.flush();
            Ok(())
        })
    }

    fn resolve(&mut self, _env: Env, _output: ()) -> Result<()> {
        Ok(())
    }
}

/// Writes what was counted to the ledger; resolves once it is there.
#[napi]
pub(crate) fn flush() -> AsyncTask<FlushTask> {
    AsyncTask::new(FlushTask)
}

/// What engine and agent could not do as asked, as a JSON object of counts.
#[napi(catch_unwind)]
pub(crate) fn counters() -> Result<String> {
    let counts: serde_json::Map<_, _> =
        farcall()?.counters().into_iter().map(|(name, n)| (name, n.into())).collect();
    Ok(serde_json::Value::from(counts).to_string())
}
