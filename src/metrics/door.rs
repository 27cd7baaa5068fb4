//! Who is let in, and for how long.
//!
//! Promises: at most [`CONNECTIONS_MAX`] connections are open; a client that sends nothing, or slowly, or
//! reads slowly, keeps nobody out, for the oldest connection makes room for a new one; none outlasts
//! [`CONNECTION_TIME`]. Must not: take the descriptors, the time or the memory that the relay needs.
//! Fails: never; where the process has no descriptor left, clients wait.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Open connections. An answer takes less than a millisecond, so honest clients rarely meet.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// What the head of a request may take, from the first moment of the connection.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// What a connection may take: one request, whatever it asks to be done, and the reading of its answer.
const CONNECTION_TIME: Duration = Duration::from_secs(20);

/// The pause after each connection that had to go: so nobody is turned away before having been open for
/// [`CONNECTIONS_MAX`] of these, and a flood of clients waits in the kernel's queue, not on our processor.
const CROWD_PAUSE: Duration = Duration::from_millis(1);

/// The pause after a failed accept: mostly no descriptor is free.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// A head of this size is longer than any that asks for figures.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Answers whoever connects, until the process ends.
pub(super) async fn answer(listener: TcpListener, routes: Router) {
    let mut visitors = Visitors::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if visitors.make_room().await == Crowd::OldestWent {
                    sleep(CROWD_PAUSE).await;
                }
                visitors.let_in(stream, routes.clone());
            }
            Err(cause) if is_clients_own(&cause) => {}
            Err(cause) => {
                tracing::warn!(%cause, "a client of the metrics cannot be let in; trying again");
                sleep(FAULT_PAUSE).await;
            }
        }
    }
}

/// The client left before it was let in.
fn is_clients_own(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(cause.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    Fits,
    OldestWent,
}

/// The open connections.
#[derive(Debug, Default)]
struct Visitors {
    tasks: JoinSet<()>,
    /// In the order of their coming.
    order: VecDeque<AbortHandle>,
}

impl Visitors {
    /// Ends the oldest connections until one more fits, and waits until they are closed.
    async fn make_room(&mut self) -> Crowd {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|visitor| !visitor.is_finished());
        let mut crowd = Crowd::Fits;
        while self.tasks.len() >= CONNECTIONS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                oldest.abort();
            }
            crowd = Crowd::OldestWent;
            if self.tasks.join_next().await.is_none() {
                break;
            }
        }
        crowd
    }

    fn let_in(&mut self, stream: TcpStream, routes: Router) {
        self.order.push_back(self.tasks.spawn(serve(stream, routes)));
        assert!(self.tasks.len() <= CONNECTIONS_MAX, "room was made before");
    }
}

/// One request, one answer. What goes wrong here is the client's matter.
async fn serve(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => tracing::debug!(%cause, "a client of the metrics left"),
        Err(_) => tracing::debug!("a client of the metrics was too slow"),
    }
}
