//! Group commit: what is bounded, who gets which answer, when it stops.

use super::super::fixture;
use super::*;

#[test]
fn the_log_stays_short_although_the_thread_ends_after_each_write() {
    let home = tempfile::tempdir().unwrap();
    let writer = Writer::new(Place::new(home.path()), Arc::default());
    const SIZE: usize = 512 * 1024;
    for _ in 0..8 * CHECKPOINT / SIZE {
        let write = |db: &Transaction<'_>| {
            let sql =
                "INSERT INTO lease VALUES ('q', 1, ?1, '', 0) ON CONFLICT (queue) DO UPDATE SET holder = ?1";
            db.execute(sql, ["x".repeat(SIZE)])
        };
        writer.submit(SIZE, write).wait().unwrap();
        writer.pause();
    }
    let log = std::fs::metadata(home.path().join("outbox.db-wal")).unwrap().len();
    assert!(log < 2 * CHECKPOINT as u64, "{log} bytes");
}

/// Adds a row to the table of leases.
fn add(queue: Option<String>) -> impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize> + Send {
    move |db| db.execute("INSERT INTO lease VALUES (?1, 1, '', '', 0)", [queue])
}

fn call(host: &str) -> Arc<New> {
    Arc::new(new(host))
}

fn new(host: &str) -> New {
    New { host: host.into(), ..fixture::call("k") }
}

#[test]
fn what_is_put_while_the_disk_is_slow_fills_no_memory() {
    const LARGE: usize = 1024 * 1024;
    let home = tempfile::tempdir().unwrap();
    let writer = Writer::new(Place::new(home.path()), Arc::default());
    let (started, starts) = std::sync::mpsc::channel();
    let blocking = |writer: &Writer| {
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let started = started.clone();
        let pending = writer.submit(0, move |_| {
            started.send(()).unwrap();
            goes.recv().unwrap();
            Ok(())
        });
        (go, pending)
    };
    let (go, first) = blocking(&writer);
    starts.recv().unwrap();
    let large = |_| writer.put(Arc::new(New { request: vec![1; LARGE], ..new("taken") }), false);
    let mut puts: Vec<_> = (0..MAX_WAITING / LARGE).map(large).collect();
    let (go_on, last) = blocking(&writer);
    go.send(()).unwrap();
    starts.recv().unwrap();
    // The transaction under way has not all of what waited: a part was written, and let go.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut is_written = |put: &mut Pending<Receipt>| std::pin::Pin::new(put).poll(&mut cx).is_ready();
    let left = puts.iter_mut().map(&mut is_written).filter(|written| !written).count();
    assert!(left * LARGE <= MAX_BATCH, "{left} MiB are held");
    go_on.send(()).unwrap();
    assert_eq!((first.wait(), last.wait()), (Ok(()), Ok(())));
}

#[test]
fn what_one_process_could_not_sync_stops_the_others_which_have_the_file_open() {
    let home = tempfile::tempdir().unwrap();
    let [first, second] = [(); 2].map(|()| Writer::new(Place::new(home.path()), Arc::default()));
    assert!(first.put(call("taken"), false).wait().is_ok());
    assert!(second.put(call("taken"), false).wait().is_ok());
    // As the other one does whose sync failed.
    Place::new(home.path()).stop("outbox.db: disk I/O error");
    for _ in 0..2 {
        assert!(matches!(second.put(call("taken"), false).wait(), Err(OutboxError::Stopped(_))));
    }
}

#[test]
fn of_those_who_share_a_commit_only_the_one_that_fails_gets_an_error() {
    let home = tempfile::tempdir().unwrap();
    let writer = Writer::new(Place::new(home.path()), Arc::default());
    let (started, starts) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let first = writer.submit(0, move |db| {
        started.send(()).unwrap();
        goes.recv().unwrap();
        db.execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON item WHEN new.host = 'refused'
                BEGIN SELECT raise(ABORT, 'no'); END",
        )?;
        add(Some("first".into()))(db)
    });
    starts.recv().unwrap();
    // From here on all wait for the first one, and share its transaction.
    let tasks: Vec<_> = (0..40)
        .map(|number| match number % 2 {
            0 => writer.submit(0, move |db| {
                add(Some(format!("half {number}")))(db)?;
                add(Some("first".into()))(db)
            }),
            _ => writer.submit(0, move |db| add(Some(number.to_string()))(db)),
        })
        .collect();
    let host = |number: usize| if number % 20 == 13 { "refused" } else { "taken" };
    let puts: Vec<_> = (0..100).map(|number| writer.put(call(host(number)), number % 2 == 0)).collect();
    go.send(()).unwrap();
    assert_eq!(first.wait(), Ok(1));
    for (number, task) in tasks.into_iter().enumerate() {
        match number % 2 {
            0 => assert!(matches!(task.wait(), Err(OutboxError::Unavailable { .. })), "{number}"),
            _ => assert_eq!(task.wait(), Ok(1), "{number}"),
        }
    }
    let ids: Vec<_> = puts.into_iter().map(|put| put.wait().map(|receipt| receipt.id)).collect();
    assert_eq!(ids.iter().filter(|id| id.is_ok()).count(), 95);
    assert!(ids.iter().flatten().is_sorted_by(|id, next| id < next), "{ids:?}");
    let there = writer.submit(0, |db| {
        let leases = db.query_row("SELECT count(*), sum(queue LIKE 'half%') FROM lease", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        let mut items = db.prepare("SELECT id FROM item WHERE host = 'taken' ORDER BY id")?;
        let items: Vec<i64> = items.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok((leases, items))
    });
    let taken = ids.into_iter().flatten().collect();
    assert_eq!(there.wait(), Ok(((21, 0), taken)), "nothing is left of what was half done");
}
