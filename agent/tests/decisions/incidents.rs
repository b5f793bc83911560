//! What is explained of an incident.

use super::*;

#[test]
fn an_incident_is_explained_by_the_shares_of_its_window() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let id = counted(home.path(), &query);
    let incidents = report::incidents(&query).unwrap();
    assert_eq!((incidents.rows[0].id, incidents.rows[0].customers[0].share), (id, 0.91));
    let text = incidents.render(&Style::default());
    assert!(
        text.contains("429: too fast") && text.contains("acme 91%") && text.contains("500 requests"),
        "{text}"
    );

    let explained = report::explain_incident(&query, id).unwrap();
    assert_eq!(explained.shares_from, "window");
    assert_eq!(
        explained.sentences[1],
        "Customer acme used 91% of the 500 requests in this minute, mostly GET /v1/search from worker-7; customer \
         globex 9%; 4 more calls were refused here before they went out."
    );
    assert!(explained.sentences.last().unwrap().starts_with("What would help: "));
    assert!(explained.sentences.last().unwrap().contains("fair = \"customer\""));

    let ask = |filter: &str| {
        let filter: Filter = filter.parse().unwrap();
        report::incidents(&query.clone().filter(filter)).map(|found| found.rows.len())
    };
    assert_eq!(ask("vendor=stripe").unwrap() + ask("vendor.tag=payments").unwrap(), 2);
    assert_eq!(ask("customer=acme").unwrap() + ask("customer=globex").unwrap(), 1);
    assert_eq!((ask("caller=worker-*").unwrap(), ask("endpoint=POST *").unwrap()), (1, 0));
    let why = ask("status=429").unwrap_err().to_string();
    assert!(
        why.contains("incidents have none; they can be filtered by vendor, vendor.tag, endpoint,"),
        "{why}"
    );
    assert!(matches!(report::explain_incident(&query, id + 1), Err(ReportError::NotFound(_))));
}

#[test]
fn the_first_incident_takes_its_shares_from_the_minutes_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let mut query = Query::at(home.path());
    // Long after: the window is over.
    query.now = query.now.plus_millis(600_000);
    let minute: i64 =
        ledger(home.path()).query_row("SELECT min(minute) FROM rollups", [], |row| row.get(0)).unwrap();
    let at = u64::try_from(minute).unwrap() * 60_000_000_000 + 1_000_000_000;
    let json = format!(
        r#"{{"vendor":"stripe","policy":"default","kind":"rate","at":{at},"count":1,"began":{at},"ends":{},
        "unit":"requests","limit":100,"own":0,"later":"words that this version does not know"}}"#,
        at + 119_000_000_000
    );
    let first = incident(home.path(), "2", Timestamp::from_nanos(at), "stripe", &json);
    let explained = report::explain_incident(&query, first).unwrap();
    assert_eq!(explained.shares_from, "minutes");
    assert_eq!(explained.incident.own, Some(100));
    let (customers, endpoints) = (&explained.incident.customers, &explained.incident.endpoints);
    assert_eq!((customers[0].name.as_str(), customers[0].units), ("acme", 75));
    assert_eq!((endpoints[0].name.as_str(), endpoints[0].units), ("GET /v1/balance", 100));
    assert!(
        explained.sentences[1].starts_with("Customer acme used 75% of the 100 requests in these 2 minutes, mostly GET /v1/balance from checkout; customer globex 25%"),
        "{:?}",
        explained.sentences
    );
    assert!(
        explained.sentences[2].starts_with("These shares are by the minute: "),
        "{:?}",
        explained.sentences
    );
    assert!(explained.sentences[2].contains("all calls to stripe in the ledger from "));

    // Where the ledger has nothing either, nothing is made up.
    let json = format!(r#"{{"vendor":"notion","kind":"rate","at":{at},"count":1,"unit":"requests"}}"#);
    let unseen = incident(home.path(), "3", Timestamp::from_nanos(at), "notion", &json);
    let explained = report::explain_incident(&query, unseen).unwrap();
    assert_eq!((explained.shares_from, explained.incident.customers.len()), ("none", 0));
    assert!(explained.sentences[1].starts_with("None of our requests were counted"));
}

#[test]
fn an_incident_that_cannot_be_read_is_counted_not_hidden() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let at = Timestamp::from_nanos(query.now.as_nanos() - 1_000_000_000);
    let bad = incident(home.path(), "4", at, "stripe", r#"{"vendor":7}"#);
    let incidents = report::incidents(&query).unwrap();
    assert_eq!(incidents.rows.len(), 0);
    assert!(incidents.notes[0].contains("1 incidents of the ledger cannot be read"), "{:?}", incidents.notes);
    assert!(matches!(report::explain_incident(&query, bad), Err(ReportError::Unreadable(_))));
}

#[test]
fn the_status_of_a_refusal_is_told_and_one_window_is_one_incident_however_the_vendor_means_them() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), RULES);
    let refuse = |url: &str, status: u16, headers: &[(&str, &str)], body: &str| {
        let head = Head::new("GET", url);
        let mut call = farcall.guard(farcall.begin(&head));
        assert!(matches!(call.step(), Step::Send(_)));
        call.answer(status, &headers);
        assert!(matches!(call.step(), Step::Settled));
        call.read(body.as_bytes());
        call.body(body.len() as u64);
        call.end();
        farcall.flush();
    };
    refuse(GITHUB, 403, &[("retry-after", "60")], "");
    let openai = "https://api.openai.com/v1/models";
    refuse(openai, 429, &[], "{\"error\": {\"code\": \"rate_limit_exceeded\"}}");
    refuse(openai, 429, &[], "{\"error\": {\"code\": \"insufficient_quota\"}}");
    farcall.shutdown();
    let query = Query::at(home.path());
    let incidents = report::incidents(&query).unwrap();
    let told = |vendor: &str| {
        let row = incidents.rows.iter().find(|row| row.vendor == vendor).unwrap();
        let answers = row.answers.iter().map(|answers| (answers.status, answers.kind, answers.count));
        (row.id, row.kind.as_str(), row.count, answers.collect::<Vec<_>>())
    };
    let (github, openai) = (told("github"), told("openai"));
    assert_eq!((github.1, github.2, github.3), ("rate", 1, vec![(403, "rate", 1)]));
    let both = vec![(429, "rate", 1), (429, "exhausted", 1)];
    assert_eq!((openai.1, openai.2, openai.3), ("exhausted", 2, both));
    assert_eq!(incidents.rows.len(), 2, "{:?}", incidents.rows);
    let text = incidents.render(&Style::new(200, false));
    assert!(text.contains("403: too fast") && text.contains("429: 1 too fast, 1 used up"), "{text}");
    let explained = report::explain_incident(&query, openai.0).unwrap();
    let said = "is used up, in one answer (429), and refused one call for coming too fast (429).";
    assert!(explained.sentences[0].ends_with(said), "{:?}", explained.sentences);
}

#[test]
fn quotas_that_a_rule_keeps_apart_by_customer_have_an_incident_each_in_the_same_window() {
    let home = tempfile::tempdir().unwrap();
    let rule = "[[quota]]\nname = \"each\"\nmatch = { vendor = \"stripe\", customer = \"*\" }\nlimit = \"1 request / 7d\"\n\
                max_wait = \"0s\"\n";
    for shared in ["", "shared = \"process\"\n"] {
        let farcall = start(home.path(), &format!("{rule}{shared}"));
        for customer in ["acme", "globex"] {
            assert!(call(&farcall, STRIPE, customer, 200) && !call(&farcall, STRIPE, customer, 200));
        }
        farcall.shutdown();
        let query = Query::at(home.path());
        let incidents = report::incidents(&query).unwrap();
        let mut told: Vec<_> =
            incidents.rows.iter().map(|row| (row.partition.as_str(), row.count, row.counted)).collect();
        told.sort_unstable();
        assert_eq!(told, [("customer=acme", 1, 1), ("customer=globex", 1, 1)], "{:?}", incidents.rows);
        let explained = report::explain_incident(&query, incidents.rows[0].id).unwrap();
        let whose = format!(": quota `each` ({}).", incidents.rows[0].partition);
        assert!(explained.sentences[0].contains(&whose), "{:?}", explained.sentences);
        std::fs::remove_dir_all(home.path()).unwrap();
        std::fs::create_dir(home.path()).unwrap();
    }
}

#[test]
fn an_incident_that_an_earlier_version_wrote_claims_no_status() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let at = query.now.as_nanos() - 5_000_000_000;
    let json = format!(r#"{{"vendor":"notion","kind":"rate","at":{at},"count":1,"unit":"requests"}}"#);
    incident(home.path(), "1", Timestamp::from_nanos(at), "notion", &json);
    let text = report::incidents(&query).unwrap().render(&Style::default());
    assert!(text.contains("vendor: too fast") && !text.contains("429"), "{text}");
}

#[test]
fn an_incident_of_points_says_points_and_null_where_our_count_is_of_something_else() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let at = query.now.as_nanos() - 5_000_000_000;
    let json = format!(
        r#"{{"vendor":"linear","policy":"complexity","kind":"rate","at":{at},"count":2,"began":{at},"ends":{},
        "unit":"points","counted_in":"requests","limit":250000,"own":5,"foreign":null,
        "customers":[{{"name":"acme","units":4,"at_least":4}},{{"name":"globex","units":1,"at_least":1}}]}}"#,
        at + 60_000_000_000
    );
    let id = incident(home.path(), "9", Timestamp::from_nanos(at), "linear", &json);
    let found = report::incidents(&query.clone().filter("vendor=linear".parse().unwrap())).unwrap();
    let row = &found.rows[0];
    assert_eq!((row.own, row.foreign, row.counted, &*row.counted_in), (None, None, 5, "requests"));
    assert_eq!((&*row.unit, row.customers[0].units, row.customers[0].share), ("points", 4, 0.8));
    let mut wide = Style::default();
    wide.width = 160;
    let text = found.render(&wide);
    assert!(text.contains("250,000 points") && text.contains("acme 80% of requests"), "{text}");
    let json = serde_json::to_value(report::explain_incident(&query, id).unwrap()).unwrap();
    assert!(json["incident"]["own"].is_null() && json["incident"]["foreign"].is_null(), "{json}");
}
