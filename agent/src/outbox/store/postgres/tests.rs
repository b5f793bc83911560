//! What becomes of a call that waits for the server while somebody sets this host's clock.

use super::super::super::clock::Ahead;
use super::super::super::pending::pair;
use super::super::super::seal::{self, Keys};
use super::super::super::table::{New, State};
use super::super::super::{fixture, nanos, wall};
use super::super::contract::server::Server;
use super::super::copy::CopyStore;
use super::calls::{self, NOW};
use super::clock::ServerClock;
use super::job::Put;
use super::schema::Tables;
use super::{PostgresCopy, copy, server};
use sqlx::{PgConnection, Row};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A call that was put a moment ago by this clock, and may grow two hours old.
fn put_by(clock: Ahead, keys: &Keys) -> Put {
    let now = clock.now();
    let new = New {
        clock,
        put_at: now,
        next_at: now + nanos(HOUR),
        expires_at: now + nanos(2 * HOUR),
        ..fixture::sealed(keys, "k")
    };
    Put { new: Arc::new(new), id: None, owner: Some("store".into()), reply: pair().0 }
}

/// How far its moments are from this one.
async fn moments(db: &mut PgConnection, table: &str, id: i64) -> [i64; 3] {
    let sql = format!(
        "SELECT put_at - now, next_at - now, expires_at - now FROM {table}, (SELECT {NOW} AS now) AS clock
        WHERE id = $1"
    );
    let row = sqlx::query(&sql).bind(id).fetch_one(db).await.unwrap();
    [0, 1, 2].map(|column| row.try_get(column).unwrap())
}

/// Puts calls while the clock is set forward, back, and not at all.
fn put_while_the_clock_is_set(tables: Tables, table: &str) {
    let Some(postgres) = Server::shared() else { return };
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::of(home.path(), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, hour) = (postgres.database(), nanos(HOUR));
    runtime.block_on(async {
        let mut db = server(&url, PATIENCE, tables).unwrap().connect().await.unwrap();
        for by in [hour, -hour, 0] {
            // By the clock as it was when the call was put.
            let mut put = put_by(Ahead::wall().set_by(-by), &keys);
            match tables {
                Tables::Store => calls::add(&mut db, &mut [&mut put]).await.unwrap(),
                Tables::Copy => copy::add(&mut db, &ServerClock::default(), &mut [&mut put]).await.unwrap(),
            }
            let found = moments(&mut db, table, put.id.unwrap()).await;
            let near = |(at, expected): (i64, i64)| (at - expected).abs() < hour / 4;
            assert!(found.into_iter().zip([0, hour, 2 * hour]).all(near), "{by}: {found:?}");
        }
    });
}

#[test]
fn a_call_that_waits_for_the_server_while_the_clock_is_set_keeps_its_waits_and_its_age() {
    put_while_the_clock_is_set(Tables::Store, "farcall_outbox.item");
}

#[test]
fn and_so_does_its_copy() {
    put_while_the_clock_is_set(Tables::Copy, "farcall_outbox_copy.item");
}

#[test]
fn what_is_in_a_copy_is_as_old_as_it_is_and_in_its_order_however_its_hosts_clock_was_set() {
    let Some(postgres) = Server::shared() else { return };
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::of(home.path(), None).unwrap();
    let (url, hour) = (postgres.database(), nanos(HOUR));
    let copy = PostgresCopy::new(&url, PATIENCE).unwrap();
    copy.belong("store", home.path()).wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let names = runtime.block_on(async {
        let mut db = server(&url, PATIENCE, Tables::Copy).unwrap().connect().await.unwrap();
        let (clock, mut names) = (ServerClock::default(), Vec::new());
        // Each is by the clock as it was then: set forward, back, and right.
        for by in [5 * hour, -5 * hour, 0] {
            let mut put = put_by(Ahead::wall().set_by(by), &keys);
            copy::add(&mut db, &clock, &mut [&mut put]).await.unwrap();
            names.push(seal::name_of(&put.new.request).to_vec());
        }
        names
    });
    let ids = copy.in_order("store", State::Pending).wait().unwrap();
    let found = copy.these(&ids).wait().unwrap();
    assert!(found.iter().map(|(_, new)| seal::name_of(&new.request)).eq(&names), "{ids:?}");
    for (_, new) in found {
        let moments = [new.put_at, new.next_at, new.expires_at].map(|moment| moment - new.clock.now());
        let near = |(at, expected): (i64, i64)| (at - expected).abs() < hour / 4;
        assert!(moments.into_iter().zip([0, hour, 2 * hour]).all(near), "{moments:?}");
    }
    let copied = copy.copied(0, 9).wait().unwrap();
    assert!(copied.len() == 3 && copied.iter().all(|call| (call.put_at - wall()).abs() < hour / 4));
}
