//! What `farcall outbox` promises to people and scripts.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall_agent::outbox::{Parcel, Reference};
use farcall_agent::{Farcall, Options};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn run(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    farcall(home, &[&["outbox"], arguments].concat())
}

fn farcall(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.args(arguments).env("FARCALL_HOME", home).env("COLUMNS", "100").current_dir(home);
    command.env_remove("FARCALL_CONFIG").env_remove("FARCALL_OUTBOX_KEY");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn json(home: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&run(home, &arguments).1).unwrap()
}

/// A vendor that answers each connection once with 200.
fn vendor() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
            let _ = connection.write_all(answer);
        }
    });
    port
}

/// Puts calls while a rule keeps them from being delivered.
fn put(home: &Path, parcels: Vec<Parcel>) {
    put_with(home, "", parcels);
}

/// The same, with what the configuration says beside that.
fn put_with(home: &Path, settings: &str, parcels: Vec<Parcel>) {
    let held = home.join("held.toml");
    let rule = "[[policy]]\nname = \"held\"\nmatch = {}\nverdict = \"deny\"\n";
    std::fs::write(&held, format!("{rule}{settings}")).unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        config: Some(held),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    });
    let outbox = farcall.outbox().unwrap();
    for parcel in parcels {
        outbox.put(parcel).unwrap();
    }
    farcall.shutdown();
}

#[test]
fn a_home_that_no_program_used_is_said_and_one_without_calls_has_an_empty_outbox() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["stats"][..], &["ls"], &["show", "7"], &["drain", "--service", "shop"]] {
        let (code, out, why) = run(home.path(), arguments);
        assert_eq!((code, out.as_str()), (3, ""), "{arguments:?}");
        assert!(why.contains("there is neither an outbox nor a ledger in "), "{why}");
    }
    assert_eq!(run(home.path(), &["ls", "--home", "/nonexistent"]).0, 3);
    // What is lost with all of its home is restored into a new one.
    let (code, _, why) = run(home.path(), &["restore", "--from", "/nonexistent/outbox.db"]);
    assert!(code == 3 && why.contains("there is no such file"), "{code} {why}");
    // The calls may be elsewhere.
    let fleet = tempfile::tempdir().unwrap();
    let config = "[outbox_store]\nstore = \"$FARCALL_TEST_NOT_SET\"\n";
    std::fs::write(fleet.path().join("farcall.toml"), config).unwrap();
    let (code, _, why) = run(fleet.path(), &["show", "-7"]);
    assert!(code == 3 && why.contains("FARCALL_TEST_NOT_SET"), "{code} {why}");
    std::fs::write(fleet.path().join("farcall.toml"), [config.as_bytes(), b"# caf\xe9\n"].concat()).unwrap();
    for arguments in [&["ls"][..], &["stats"], &["retry", "7"]] {
        let (code, out, why) = run(fleet.path(), arguments);
        let place = "farcall.toml:3:6: this is not UTF-8: the byte 0xe9; save the file as UTF-8";
        assert!(code == 3 && out.is_empty() && why.contains(place), "{arguments:?} {code} {out} {why}");
    }
    put(fleet.path(), Vec::new());
    let (code, out, _) = farcall(fleet.path(), &["doctor", "--json"]);
    let doctor: Value = serde_json::from_str(&out).unwrap();
    let problems = doctor["problems"].as_array().unwrap();
    let said = problems.iter().filter(|problem| problem.as_str().unwrap().contains("is not UTF-8")).count();
    assert_eq!((code, said, &doctor["outbox"]["pending"]), (1, 1, &Value::Null), "{out}");
    assert!(out.contains("whether calls wait in an outbox that it names is not known"), "{out}");
    put(home.path(), Vec::new());
    assert_eq!(run(home.path(), &["stats"]), (0, "the outbox is empty\n".into(), String::new()));
    assert_eq!(run(home.path(), &["ls"]), (0, "no calls\n".into(), String::new()));
    assert_eq!(run(home.path(), &["show", "7"]).0, 2);
    assert_eq!(run(home.path(), &["drain", "--service", "shop"]).1, "settled 0, left 0\n");
}

#[test]
fn calls_that_wait_for_a_credential_of_the_program_say_so() {
    let (home, port) = (tempfile::tempdir().unwrap(), vendor());
    let parcel = Parcel::new("POST", format!("http://127.0.0.1:{port}/v1/refunds"));
    let secret = Reference::callback("stripe").prefix("Bearer ");
    put(home.path(), vec![parcel.clone().secret("authorization", secret), parcel]);
    // What the environment has can be delivered from here, what a program has cannot.
    let (code, out, _) = run(home.path(), &["drain", "--service", "shop", "--timeout", "10s"]);
    let waits = "waits for a process that knows the credential `stripe`";
    assert!(code == 1 && out.contains("settled 1, left 1") && out.contains("waits for"), "{code} {out}");
    let (code, out, _) = run(home.path(), &["stats"]);
    assert!(code == 0 && out.contains(&format!("1 call of shop {waits}")), "{code} {out}");
    let stats = json(home.path(), &["stats"]);
    assert_eq!(stats["counts"].as_array().unwrap().len(), 2, "{stats}");
    let awaited = &stats["awaited"][0];
    assert_eq!((&awaited["credential"], &awaited["calls"]), (&"stripe".into(), &1.into()));
    let shown = json(home.path(), &["show", "1"]);
    assert_eq!((&shown["error"], &shown["attempts"]), (&waits.into(), &0.into()));
    assert_eq!(shown["headers"][0][1], "(from the callback `stripe`)");
    assert_eq!(json(home.path(), &["ls", "--service", "shop"])["calls"][0]["error"], waits);
}

#[test]
fn calls_whose_key_is_gone_are_told_of_with_what_is_to_be_done() {
    let (home, port) = (tempfile::tempdir().unwrap(), vendor());
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
        command
            .arg("doctor")
            .env("FARCALL_HOME", home.path())
            .env("COLUMNS", "1000")
            .current_dir(home.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let parcel = || Parcel::new("POST", format!("http://127.0.0.1:{port}/v1/refunds"));
    // One of an order key waits for the other, and so for its key.
    put(home.path(), vec![parcel().order_key("acme"), parcel().order_key("acme")]);
    assert_eq!((run(home.path(), &["stats"]).0, doctor().0), (0, 0));
    assert_eq!(json(home.path(), &["stats"])["unreadable"], serde_json::Value::Null);
    let (key, away) = (home.path().join("outbox.key"), home.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let told = "2 calls in the outbox wait for a key: it is neither in ";
    let gone = |why: &str| {
        let (code, out, _) = run(home.path(), &["stats"]);
        assert!(code == 1 && out.contains(why) && out.contains("2 calls"), "{code} {out}");
        let unreadable = &json(home.path(), &["stats"])["unreadable"];
        assert!(unreadable["calls"] == 2 && !unreadable["why"].as_str().unwrap().is_empty(), "{unreadable}");
        let (code, out) = doctor();
        assert!(code == 1 && out.contains(why), "{code} {out}");
    };
    gone(told);
    assert!(doctor().1.contains("outbox.key nor in $FARCALL_OUTBOX_KEY; put it back"));
    assert!(!key.exists(), "who asks makes none");
    // Another one does not help.
    std::fs::write(&key, [7; 32]).unwrap();
    gone(told);
    std::fs::write(&key, [7; 31]).unwrap();
    gone("outbox.key) is not 32 bytes long; put the right one back");
    std::fs::rename(&away, &key).unwrap();
    assert_eq!(run(home.path(), &["stats"]).0, 0);
    let (code, out) = doctor();
    assert!(code == 0 && !out.contains("wait for a key"), "{code} {out}");
    let (code, out, _) = run(home.path(), &["drain", "--service", "shop"]);
    assert_eq!((code, out.as_str()), (0, "settled 2, left 0\n"));
}

#[test]
fn what_waits_is_listed_shown_and_drained() {
    let (home, port) = (tempfile::tempdir().unwrap(), vendor());
    let url = format!("http://127.0.0.1:{port}/v1/refunds?key=t0ken");
    let parcel = Parcel::new("POST", &url).header("authorization", "Bearer s3cret").body("amount=7");
    put(home.path(), vec![parcel.clone().customer("acme"), parcel]);
    let listed = json(home.path(), &["ls", "--state", "pending"]);
    let calls = listed["calls"].as_array().unwrap();
    assert_eq!(
        (calls.len(), &calls[0]["customer"], &calls[0]["service"]),
        (2, &"acme".into(), &"shop".into())
    );
    assert!(calls[0]["put_at"].as_str().unwrap().ends_with('Z'));
    let table = run(home.path(), &["ls"]).1;
    assert!(
        table.contains("POST 127.0.0.1") && table.contains("acme") && !table.contains("refunds"),
        "{table}"
    );
    let shown = run(home.path(), &["show", "1"]).1;
    assert!(shown.contains(&url.replace("t0ken", "(hidden)")), "{shown}");
    assert!(shown.contains("authorization: (encrypted)"), "{shown}");
    for hidden in ["s3cret", "amount=7", "t0ken"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(json(home.path(), &["show", "1"])["url"].as_str().unwrap().ends_with("?key=(hidden)"));
    assert!(run(home.path(), &["show", "1", "--reveal"]).1.contains(&url));
    assert!(run(home.path(), &["show", "1", "--bodies"]).1.contains("amount=7"));
    assert_eq!(run(home.path(), &["drop", "2"]).1, "dropped 1 call\n");
    let (code, out, _) = run(home.path(), &["drop", "2"]);
    assert_eq!((code, out.as_str()), (1, "dropped 0 calls; 1 was not there\n"));
    let (code, out, err) = run(home.path(), &["drain", "--service", "shop"]);
    assert_eq!((code, out.as_str()), (0, "settled 1, left 0\n"), "{err}");
    let (code, out, _) = run(home.path(), &["retry", "1"]);
    assert_eq!((code, out.as_str()), (1, "retried 0 calls; 1 was not there, or delivered already\n"));
    let shown = json(home.path(), &["show", "1", "--bodies"]);
    assert_eq!((&shown["state"], &shown["answer"]["status"]), (&"delivered".into(), &200.into()));
    assert_eq!(shown["answer_body"], "hi");
}

#[test]
fn a_service_that_is_not_there_is_told_from_one_without_calls() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), Vec::new());
    let asked = |service| [["ls", "--service", service], ["drain", "--service", service]];
    for arguments in asked("shop") {
        assert_eq!(run(home.path(), &arguments).0, 0, "{arguments:?}");
    }
    put(home.path(), vec![Parcel::new("POST", "http://127.0.0.1:1/")]);
    for arguments in asked("shpo") {
        let (code, out, why) = run(home.path(), &arguments);
        let said = "farcall: no service here is called shpo; those that have an outbox here: shop\n";
        assert_eq!((code, out.as_str(), why.as_str()), (2, "", said), "{arguments:?}");
    }
    // By its calls alone.
    std::fs::remove_file(home.path().join("ledger.db")).unwrap();
    assert_eq!(run(home.path(), &["ls", "--service", "shop", "--state", "dead"]).1, "no calls\n");
    assert_eq!(run(home.path(), &["ls", "--service", "shpo"]).0, 2);
}

#[test]
fn dead_letters_are_something_to_look_at_and_can_be_retried() {
    let (home, port) = (tempfile::tempdir().unwrap(), vendor());
    let parcel = Parcel::new("GET", format!("http://127.0.0.1:{port}/"));
    put(home.path(), vec![parcel.max_age(std::time::Duration::from_millis(1))]);
    let (code, out, err) = run(home.path(), &["drain", "--service", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, _) = run(home.path(), &["stats"]);
    assert!(code == 1 && out.contains("dead"), "{out}");
    assert_eq!(json(home.path(), &["stats"])["counts"][0]["calls"], 1);
    let listed = json(home.path(), &["ls", "--state", "dead"]);
    assert!(listed["calls"][0]["error"].as_str().unwrap().contains("maximum age"), "{listed}");
    assert_eq!(run(home.path(), &["retry", "--dead"]).1, "retried 1 call\n");
    assert_eq!(json(home.path(), &["stats"])["counts"][0]["state"], "pending");
}

#[test]
fn what_a_drain_leaves_is_shown_and_what_is_lost_is_restored_from_a_copy() {
    let (home, volume, port) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), vendor());
    let copy = volume.path().join("outbox.db");
    let parcel = Parcel::new("POST", format!("http://127.0.0.1:{port}/"));
    let settings = format!("[outbox_store]\ncopies = [{copy:?}]\n");
    put_with(home.path(), &settings, vec![parcel.delay(std::time::Duration::from_secs(86_400))]);
    let (code, out, _) = run(home.path(), &["drain", "--service", "shop", "--timeout", "1ms"]);
    assert!(code == 1 && out.starts_with("settled 0, left 1, of which the oldest are\nid"), "{code} {out}");
    assert!(out.contains("23h"), "{out}");
    let fresh = tempfile::tempdir().unwrap();
    std::fs::write(fresh.path().join("farcall.toml"), &settings).unwrap();
    let from = ["restore", "--from", copy.to_str().unwrap()];
    let (code, out, why) = run(fresh.path(), &from);
    assert_eq!((code, out.as_str()), (0, "restored 1 call, 0 there already\n"), "{why}");
    assert!(!why.contains("calls of another"), "{why}");
    assert_eq!(json(fresh.path(), &from)["known"], 1);
    assert_eq!(json(fresh.path(), &["ls"])["calls"][0]["id"], 1);
}

#[test]
fn what_waits_for_a_server_is_shown_while_that_cannot_be_reached() {
    let home = tempfile::tempdir().unwrap();
    let settings =
        "[outbox_store]\nstore = \"postgres://nobody@127.0.0.1:1/none\"\non_unreachable = \"spool\"\n";
    std::fs::write(home.path().join("farcall.toml"), settings).unwrap();
    let (code, out, why) = run(home.path(), &["ls"]);
    assert!(code == 3 && out.is_empty() && why.contains("cannot reach the outbox"), "{code} {out} {why}");
    assert_eq!(run(home.path(), &["stats"]).0, 3);
    put_with(home.path(), settings, vec![Parcel::new("POST", "http://127.0.0.1:1/")]);
    let (code, out, why) = run(home.path(), &["ls"]);
    assert!(
        code == 3 && out.contains("\n-1  pending") && why.contains("these wait here"),
        "{code} {out} {why}"
    );
    assert_eq!(json(home.path(), &["ls"])["calls"][0]["id"], -1);
    let (code, out, why) = run(home.path(), &["stats"]);
    assert!(code == 3 && out.contains("1 call waits here"), "{code} {out} {why}");
    assert!(
        why.contains("cannot reach the outbox") && why.contains("these are the calls that are here"),
        "{why}"
    );
    let stats = json(home.path(), &["stats"]);
    let [counts, vendors] = ["counts", "vendors"].map(|name| &stats[name][0]);
    assert_eq!(
        (&counts["service"], &counts["state"], &counts["calls"]),
        (&"shop".into(), &"pending".into(), &1.into())
    );
    assert_eq!((&vendors["pending"], &stats["here"]["spooled"]), (&1.into(), &1.into()));
    assert!(stats["missing"].as_str().unwrap().contains("cannot reach the outbox"), "{stats}");
    let (code, out, _) = run(home.path(), &["show", "-1"]);
    assert!(code == 0 && out.contains("-1 POST http://127.0.0.1:1/"), "{code} {out}");
}

#[test]
fn calls_that_are_in_too_few_copies_are_something_that_stats_says() {
    let (home, volumes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = format!(
        "[outbox_store]\ncopies = [{:?}]\non_missing_copy = \"alarm\"\n",
        volumes.path().join("not mounted").join("outbox.db")
    );
    std::fs::write(home.path().join("farcall.toml"), &config).unwrap();
    let parcel = Parcel::new("POST", "https://127.0.0.1:1/").delay(std::time::Duration::from_secs(86_400));
    put_with(home.path(), &config, vec![parcel.clone(), parcel]);
    let (code, out, err) = run(home.path(), &["stats"]);
    assert_eq!(code, 1, "{err}");
    let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("2 calls are in fewer copies than asked for, until they can be written"), "{out}");
    let here = &json(home.path(), &["stats"])["here"];
    assert_eq!((&here["uncopied"], &here["spooled"]), (&2.into(), &0.into()));
}

#[test]
fn a_copy_that_cannot_be_written_is_something_that_stats_and_doctor_say_and_what_it_does_to_calls() {
    let (home, volumes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (good, away) = (volumes.path().join("outbox.db"), volumes.path().join("away/outbox.db"));
    let noise = volumes.path().join("noise.db");
    std::fs::write(&noise, [7; 5_000]).unwrap();
    let configure = |copies: &[&str], more: &str| {
        let config = format!("[outbox_store]\ncopies = {copies:?}\n{more}\n");
        std::fs::write(home.path().join("farcall.toml"), &config).unwrap();
        config
    };
    let [good, away, noise] = [&good, &away, &noise].map(|file| file.to_str().unwrap());
    put_with(home.path(), &configure(&[good], ""), Vec::new());
    let told = || {
        let (code, out, _) = run(home.path(), &["stats", "--json"]);
        let here = serde_json::from_str::<Value>(&out).unwrap()["here"].take();
        let (doctors, out, _) = farcall(home.path(), &["doctor", "--json"]);
        let problems = serde_json::from_str::<Value>(&out).unwrap()["problems"].take();
        let (_, text, _) = run(home.path(), &["stats"]);
        assert_eq!(code, doctors, "{here} {problems}");
        (code, here, problems.to_string(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(told().0, 0);
    let no_directory = "is not there (is its volume mounted?)";
    let not_set =
        "FARCALL_TEST_NOT_SET, which says where it is, is not set (programs may have that variable where";
    for (copies, more, effect, word, why) in [
        ([good, away], "", "no call is taken: it would be in 1 of the 2 copies", "refused", no_directory),
        ([good, "$FARCALL_TEST_NOT_SET"], "", "no call is taken: it would be in 1 of", "refused", not_set),
        ([good, "postgres://127.0.0.1:1/none"], "", "no call is taken", "refused", "FARCALL_OUTBOX_KEY"),
        ([good, noise], "", "no call is taken: it would be in 1 of", "refused", "file is not a database"),
        (
            [good, away],
            "copies_needed = 1\nvendor_copies = { stripe = 2 }",
            "no call is taken that has to be in more than 1 of the copies",
            "some_refused",
            no_directory,
        ),
        ([good, away], "copies_needed = 1", "calls are taken: enough other copies", "taken", no_directory),
        (
            [good, away],
            "on_missing_copy = \"alarm\"",
            "calls are taken into 1 of the 2 copies that are asked for, and [alarm] tells of it",
            "taken_with_alarm",
            no_directory,
        ),
    ] {
        configure(&copies, more);
        let (code, here, problems, text) = told();
        let copy = format!("The copy {} cannot be written: ", copies[1]);
        for said in [&problems, &text] {
            assert!([effect, &copy, why].iter().all(|words| said.contains(words)), "{effect} {said}");
        }
        assert_eq!((code, &here["without_copies"]), (1, &word.into()), "{here}");
        let missing = here["missing_copies"].as_array().unwrap();
        assert_eq!((missing.len(), &missing[0]["name"]), (1, &copies[1].into()), "{here}");
        assert!(missing[0]["why"].as_str().unwrap().contains(why), "{here}");
    }
}

#[test]
fn what_is_no_copy_restores_nothing_and_stops_nothing() {
    let (home, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let noise = volume.path().join("noise.db");
    std::fs::write(&noise, [7; 5_000]).unwrap();
    let (code, out, why) = run(home.path(), &["restore", "--from", noise.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(why.contains("cannot be read as a copy of one: file is not a database"), "{why}");
    assert!(why.contains(noise.to_str().unwrap()) && !why.contains("stopped"), "{why}");
    put(home.path(), vec![Parcel::new("POST", "http://127.0.0.1:1/")]);
    assert_eq!(run(home.path(), &["stats"]).0, 0);
}

#[test]
fn a_copy_whose_disk_failed_is_something_that_stats_and_doctor_say_until_resume() {
    let (home, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = volume.path().join("outbox.db");
    let config = format!("[outbox_store]\ncopies = [{copy:?}]\n");
    std::fs::write(home.path().join("farcall.toml"), &config).unwrap();
    let parcel = Parcel::new("POST", "https://127.0.0.1:1/").delay(std::time::Duration::from_secs(86_400));
    put_with(home.path(), &config, vec![parcel.clone()]);
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
        let output = command.args(["doctor", "--home"]).arg(home.path()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let stats = || {
        let (code, out, _) = run(home.path(), &["stats"]);
        (code, out)
    };
    let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!((stats().0, doctor().0), (0, 0));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mark = volume.path().join("outbox.stopped");
    std::fs::write(&mark, format!("{}\ndisk I/O error\n", boot.trim())).unwrap();
    let said = format!("the copy {} has stopped, since its disk failed: disk I/O error", copy.display());
    for (code, out) in [stats(), doctor()] {
        let text = in_one_line(&out);
        assert!(code == 1 && text.contains(&said) && text.contains("outbox resume"), "{code} {out}");
    }
    let told = json(home.path(), &["stats"]);
    let stopped = &told["here"]["stopped_copies"][0];
    assert_eq!((stopped["name"].as_str(), stopped["why"].as_str()), (copy.to_str(), Some("disk I/O error")));
    assert!(told["stopped"].is_null(), "the outbox itself has not: {told}");
    assert_eq!(
        (&told["here"]["without_copies"], &told["here"]["missing_copies"]),
        (&"refused".into(), &Value::Array(Vec::new()))
    );
    let (code, out, _) = run(home.path(), &["resume"]);
    assert!(code == 0 && out.contains("restart the processes that stopped"), "{code} {out}");
    assert_eq!((mark.exists(), stats().0, doctor().0), (false, 0, 0));
    let (code, out, _) = run(home.path(), &["resume"]);
    assert!(code == 0 && out.contains("no stop was noted here"), "{code} {out}");
    put_with(home.path(), &config, vec![parcel]);
}
