//! PostgreSQL: one thread drives the sockets of all connections of a store; whoever asks waits for
//! it on a channel, so that asking is the same from a thread of its own and from inside a runtime.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Statement};

use super::tls::Tls;
use super::{DbError, Row, Table, Value};

/// How long a server may take to let us in.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long a statement may take before the server counts as gone. A report over months takes
/// seconds; only a server or a network that hangs takes longer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Statements that a connection keeps prepared: all that the program has, and some to spare. Those of
/// reports hold numbers, so that there is no end of them.
const STATEMENTS_KEPT: usize = 64;

/// A server that connections can be made to.
pub(in crate::store) struct Server {
    config: Config,
    tls: Tls,
    name: String,
    runtime: Handle,
    /// Ends the thread when the last connection and the store are gone.
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Knows where a server is; does not connect yet.
    pub(in crate::store) fn new(mut config: Config, tls: Tls, name: String) -> Result<Self, std::io::Error> {
        config.connect_timeout(CONNECT_WAIT);
        config.keepalives_idle(Duration::from_secs(10));
        config.application_name("beast");
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("store".into()).spawn(move || {
            // Its sender is never used: it ends by being dropped.
            let _dropped = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { config, tls, name, runtime: handle, _stop: stop })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Server {
    /// Without the configuration: it holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.name)
    }
}

/// One connection.
pub(in crate::store) struct Session {
    client: Arc<Client>,
    server: Arc<Server>,
    statements: HashMap<String, Statement>,
    /// An answer did not come, so the next one might be that of another question.
    silent: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.server.name)
    }
}

/// Runs `work` on the thread of the server and waits for what comes of it.
fn wait<T: Send + 'static>(
    runtime: &Handle,
    limit: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static,
) -> Result<T, DbError> {
    let (done, result) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Whoever asked may have given up.
        let _gone = done.send(work.await);
    });
    match result.recv_timeout(limit) {
        Ok(result) => Ok(result?),
        Err(RecvTimeoutError::Timeout) => {
            task.abort();
            Err(DbError::Silent)
        }
        Err(RecvTimeoutError::Disconnected) => Err(DbError::Ended),
    }
}

impl Session {
    pub(super) fn connect(server: &Arc<Server>) -> Result<Self, DbError> {
        let (config, tls) = (server.config.clone(), server.tls.clone());
        let limit = CONNECT_WAIT.saturating_mul(2);
        let client = wait(&server.runtime, limit, async move {
            let (client, connection) = config.connect(tls).await?;
            // What ends the connection is told to whoever uses it next.
            tokio::spawn(async move { connection.await.ok() });
            Ok(client)
        })?;
        let (server, statements) = (Arc::clone(server), HashMap::new());
        Ok(Self { client: Arc::new(client), server, statements, silent: false })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.silent || self.client.is_closed()
    }

    fn wait<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static,
    ) -> Result<T, DbError> {
        if self.silent {
            return Err(DbError::Ended);
        }
        let result = wait(&self.server.runtime, ANSWER_WAIT, work);
        self.silent = matches!(result, Err(DbError::Silent | DbError::Ended));
        result
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, DbError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let (client, text) = (Arc::clone(&self.client), sql.replace('?', "$"));
        let statement = self.wait(async move { client.prepare(&text).await })?;
        if self.statements.len() >= STATEMENTS_KEPT {
            // What is not kept here is closed at the server.
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
        let (client, statement, params) = (Arc::clone(&self.client), self.statement(sql)?, params.to_vec());
        let rows = self.wait(async move { client.query(&statement, &refs(&params)).await })?;
        rows.iter().map(row).collect()
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, DbError> {
        let (client, statement, params) = (Arc::clone(&self.client), self.statement(sql)?, params.to_vec());
        self.wait(async move { client.execute(&statement, &refs(&params)).await })
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        let (client, sql) = (Arc::clone(&self.client), sql.to_owned());
        self.wait(async move { client.batch_execute(&sql).await })
    }

    /// One statement for all rows: a column is an array.
    pub(super) fn add_rows(&mut self, table: &Table, rows: &[i64]) -> Result<(), DbError> {
        let width = table.width();
        let arrays: Vec<String> = (1..=width).map(|n| format!("?{n}::bigint[]")).collect();
        let sql = table.add_sql(&format!("SELECT * FROM unnest({})", arrays.join(", ")));
        let mut columns = vec![Vec::with_capacity(rows.len() / width); width];
        for row in rows.chunks_exact(width) {
            for (column, number) in columns.iter_mut().zip(row) {
                column.push(*number);
            }
        }
        let (client, statement) = (Arc::clone(&self.client), self.statement(&sql)?);
        self.wait(async move { client.execute(&statement, &refs(&columns)).await }).map(drop)
    }

    /// Binary COPY: `rows` is all of it in its format.
    pub(in crate::store) fn copy(&mut self, sql: String, rows: Vec<u8>) -> Result<(), DbError> {
        let client = Arc::clone(&self.client);
        self.wait(async move {
            let sink = client.copy_in::<_, Bytes>(&sql).await?;
            let mut sink = std::pin::pin!(sink);
            sink.send(Bytes::from(rows)).await?;
            sink.finish().await
        })
        .map(drop)
    }
}

fn refs<T: ToSql + Sync>(params: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|param| param as _).collect()
}

fn row(row: &tokio_postgres::Row) -> Result<Row, DbError> {
    let column = |(index, column): (usize, &tokio_postgres::Column)| {
        Ok(match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(index)?.into(),
            Type::INT4 => row.try_get::<_, Option<i32>>(index)?.map(i64::from).into(),
            Type::BOOL => row.try_get::<_, Option<bool>>(index)?.into(),
            Type::TEXT | Type::VARCHAR | Type::NAME => row.try_get::<_, Option<String>>(index)?.into(),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.into(),
            ref other => {
                return Err(DbError::Content(format!("column {} is of type {other}", column.name())));
            }
        })
    };
    Ok(Row(row.columns().iter().enumerate().map(column).collect::<Result<_, DbError>>()?))
}
