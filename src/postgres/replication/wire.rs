//! Messages to and from a server over one socket.
//!
//! Promises: nothing that came is lost when a wait is given up; a wait for room in the socket goes on
//! reading, so both sides never wait for each other; what is not sent yet is bounded.
//! Must not: know what messages mean.
//! Fails: with a [`Fault`]; the last words of a server are read before its end is told.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::framing::{MessageSieve, Packet, Passed, ReceiveBuffer};
use crate::postgres::replication::transport::Transport;

/// A standby status update: head, letter, three places, a time, one flag.
pub(super) const STATUS_BYTES: usize = 5 + 1 + 3 * 8 + 8 + 1;

/// One socket with what came from it and what is to go to it.
pub(super) struct Wire {
    transport: Transport,
    inbox: ReceiveBuffer,
    unsent: BytesMut,
    /// Goes out after `unsent`; a later one takes its place.
    latest: Option<[u8; STATUS_BYTES]>,
    is_flushed: bool,
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            inbox: ReceiveBuffer::new(),
            unsent: BytesMut::new(),
            latest: None,
            is_flushed: true,
        }
    }

    /// From here on lets messages gather before they are read.
    pub(super) fn gather(&mut self) {
        self.transport.pace();
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Puts a message at the end of what is to go, and sends what the socket takes with the next
    /// wait.
    ///
    /// # Errors
    /// When the text holds a zero byte.
    pub(super) fn put(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), Fault> {
        if let Some(latest) = self.latest.take() {
            self.unsent.extend_from_slice(&latest);
        }
        message(&mut self.unsent)
            .map_err(|cause| Fault::Protocol(format!("a message cannot be made: {cause}")))
    }

    /// Sends a message that takes the place of one that was not begun yet. What the socket has no
    /// room for goes out with a later call or wait.
    pub(super) async fn put_latest(&mut self, message: [u8; STATUS_BYTES]) -> Result<(), Fault> {
        self.latest = Some(message);
        poll_fn(|context| match self.poll_send(context) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
        .map_err(Fault::from)
    }

    /// A message that is here already. A long one goes through the sieve.
    pub(super) fn buffered(
        &mut self,
        sieve: &mut impl MessageSieve,
    ) -> Result<Option<Passed>, Fault> {
        self.inbox.take_through(sieve)
    }

    /// The next message. A long one goes through the sieve. May be given up and called again.
    pub(super) async fn packet_through(
        &mut self,
        sieve: &mut impl MessageSieve,
    ) -> Result<Passed, Fault> {
        loop {
            if let Some(passed) = self.inbox.take_through(sieve)? {
                return Ok(passed);
            }
            if poll_fn(|context| self.poll_receive(context)).await? == 0 {
                return Err(Fault::Closed);
            }
        }
    }

    /// The next message. May be given up and called again.
    pub(super) async fn packet(&mut self) -> Result<Packet, Fault> {
        loop {
            if let Some(packet) = self.inbox.take()? {
                return Ok(packet);
            }
            if poll_fn(|context| self.poll_receive(context)).await? == 0 {
                return Err(Fault::Closed);
            }
        }
    }

    /// Waits until everything is sent.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        Ok(poll_fn(|context| self.poll_send(context)).await?)
    }

    /// Reads something; sends what is to go meanwhile.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let sending = self.poll_send(context);
        let room = self.inbox.room()?;
        let reading = pin!(self.transport.read_buf(room)).poll(context)?;
        match (reading, sending) {
            // A server that hangs up has said why: that is read first.
            (Poll::Pending, Poll::Ready(Err(cause))) => Poll::Ready(Err(cause.into())),
            (reading, _) => reading.map(Ok),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.unsent.is_empty() {
                let transport = Pin::new(&mut self.transport);
                let sent = ready!(transport.poll_write(context, &self.unsent))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unsent.advance(sent);
                self.is_flushed = false;
            }
            match self.latest.take() {
                Some(latest) => self.unsent.extend_from_slice(&latest),
                None => break,
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.transport).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wire").field("transport", &self.transport).finish_non_exhaustive()
    }
}
