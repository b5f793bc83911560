use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

const fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos((1_795_255_200 + seconds) * 1_000_000_000)
}

fn failed<'a>(rule: &'a Arc<str>, seconds: u64) -> Failed<'a> {
    Failed::new(rule, ("stripe", "POST /v1/refunds"), "answered 503", 7, at(seconds))
}

/// No way at all, whatever collector the environment of the tests names.
fn nothing() -> Config {
    let mut config = Config::default();
    config.otlp.events = false;
    config
}

fn config(file: &Path) -> Config {
    let mut config = nothing();
    config.alarm.log = Some(file.to_owned());
    config.alarm.every = Duration::from_secs(60);
    config
}

/// Waits until nothing is on its way.
fn quiet(alarm: &Alarm) {
    let until = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < until {
        alarm.wind_down();
        if alarm.lock().rests() {
            return;
        }
    }
    panic!("the alarm never came to rest");
}

fn counted(alarm: &Alarm) -> [u64; 4] {
    alarm.counters().map(|(_, value)| value)
}

fn lines(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn a_clock_that_is_set_back_silences_no_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alarms.log");
    let alarm = Alarm::new(&config(&file), "shop", 1, None);
    let (bell, refunds): (_, Arc<str>) = (Bell(Arc::clone(&alarm)), "refunds".into());
    assert!(bell.failed(&failed(&refunds, 7_200)));
    assert!(!bell.failed(&failed(&refunds, 7_201)));
    assert!(bell.failed(&failed(&refunds, 10)), "two hours earlier");
    assert!(!bell.failed(&failed(&refunds, 20)));
    quiet(&alarm);
    assert_eq!(lines(&file).len(), 2);
}

#[test]
fn the_first_failure_of_a_rule_is_told_and_the_next_ones_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alarms.log");
    let alarm = Alarm::new(&config(&file), "shop", 1, None);
    let bell = Bell(Arc::clone(&alarm));
    let (refunds, payouts): (Arc<str>, Arc<str>) = ("refunds".into(), "payouts".into());
    assert!(bell.failed(&failed(&refunds, 0)));
    assert!(!bell.failed(&failed(&refunds, 1)) && !bell.failed(&failed(&refunds, 59)));
    assert!(bell.failed(&failed(&payouts, 2)), "each rule has its own");
    assert!(bell.failed(&failed(&refunds, 60)));
    quiet(&alarm);
    let told = lines(&file);
    let facts: Vec<_> = told
        .iter()
        .map(|line| {
            (line["farcall"]["rule"].as_str().unwrap(), line["farcall"]["held_back"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(facts, [("refunds", 0), ("payouts", 0), ("refunds", 2)]);
    let text = told[0]["text"].as_str().unwrap();
    assert!(
        text.contains("critical `refunds`: a call of shop, POST /v1/refunds of stripe, answered 503"),
        "{text}"
    );
    assert_eq!(counted(&alarm), [3, 0, 0, 0]);
}

#[test]
fn processes_of_one_host_that_see_the_same_failure_tell_it_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("alarms.log");
    let rule: Arc<str> = "refunds".into();
    let tell = |service: &str, seconds: u64| {
        let alarm = Alarm::new(&config(&file), service, 1, Some(home.path()));
        let bell = Bell(Arc::clone(&alarm));
        assert!(bell.failed(&failed(&rule, seconds)), "each process leaves it to its thread");
        quiet(&alarm);
        (alarm, bell)
    };
    let first = tell("shop", 0);
    let second = tell("shop", 40);
    tell("billing", 41);
    assert!(second.1.failed(&failed(&rule, 60)), "its turn is by the alarm that the host saw last");
    quiet(&second.0);
    assert!(first.1.failed(&failed(&rule, 61)));
    quiet(&first.0);
    let told: Vec<_> = lines(&file)
        .iter()
        .map(|line| {
            let fields = &line["farcall"];
            (fields["service"].as_str().unwrap().to_owned(), fields["held_back"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(told, [("shop".to_owned(), 0), ("billing".to_owned(), 0), ("shop".to_owned(), 1)]);
}

#[test]
fn a_process_that_died_before_it_told_silences_the_others_for_no_longer_than_telling_takes() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("alarms.log");
    let rule: Arc<str> = "refunds".into();
    let config = config(&file);
    let millis = |seconds| at(seconds).as_nanos() / 1_000_000;
    // As the thread of a process does that is killed before the webhook has it.
    let lease = Ways::of(&config).longest();
    let turn = turn::turn(&home.path().join(FILE), "shop/refunds", (config.alarm.every, lease), 0, millis(0));
    assert_eq!(turn, Turn::Tell { held_back: 0 });
    let alarm = Alarm::new(&config, "shop", 2, Some(home.path()));
    let bell = Bell(Arc::clone(&alarm));
    assert!(bell.failed(&failed(&rule, 1)));
    quiet(&alarm);
    assert!(lines(&file).is_empty(), "the other may be telling yet");
    let over = lease.as_secs() + 1;
    assert!(over < config.alarm.every.as_secs());
    assert!(bell.failed(&failed(&rule, over)));
    quiet(&alarm);
    let held_back = |line: &serde_json::Value| line["farcall"]["held_back"].as_u64().unwrap();
    assert_eq!(lines(&file).iter().map(held_back).collect::<Vec<_>>(), [2]);
    assert!(!bell.failed(&failed(&rule, over + config.alarm.every.as_secs() - 1)), "this one was told");
    assert!(bell.failed(&failed(&rule, over + config.alarm.every.as_secs())));
    quiet(&alarm);
    assert_eq!(lines(&file).iter().map(held_back).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_missing_copy_is_told_as_any_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alarms.log");
    let alarm = Alarm::new(&config(&file), "shop", 1, None);
    for _ in 0..3 {
        alarm.missing_copy(&MissingCopy {
            vendor: "stripe",
            endpoint: "POST /v1/refunds",
            customer: Some("acme"),
            has: 1,
            needed: 2,
            why: "no such volume",
        });
    }
    quiet(&alarm);
    let told = lines(&file);
    assert_eq!(told.len(), 1);
    let fields = &told[0]["farcall"];
    assert_eq!((fields["alarm"].as_str(), fields["vendor"].as_str()), (Some("copies"), Some("stripe")));
    assert_eq!(
        told[0]["text"].as_str().unwrap(),
        "farcall: the outbox of shop took a call to stripe for acme, but it is in 1 copy instead of 2: no such volume"
    );
}

#[test]
fn an_alarm_that_goes_nowhere_is_counted_and_the_next_failure_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let alarm = Alarm::new(&config(&folder.path().join("missing").join("alarms.log")), "shop", 1, None);
    let bell = Bell(Arc::clone(&alarm));
    let rule: Arc<str> = "refunds".into();
    for second in 0..2 {
        assert!(bell.failed(&failed(&rule, second)));
        quiet(&alarm);
    }
    assert_eq!(counted(&alarm), [0, 2, 0, 2], "told, untold, lost, ways that failed");
    let file = folder.path().join("alarms.log");
    alarm.reload(&config(&file));
    assert!(bell.failed(&failed(&rule, 3)));
    quiet(&alarm);
    assert_eq!(lines(&file).len(), 1, "a reload takes effect");
}

#[test]
fn a_webhook_that_hangs_holds_up_no_call_and_a_full_queue_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = nothing();
    // Nobody accepts: the connection stands, and no answer comes.
    config.alarm.webhook = Some(format!("http://{}/", listener.local_addr().unwrap()));
    config.alarm.timeout = Duration::from_secs(3_600);
    let alarm = Alarm::new(&config, "shop", 1, None);
    let bell = Bell(Arc::clone(&alarm));
    let told = (0..2 * MAX_WAITING as u64).filter(|number| {
        let rule: Arc<str> = format!("rule {number}").into();
        bell.failed(&failed(&rule, 0))
    });
    let told = told.count();
    assert!((MAX_WAITING..=MAX_WAITING + 1).contains(&told), "{told}");
    assert_eq!(counted(&alarm)[2], (2 * MAX_WAITING - told) as u64);
}

#[test]
fn a_collector_that_hangs_delays_no_webhook_and_its_own_alarms_are_bounded() {
    let (hung, webhook) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut config = Config::default();
    config.alarm.every = Duration::ZERO;
    config.alarm.timeout = PATIENCE;
    config.alarm.webhook = Some(format!("http://{}/", webhook.local_addr().unwrap()));
    // Nobody accepts there.
    config.otlp.endpoint = Some(format!("http://{}", hung.local_addr().unwrap()));
    config.otlp.timeout = Some(Duration::from_secs(3_600));
    let alarm = Alarm::new(&config, "shop", 1, None);
    let (sender, got) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in webhook.incoming() {
            let (mut connection, mut part) = (connection.unwrap(), [0; 4_096]);
            let mut request = Vec::new();
            while !request.ends_with(b"}}") {
                let read = connection.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            connection.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    let (bell, refunds): (_, Arc<str>) = (Bell(Arc::clone(&alarm)), "refunds".into());
    let many = MAX_WAITING as u64 + 10;
    for second in 0..many {
        assert!(bell.failed(&failed(&refunds, second)));
        got.recv_timeout(PATIENCE).unwrap();
    }
    let until = std::time::Instant::now() + PATIENCE;
    // One of the collector's is on its way, or waits as the others do.
    let over = many - MAX_WAITING as u64;
    loop {
        let [told, untold, lost, ways] = counted(&alarm);
        if [told, untold, lost] == [many, 0, 0] && (over - 1..=over).contains(&ways) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{:?}", counted(&alarm));
        std::thread::yield_now();
    }
}

#[test]
fn a_webhook_gets_json_and_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = nothing();
    config.alarm.webhook = Some(format!("http://{}/hook/secret", listener.local_addr().unwrap()));
    config.alarm.timeout = PATIENCE;
    let (sender, got) = mpsc::channel();
    std::thread::spawn(move || {
        for status in ["503 Oh", "204 No Content"] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4_096];
            while !request.ends_with(b"}}") {
                let read = connection.read(&mut part).unwrap();
                assert!(read > 0);
                request.extend_from_slice(&part[..read]);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).unwrap();
            sender.send(String::from_utf8(request).unwrap()).unwrap();
        }
    });
    let told = test(&config, "shop");
    assert_eq!(told, [Told { way: "webhook", failure: None }]);
    let requests: Vec<_> = got.iter().collect();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].starts_with("POST /hook/secret HTTP/1.1\r\n"), "{}", requests[1]);
    assert!(requests[1].contains("content-type: application/json"));
    assert!(requests[1].contains(r#""alarm":"test""#), "{}", requests[1]);
}

#[test]
fn a_customers_name_forges_no_line_and_stops_no_way() {
    let folder = tempfile::tempdir().unwrap();
    let (file, heard) = (folder.path().join("alarms.log"), folder.path().join("heard"));
    let mut config = config(&file);
    config.alarm.timeout = PATIENCE;
    let script = format!("printf %s \"$FARCALL_ALARM_RULE|$FARCALL_ALARM_TEXT\" > '{}'", heard.display());
    config.alarm.command = vec!["/bin/sh".into(), "-c".into(), script];
    let (rule, customer): (Arc<str>, _) = ("re\0funds".into(), "acme\0\x1b[2J\nfarcall: all is well");
    let mut failed = failed(&rule, 0);
    failed.customer = Some(customer);
    let told = way::tell(&Ways::of(&config), &Message::of(&failed, "shop", 1));
    assert!(told.len() == 2 && told.iter().all(|told| told.failure.is_none()), "{told:?}");
    let heard = std::fs::read_to_string(&heard).unwrap();
    assert!(
        heard.starts_with("re\u{FFFD}funds|") && heard.contains("for acme\u{FFFD}\u{FFFD}[2J\u{FFFD}farcall")
    );
    assert!(!heard.contains(char::is_control), "{heard:?}");
    let [line] = lines(&file).try_into().unwrap();
    assert_eq!(line["farcall"]["customer"].as_str(), Some(customer), "programs get what it was");
    assert!(!line["text"].as_str().unwrap().contains(char::is_control));
}

#[test]
fn a_command_gets_the_alarm_and_is_ended_when_its_time_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("got");
    let mut config = nothing();
    config.alarm.timeout = PATIENCE;
    let script = format!(
        "cat > '{0}.part' && echo \"$FARCALL_ALARM_RULE\" >> '{0}.part' && mv '{0}.part' '{0}'",
        file.display()
    );
    config.alarm.command = vec!["/bin/sh".into(), "-c".into(), script];
    assert_eq!(test(&config, "shop"), [Told { way: "command", failure: None }]);
    let got = std::fs::read_to_string(&file).unwrap();
    let [json, rule] = got.lines().collect::<Vec<_>>().try_into().unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((json["farcall"]["service"].as_str(), rule), (Some("shop"), "test"));

    config.alarm.command = vec!["/bin/sh".into(), "-c".into(), "exit 3".into()];
    assert!(test(&config, "shop")[0].failure.as_ref().unwrap().contains("exit status: 3"));
    config.alarm.command = vec!["/nowhere/to/be/found".into()];
    assert!(test(&config, "shop")[0].failure.is_some());
    config.alarm.timeout = Duration::from_millis(50);
    config.alarm.command = vec!["/bin/sleep".into(), "3600".into()];
    assert!(test(&config, "shop")[0].failure.as_ref().unwrap().contains("did not end in time"));
}

#[test]
fn a_webhook_can_stand_in_the_environment_and_its_address_is_not_told() {
    let mut config = nothing();
    config.alarm.timeout = Duration::from_millis(300);
    config.alarm.webhook = Some("$FARCALL_TEST_NO_SUCH_VARIABLE".into());
    assert!(test(&config, "shop")[0].failure.as_ref().unwrap().contains("is not set"));
    config.alarm.webhook = Some("http://alarm.invalid/secret".into());
    let why = test(&config, "shop").remove(0).failure.unwrap();
    assert!(why.starts_with("alarm.invalid: ") && !why.contains("secret"), "{why}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config.alarm.timeout = PATIENCE;
    config.alarm.webhook = Some(format!("http://127.0.0.1:{port}/secret"));
    let why = test(&config, "shop").remove(0).failure.unwrap();
    assert!(why.contains("refused") && !why.contains("secret"), "{why}");
}
