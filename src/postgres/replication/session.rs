//! A replication session: statements, then the log as a stream.
//!
//! Promises: a session whose server refuses a statement can be used on. Must not: know how it was opened.
//! Fails: with cause and remedy, by the same table of SQLSTATEs as any session.

use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::error::Result;
use crate::postgres::replication::authentication::unexpected;
use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::stream::LogStream;
use crate::postgres::replication::wire::Wire;
use crate::postgres::{Open, without_head};

/// `CopyBothResponse`, which the message library does not know.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// A row's values in text form.
pub(super) type TextRow = Vec<Option<String>>;

/// A replication session.
#[derive(Debug)]
pub struct Walsender {
    pub(super) wire: Wire,
    _open: Open,
}

impl Walsender {
    /// Over a wire that is ready for statements.
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, _open: Open::count() }
    }

    /// Runs statements of SQL, or one of replication, whose words the server knows in capital letters
    /// only: the rows of the last one that has any, as text.
    ///
    /// # Errors
    /// The server's; the session can be used on, if the error is not that it has ended.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.ask(sql).await.map_err(|fault| fault.during("run a statement for replication"))
    }

    /// Asks for the rows of one statement, which [`Walsender::next_row`] then brings one by one: the server
    /// sends no faster than they are taken.
    ///
    /// # Errors
    /// When the text holds a zero byte.
    pub fn ask_rows(&mut self, sql: &str) -> Result<()> {
        let asked = self.wire.put(|out| frontend::query(without_head(sql), out));
        asked.map_err(|fault| fault.during("ask for rows"))
    }

    /// The next of the rows that were asked for; none behind the last. May be given up while it waits, and called
    /// again.
    ///
    /// # Errors
    /// The server's; the session is no longer usable then.
    pub async fn next_row(&mut self) -> Result<Option<Vec<Option<String>>>> {
        self.row().await.map_err(|fault| fault.during("read rows"))
    }

    async fn row(&mut self) -> std::result::Result<Option<TextRow>, Fault> {
        loop {
            match self.wire.packet().await?.parse()? {
                Message::DataRow(row) => return text_row(&row).map(Some),
                Message::ErrorResponse(body) => return Err(Fault::from_fields(body.fields())),
                Message::ReadyForQuery(_) => return Ok(None),
                Message::RowDescription(_)
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::NoticeResponse(_)
                | Message::NotificationResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected()),
            }
        }
    }

    pub(super) async fn ask(&mut self, sql: &str) -> std::result::Result<Vec<TextRow>, Fault> {
        // Old servers take a comment before SQL for a replication command.
        self.wire.put(|out| frontend::query(without_head(sql), out))?;
        let mut rows = Vec::new();
        let mut fault = None;
        loop {
            match self.wire.packet().await?.parse()? {
                Message::RowDescription(_) => rows.clear(),
                Message::DataRow(row) => rows.push(text_row(&row)?),
                Message::ErrorResponse(body) => fault = Some(Fault::from_fields(body.fields())),
                Message::ReadyForQuery(_) => return fault.map_or(Ok(rows), Err),
                Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::NoticeResponse(_)
                | Message::NotificationResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(fault.unwrap_or_else(unexpected)),
            }
        }
    }

    /// Becomes the stream that `START_REPLICATION …` begins.
    ///
    /// # Errors
    /// When the server refuses: the slot is in use or gone, an option is not known.
    pub async fn stream(mut self, sql: &str) -> Result<LogStream> {
        let started = self.start(sql).await;
        started.map_err(|fault| fault.during("start the stream of the log"))?;
        Ok(LogStream::new(self.wire))
    }

    async fn start(&mut self, sql: &str) -> std::result::Result<(), Fault> {
        self.wire.put(|out| frontend::query(without_head(sql), out))?;
        loop {
            let packet = self.wire.packet().await?;
            if packet.kind() == COPY_BOTH_RESPONSE {
                return Ok(());
            }
            match packet.parse()? {
                Message::ErrorResponse(body) => return Err(Fault::from_fields(body.fields())),
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected()),
            }
        }
    }
}

fn text_row(row: &DataRowBody) -> std::result::Result<TextRow, Fault> {
    let broken = |cause: &dyn std::fmt::Display| Fault::Protocol(format!("a row: {cause}"));
    let ranges: Vec<_> = row.ranges().collect().map_err(|cause| broken(&cause))?;
    let text = |range: Option<std::ops::Range<usize>>| {
        let Some(range) = range else { return Ok(None) };
        let bytes = row.buffer().get(range).ok_or_else(|| broken(&"it ends too early"))?;
        let text = str::from_utf8(bytes).map_err(|cause| broken(&cause))?;
        Ok(Some(text.to_owned()))
    };
    ranges.into_iter().map(text).collect()
}

/// Whether a setting is on.
pub(super) fn is_on(value: &Option<String>) -> bool {
    value.as_deref() == Some("on")
}
