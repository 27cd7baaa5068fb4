//! The log as the server streams it, and what is confirmed of it.
//!
//! Promises: a long frame goes through the reader's [`MessageSieve`]; a frame's message is lent from the buffer that the socket was read into; giving up a wait
//! loses nothing; a confirmation never waits for the server. Must not: look into a message.
//! Fails: with the server's reason for ending the stream, or with the loss of the connection.
//!
//! Source: PostgreSQL documentation, "Streaming Replication Protocol", `START_REPLICATION`.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Lsn;
use crate::postgres::replication::authentication::unexpected;
use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::framing::{MessageSieve, Packet, Passed};
use crate::postgres::replication::wire::{STATUS_BYTES, Wire};
use crate::postgres::types::Timestamp;

const COPY_DATA: u8 = b'd';
const READY_FOR_QUERY: u8 = b'Z';
const XLOG_DATA: u8 = b'w';
const KEEP_ALIVE: u8 = b'k';
const STATUS: u8 = b'r';

/// After the letter: its own place, the log's end, the server's time.
const XLOG_DATA_HEAD_BYTES: usize = 8 + 8 + 8;
/// After the letter: the log's end, the server's time, whether an answer is wanted.
const KEEP_ALIVE_BYTES: usize = 8 + 8 + 1;

/// How long the server may take to end its stream: it finishes the transaction that it is sending.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Whether the server ends the connection if it is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWanted {
    /// It does: call [`LogStream::confirm`].
    Yes,
    /// It does not.
    No,
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of the output plug-in.
    Data {
        /// The place in the log that the message is about.
        start: Lsn,
        /// The message, lent from the buffer that it came in.
        message: Bytes,
    },
    /// The sieve is full, in the middle of a message.
    Paused,
    /// A sign of life.
    KeepAlive {
        /// How far the server has read the log for us.
        end: Lsn,
        /// Whether it asks for one from us.
        reply: ReplyWanted,
    },
}

/// The log, from where it was started. Dropped, it closes the socket; the slot is free when the
/// server notices, see [`LogStream::end`].
#[derive(Debug)]
pub struct LogStream {
    wire: Wire,
}

impl LogStream {
    pub(super) fn new(mut wire: Wire) -> Self {
        wire.gather();
        Self { wire }
    }

    /// The next frame. Over TCP it may be four or five milliseconds late: a socket that was emptied is
    /// left alone for so long, and many messages are read at once. May be given up and called again;
    /// sends what [`LogStream::confirm`] could not.
    ///
    /// # Errors
    /// What the server ended the stream for, by its SQLSTATE;
    /// [`ErrorKind::PostgresUnavailable`] when the connection is lost. The stream is over then.
    pub async fn next(&mut self, sieve: &mut impl MessageSieve) -> Result<Frame> {
        loop {
            let passed = self.wire.packet_through(sieve).await.map_err(reading)?;
            if let Some(frame) = frame(passed).map_err(reading)? {
                return Ok(frame);
            }
        }
    }

    /// A frame that has come already; never waits, never reads from the socket.
    ///
    /// # Errors
    /// As [`LogStream::next`].
    pub fn next_buffered(&mut self, sieve: &mut impl MessageSieve) -> Result<Option<Frame>> {
        while let Some(passed) = self.wire.buffered(sieve).map_err(reading)? {
            if let Some(frame) = frame(passed).map_err(reading)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Tells the server how far the log was received, and up to where it is not needed any more.
    /// Never waits: what the socket has no room for goes out with the next call or with
    /// [`LogStream::next`], the latest places only. To be called at least every half
    /// `wal_sender_timeout`, and when an answer is wanted.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresUnavailable`] when the connection is lost.
    pub async fn confirm(&mut self, received: Lsn, flushed: Lsn) -> Result<()> {
        let status = status(received.max(flushed), flushed, now());
        self.wire.put_latest(status).await.map_err(|fault| fault.during("confirm the log"))
    }

    /// Ends the stream, so that the slot is free when this returns, and everything that was confirmed
    /// is known to the server. What still comes is thrown away.
    ///
    /// # Errors
    /// When the server does not end it within 5 s, or the connection is lost.
    pub async fn end(mut self) -> Result<()> {
        let ended = tokio::time::timeout(END_PATIENCE, self.finish()).await;
        let operation = "end the stream of the log";
        match ended {
            Ok(finished) => finished.map_err(|fault| fault.during(operation)),
            Err(_) => {
                let cause = format!("cannot {operation}: no answer");
                Err(Error::new(ErrorKind::PostgresUnavailable, cause)
                    .with_remedy("check the server; the slot is free when it notices our leaving"))
            }
        }
    }

    async fn finish(&mut self) -> std::result::Result<(), Fault> {
        self.wire.put(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        loop {
            let Passed::Packet(packet) = self.wire.packet_through(&mut Nothing).await? else {
                continue;
            };
            match packet.kind() {
                READY_FOR_QUERY => break,
                COPY_DATA => {}
                _ => {
                    if let Message::ErrorResponse(body) = packet.parse()? {
                        return Err(Fault::from_fields(body.fields()));
                    }
                }
            }
        }
        self.wire.put(|out| {
            frontend::terminate(out);
            Ok(())
        })?;
        self.wire.flush().await
    }
}

/// Keeps nothing of a long message.
struct Nothing;

impl MessageSieve for Nothing {
    fn begin(&mut self, _: usize) {}
    fn pass(&mut self, bytes: &[u8], _: &mut BytesMut) -> usize {
        bytes.len()
    }
    fn end(&mut self, _: &mut BytesMut) {}
}

/// Keeps long messages whole.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl MessageSieve for Everything {
    fn begin(&mut self, _: usize) {}

    fn pass(&mut self, bytes: &[u8], kept: &mut BytesMut) -> usize {
        kept.extend_from_slice(bytes);
        bytes.len()
    }

    fn end(&mut self, _: &mut BytesMut) {}
}

fn reading(fault: Fault) -> Error {
    fault.during("read the log")
}

/// The frame in a message; none in what may come at any time.
fn frame(passed: Passed) -> std::result::Result<Option<Frame>, Fault> {
    match passed {
        Passed::Packet(packet) => whole_frame(packet),
        Passed::Paused => Ok(Some(Frame::Paused)),
    }
}

fn whole_frame(packet: Packet) -> std::result::Result<Option<Frame>, Fault> {
    if packet.kind() == COPY_DATA {
        return copied(packet.into_body()).map(Some);
    }
    match packet.parse()? {
        Message::ErrorResponse(body) => Err(Fault::from_fields(body.fields())),
        Message::NoticeResponse(_)
        | Message::NotificationResponse(_)
        | Message::ParameterStatus(_) => Ok(None),
        // The server is being stopped, and has sent all it had.
        Message::CopyDone | Message::CommandComplete(_) => Err(Fault::Closed),
        _ => Err(unexpected()),
    }
}

fn copied(mut body: Bytes) -> std::result::Result<Frame, Fault> {
    let kind = body.try_get_u8().map_err(|_| malformed("without a kind"))?;
    match kind {
        XLOG_DATA if body.len() >= XLOG_DATA_HEAD_BYTES => {
            let start = Lsn(body.get_u64());
            body.advance(XLOG_DATA_HEAD_BYTES - size_of::<u64>());
            Ok(Frame::Data { start, message: body })
        }
        KEEP_ALIVE if body.len() == KEEP_ALIVE_BYTES => {
            let end = Lsn(body.get_u64());
            body.advance(size_of::<u64>());
            let reply = if body.get_u8() == 0 { ReplyWanted::No } else { ReplyWanted::Yes };
            Ok(Frame::KeepAlive { end, reply })
        }
        XLOG_DATA | KEEP_ALIVE => Err(malformed("of the wrong length")),
        other => Err(malformed(&format!("of the unknown kind {other:#04x}"))),
    }
}

fn malformed(how: &str) -> Fault {
    Fault::Protocol(format!("a part of the log {how}"))
}

/// Now, as PostgreSQL counts; it only shows it.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A standby status update: written, flushed and applied; no answer wanted.
fn status(received: Lsn, flushed: Lsn, now: Timestamp) -> [u8; STATUS_BYTES] {
    let mut message = [0; STATUS_BYTES];
    let length = u32::try_from(STATUS_BYTES - 1).expect("it is short");
    message[0] = COPY_DATA;
    message[1..5].copy_from_slice(&length.to_be_bytes());
    message[5] = STATUS;
    message[6..14].copy_from_slice(&received.0.to_be_bytes());
    message[14..22].copy_from_slice(&flushed.0.to_be_bytes());
    message[22..30].copy_from_slice(&flushed.0.to_be_bytes());
    message[30..38].copy_from_slice(&now.to_postgres().to_be_bytes());
    message
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
