//! A TCP socket that is left alone for a while after it was emptied.
//!
//! Promises: a paced socket is read at most once per pause as long as little comes, and all that came
//! meanwhile at once. Must not: know what the bytes mean, or set the size of the receive buffer.
//! Fails: with the operating system's error.
//!
//! The server sends each message of a stream by itself. A socket that the runtime watches wakes it for
//! each, whether anybody reads or not; that costs more than all the rest. So while messages come, the
//! socket is taken out of the watch, and looked at when the pause is over. Once nothing came for some
//! pauses, it is watched again, and nobody wakes for nothing.
//!
//! A receive buffer of a size of ours would make the server gather messages behind a shut window, but
//! many small messages fill its memory before the window is shut: Linux then drops what comes, and the
//! acknowledgements of what we send with it. The server hears nothing from us any more, and ends the session.
//! See `load/runs/2026-11-29-2-cores`.

use std::io;
use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long it is left alone; the timer may add a millisecond.
const PAUSE: Duration = Duration::from_millis(4);
/// How long after a byte woke us, which others will follow, and while the server has much to send.
const SHORT_PAUSE: Duration = Duration::from_millis(1);
/// After so many pauses without a byte it is watched again.
const EMPTY_PAUSES_MAX: u32 = 4;
/// Where so much came during a pause, the next one is short.
const BURST_BYTES: usize = 48 * 1024;

/// The socket.
#[derive(Debug)]
pub(super) struct PacedTcp {
    /// None only while it changes from one to the other.
    socket: Option<Socket>,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
    is_paused: bool,
    empty_pauses: u32,
    /// Since the last pause.
    gathered_bytes: usize,
    /// A byte has woken us, and there was no pause since.
    is_woken: bool,
}

#[derive(Debug)]
enum Socket {
    Watched(TcpStream),
    Unwatched(std::net::TcpStream),
}

/// Whether a socket is left alone at times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Each byte is read as soon as it is here.
    AsItComes,
    /// With pauses.
    Paced,
}

impl PacedTcp {
    /// Not paced yet.
    pub(super) fn new(stream: TcpStream) -> Self {
        let socket = Some(Socket::Watched(stream));
        Self {
            socket,
            pace: Pace::AsItComes,
            pause: None,
            is_paused: false,
            empty_pauses: 0,
            gathered_bytes: 0,
            is_woken: false,
        }
    }

    /// From here on it is.
    pub(super) fn pace(&mut self) {
        self.pace = Pace::Paced;
    }

    fn watched(&mut self) -> io::Result<&mut TcpStream> {
        let socket = match self.socket.take() {
            Some(Socket::Unwatched(socket)) => Socket::Watched(TcpStream::from_std(socket)?),
            Some(watched) => watched,
            // An error came between: the socket is gone with it.
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        match self.socket.insert(socket) {
            Socket::Watched(stream) => Ok(stream),
            Socket::Unwatched(_) => unreachable!("it was just made a watched one"),
        }
    }

    /// Takes it out of the watch.
    fn leave_alone(&mut self) -> io::Result<()> {
        if let Some(Socket::Watched(stream)) = self.socket.take_if(|_| self.pace == Pace::Paced) {
            self.socket = Some(Socket::Unwatched(stream.into_std()?));
        }
        Ok(())
    }

    fn begin_pause(&mut self) {
        let is_short = self.is_woken || self.gathered_bytes >= BURST_BYTES;
        (self.is_woken, self.gathered_bytes) = (false, 0);
        let until = Instant::now() + if is_short { SHORT_PAUSE } else { PAUSE };
        match &mut self.pause {
            Some(pause) => pause.as_mut().reset(until),
            None => self.pause = Some(Box::pin(sleep_until(until))),
        }
        self.is_paused = true;
    }

    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = self.pause.as_mut().filter(|_| self.is_paused) {
            ready!(pause.as_mut().poll(context));
            self.is_paused = false;
        }
        Poll::Ready(())
    }

    fn poll_watched(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.watched()?).poll_read(context, buffer))?;
        self.leave_alone()?;
        (self.is_woken, self.empty_pauses) = (true, 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PacedTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let paced = self.get_mut();
        loop {
            let Some(Socket::Unwatched(_)) = paced.socket else {
                return paced.poll_watched(context, buffer);
            };
            ready!(paced.poll_pause(context));
            let Some(Socket::Unwatched(socket)) = &mut paced.socket else { continue };
            match socket.read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    paced.gathered_bytes += read;
                    paced.empty_pauses = 0;
                    return Poll::Ready(Ok(()));
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    paced.empty_pauses += 1;
                    if paced.empty_pauses > EMPTY_PAUSES_MAX {
                        paced.watched()?;
                    } else {
                        paced.begin_pause();
                    }
                }
                Err(cause) => return Poll::Ready(Err(cause)),
            }
        }
    }
}

impl AsyncWrite for PacedTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let paced = self.get_mut();
        if let Some(Socket::Unwatched(socket)) = &mut paced.socket {
            match socket.write(bytes) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        // Only a watched socket tells when there is room.
        Pin::new(paced.watched()?).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().watched()?).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "paced_socket_tests.rs"]
mod tests;
