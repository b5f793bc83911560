//! `adapters.toml`: the columns of the matrix, and how the shim behind each is started.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::scenario::{load, workspace_root};

/// The columns.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapters {
    /// In the order in which they are printed.
    #[serde(rename = "adapter")]
    pub all: Vec<Adapter>,
    shim: BTreeMap<String, Shim>,
}

/// One column of the matrix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// The column's name.
    pub name: String,
    /// The shim that stands behind it.
    pub shim: String,
    /// The client library, in the shim's words.
    pub(crate) client: String,
    /// Whether the client can follow redirects itself.
    #[serde(default = "yes")]
    pub(crate) follows_redirects: bool,
    /// Whether the client decodes compressed bodies.
    #[serde(default = "yes")]
    pub(crate) decodes: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shim {
    example: Option<Example>,
    #[serde(default)]
    run: Vec<String>,
    #[serde(default)]
    probe: Vec<String>,
}

/// A shim that cargo builds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    package: String,
    name: String,
    #[serde(default)]
    features: Vec<String>,
}

/// What it takes to start a shim.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// Program and arguments.
    Ready(Vec<String>),
    /// It cannot be started, and why.
    Missing(String),
}

impl Adapters {
    /// Reads `adapters.toml`.
    ///
    /// # Errors
    /// Says where the file is wrong.
    pub fn load() -> Result<Self, String> {
        let adapters: Self = load("adapters.toml")?;
        match adapters.all.iter().find(|a| !adapters.shim.contains_key(&a.shim)) {
            Some(a) => {
                Err(format!("adapters.toml: {} stands on a shim `{}` that is not there", a.name, a.shim))
            }
            None => Ok(adapters),
        }
    }

    /// Makes the shim ready, once in this process: builds the one that cargo builds, and asks the others' runtimes
    /// for what they need.
    #[must_use]
    pub fn prepare(&self, shim: &str) -> Runtime {
        static PREPARED: Mutex<BTreeMap<String, Runtime>> = Mutex::new(BTreeMap::new());
        let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.entry(shim.to_owned()).or_insert_with(|| self.make_ready(shim)).clone()
    }

    fn make_ready(&self, shim: &str) -> Runtime {
        let Some(shim) = self.shim.get(shim) else { return Runtime::Missing(format!("no shim `{shim}`")) };
        match &shim.example {
            Some(example) => build(example),
            None => probe(shim),
        }
    }
}

fn probe(shim: &Shim) -> Runtime {
    let Some(script) = shim.run.last().map(|script| workspace_root().join(script)) else {
        return Runtime::Missing("the shim has no `run` in adapters.toml".into());
    };
    if !script.is_file() {
        return Runtime::Missing(format!("{} does not exist", script.display()));
    }
    match shim.probe.split_first().map(|(program, arguments)| output(program, arguments)) {
        Some(Err(reason)) => Runtime::Missing(format!("{reason}; `make build` prepares it")),
        _ => Runtime::Ready(shim.run.clone()),
    }
}

fn build(example: &Example) -> Runtime {
    let release = !cfg!(debug_assertions);
    let mut arguments: Vec<String> =
        ["build", "--quiet", "--package", &example.package, "--example", &example.name]
            .map(String::from)
            .into();
    if !example.features.is_empty() {
        arguments.extend(["--features".into(), example.features.join(",")]);
    }
    if release {
        arguments.push("--release".into());
    }
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    match (output(&cargo, &arguments), profile_dir()) {
        (Err(reason), _) => Runtime::Missing(reason),
        (Ok(()), None) => {
            Runtime::Missing("the test's own executable is not in a cargo target folder".into())
        }
        (Ok(()), Some(dir)) => {
            Runtime::Ready(vec![dir.join("examples").join(&example.name).display().to_string()])
        }
    }
}

/// `target/<profile>`, where this very test lies in `deps/`.
fn profile_dir() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.parent()?.to_owned())
}

fn output(program: &str, arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace_root()).stdin(Stdio::null());
    match command.output() {
        Err(e) => Err(format!("`{program}` cannot be started: {e}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = said.lines().rev().take(6).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            Err(format!("`{program} {}` failed: {}", arguments.join(" "), last.join(" | ")))
        }
    }
}
