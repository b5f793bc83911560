//! A question over a connection of its own: one that may take long, and for which nobody else is to wait.

use super::super::super::OutboxError;
use super::thread::{Server, explain};
use sqlx::{Connection, PgConnection};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the server may take for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it is to be given up.
const LOOK: Duration = Duration::from_millis(10);
/// How long the end of the connection may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// The answer; `None` where `stop` said so first.
pub(super) fn ask<T>(
    server: &Server,
    stop: &AtomicBool,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<Option<T>, OutboxError> {
    let wrong = |error: std::io::Error| OutboxError::unavailable(server.name.as_ref(), error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrong)?;
    let asked = async {
        let failed = |error: sqlx::Error| server.unreachable(&explain(&error));
        let late = |_| server.unreachable("it did not answer in time");
        let mut db = timeout(server.timeout, server.connect()).await.map_err(late)??;
        let sql = format!("SET statement_timeout = {}", PATIENCE.as_millis());
        sqlx::raw_sql(&sql).execute(&mut db).await.map_err(failed)?;
        let answer = timeout(PATIENCE, work(&mut db)).await.map_err(late)?.map_err(failed);
        let _ = timeout(FAREWELL, db.close()).await;
        answer.map(Some)
    };
    let stopped = async {
        while !stop.load(Ordering::Acquire) {
            sleep(LOOK).await;
        }
    };
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = asked => answer,
            () = stopped => Ok(None),
        }
    });
    runtime.shutdown_background();
    answer
}
