//! What `farcall outbox` and `farcall doctor` say where the outbox's file is broken.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall_agent::outbox::{OutboxError, Parcel};
use farcall_agent::{Farcall, Options};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
