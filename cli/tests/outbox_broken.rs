//! What `farcall outbox` and `farcall doctor` say where the outbox's file or what deliveries trust is broken.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall_agent::outbox::{OutboxError, Parcel, State};
use farcall_agent::{Farcall, Options};
use serde_json::Value;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn start(home: &Path) -> Farcall {
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some("/dev/null".into()),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

/// The exit code, and what was said on either stream, in one line.
fn farcall(home: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.args(arguments).env("FARCALL_HOME", home).env("COLUMNS", "100").current_dir(home);
    command.env_remove("FARCALL_CONFIG").env_remove("FARCALL_OUTBOX_KEY");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    (output.status.code().unwrap(), said)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_outbox_that_is_no_database_is_said_to_be_none_until_it_was_put_aside() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("outbox.db");
    fs::write(&file, "this is not a database, by any means\n".repeat(400)).unwrap();
    let farcall = start(home.path());
    let parcel = || Parcel::new("POST", "https://127.0.0.1:1/").delay(Duration::from_secs(86_400));
    let put = || farcall.outbox().unwrap().put(parcel());
    let error = put().unwrap_err();
    assert!(matches!(&error, OutboxError::NotADatabase { file: said } if *said == file), "{error}");
    assert!(!error.is_passing());
    farcall.flush();

    let aside = format!("move {0}, {0}-wal and {0}-shm away", file.display());
    let is = format!("{} is not a database", file.display());
    for (arguments, code) in [
        (&["outbox", "stats"][..], 3),
        (&["outbox", "ls"], 3),
        (&["outbox", "resume"], 3),
        (&["outbox", "resume"], 3),
        (&["doctor"], 1),
    ] {
        let (ended, said) = self::farcall(home.path(), arguments);
        assert_eq!(ended, code, "{arguments:?} {said}");
        for words in [&is, &aside, "farcall outbox restore --from COPY"] {
            assert!(said.contains(words), "{arguments:?} {said}");
        }
        assert!(!said.contains("check the disk"), "{arguments:?} {said}");
    }

    fs::rename(&file, home.path().join("aside")).unwrap();
    // Nothing else is needed, not even of a program that met it.
    put().unwrap();
    assert_eq!(self::farcall(home.path(), &["outbox", "stats"]).0, 0);
    farcall.shutdown();
}

const INSIDE: &str = "FARCALL_TEST_UNTRUSTING";

#[test]
fn why_nothing_is_trusted_stands_beside_the_calls_until_it_can_be_read() {
    if let Some(home) = env::var_os(INSIDE) {
        return untrusting(Path::new(&home));
    }
    // In a program of its own: what is trusted is the environment's to say.
    let home = tempfile::tempdir().unwrap();
    let this = "why_nothing_is_trusted_stands_beside_the_calls_until_it_can_be_read";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(INSIDE, home.path())
        .env("SSL_CERT_FILE", home.path().join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

fn untrusting(home: &Path) {
    let ca = home.join("ca.pem");
    let farcall = start(home);
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", "https://127.0.0.1:1/")).unwrap().id;
    farcall.flush();
    let error = || outbox.item(id).unwrap().error.unwrap_or_default();
    let names = format!("there is no certificate to trust: $SSL_CERT_FILE names {ca:?}, which ");
    for (written, why) in
        [(None, "cannot be read: No such file"), (Some("nothing of the kind\n"), "has none")]
    {
        if let Some(written) = written {
            fs::write(&ca, written).unwrap();
        }
        let why = format!("{names}{why}");
        until(&why, || error().starts_with(&why));
        let item = outbox.item(id).unwrap();
        assert_eq!((item.state, item.attempts), (State::Pending, 0), "it was not tried");
        let number = id.to_string();
        for (arguments, code) in
            [(&["outbox", "stats"][..], 1), (&["doctor"], 1), (&["outbox", "show", &number], 0)]
        {
            let (ended, said) = self::farcall(home, arguments);
            assert_eq!(ended, code, "{arguments:?} {said}");
            assert!(said.contains(&why), "{arguments:?} {said}");
        }
        let said = self::farcall(home, &["outbox", "stats", "--json"]).1;
        let stats: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(stats["untrusting"][0]["service"], "shop", "{stats}");
    }

    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=test", "-keyout", "/dev/null", "-out"])
        .arg(&ca)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    until("an attempt", || outbox.item(id).unwrap().attempts > 0);
    assert!(error().starts_with("connect: "), "{}", error());
    let (code, said) = self::farcall(home, &["outbox", "stats"]);
    assert!(code == 0 && !said.contains("certificate"), "{said}");
    farcall.shutdown();
}
