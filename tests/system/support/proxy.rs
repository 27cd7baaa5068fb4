//! A TCP proxy that breaks connections in the ways in which networks do.
//!
//! Promises: in [`Mode::Pass`] it changes nothing; another mode holds for the connections that there
//! are and for new ones; it runs on a thread of its own, so that a test that blocks does not slow it.
//! Must not: know what goes through it. Fails: a port that cannot be bound panics.

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 16 * 1024;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They go through.
    Pass,
    /// They go through in pieces of so many bytes at most, each after a pause.
    Slow { pause: Duration, piece_bytes: usize },
    /// They wait until the mode changes.
    Stall,
    /// They vanish, for ever: a connection that was there in this mode never carries a byte again.
    HalfOpen,
    /// Connections are accepted and reset at once.
    Refuse,
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As if the peer had closed it.
    Close,
    /// As if the peer knew nothing of it (RST).
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    mode: Mode,
    /// Connections that were made under a lower number end.
    cuts: u64,
    ending: Ending,
    ended: bool,
}

pub(crate) struct Proxy {
    port: u16,
    upstream: Arc<AtomicU16>,
    order: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own; connections fail until [`Proxy::lead_to`] names a server.
    pub(crate) fn new() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let order = Order { mode: Mode::Pass, cuts: 0, ending: Ending::Close, ended: false };
        let (sender, orders) = watch::channel(order);
        let upstream = Arc::new(AtomicU16::new(0));
        let target = Arc::clone(&upstream);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let thread = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || runtime.block_on(accept(listener, target, orders)))
            .expect("a thread can be started");
        Self { port, upstream, order: sender, thread: Some(thread) }
    }

    /// A proxy in front of a port of this machine.
    pub(crate) fn before(port: u16) -> Self {
        let proxy = Self::new();
        proxy.lead_to(port);
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where new connections go.
    pub(crate) fn lead_to(&self, port: u16) {
        self.upstream.store(port, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.order.send_modify(|order| order.mode = mode);
    }

    /// Ends the connections that there are.
    pub(crate) fn cut(&self, ending: Ending) {
        self.order.send_modify(|order| (order.cuts, order.ending) = (order.cuts + 1, ending));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.order.send_modify(|order| order.ended = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a proxy panicked");
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    upstream: Arc<AtomicU16>,
    mut orders: watch::Receiver<Order>,
) {
    listener.set_nonblocking(true).expect("a listener can be asked");
    let listener = TcpListener::from_std(listener).expect("the runtime takes it");
    let watched = orders.clone();
    let all = async {
        loop {
            let (client, _) = listener.accept().await.expect("connections can be accepted");
            let port = upstream.load(Ordering::Relaxed);
            let orders = watched.clone();
            tokio::spawn(async move {
                // Its error is the end of one connection, which is what proxies are for here.
                if let Err(error) = carry(client, port, orders).await {
                    eprintln!("a proxied connection ended: {error}");
                }
            });
        }
    };
    let ended = orders.wait_for(|order| order.ended);
    tokio::select! {
        () = all => {}
        _ = ended => {}
    }
}

/// One connection, until either side hangs up or an order ends it.
async fn carry(mut client: TcpStream, port: u16, orders: watch::Receiver<Order>) -> io::Result<()> {
    let born = *orders.borrow();
    match born.mode {
        Mode::Refuse => return client.set_zero_linger(),
        Mode::HalfOpen => {
            // Nobody answers, and nobody hangs up.
            let ending = cut_after(orders, born.cuts).await;
            return end(&client, ending);
        }
        Mode::Pass | Mode::Slow { .. } | Mode::Stall => {}
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ending = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            ended = async { tokio::try_join!(
                pump(from_client, to_server, orders.clone()),
                pump(from_server, to_client, orders.clone()),
            )} => return ended.map(|_| ()),
            ending = cut_after(orders.clone(), born.cuts) => ending,
            // Nobody reads or writes any more, and nobody hangs up.
            () = half_open(orders.clone()) => cut_after(orders, born.cuts).await,
        }
    };
    end(&client, ending)?;
    end(&server, ending)
}

async fn cut_after(mut orders: watch::Receiver<Order>, cuts: u64) -> Ending {
    match orders.wait_for(|order| order.cuts > cuts || order.mode == Mode::Refuse).await {
        Ok(order) if order.mode != Mode::Refuse => order.ending,
        Ok(_) | Err(_) => Ending::Reset,
    }
}

fn end(stream: &TcpStream, ending: Ending) -> io::Result<()> {
    match ending {
        Ending::Close => Ok(()),
        Ending::Reset => stream.set_zero_linger(),
    }
}

/// One direction.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: watch::Receiver<Order>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let mode = orders.borrow_and_update().mode;
            let now = match mode {
                Mode::Pass => rest.len(),
                Mode::Slow { pause, piece_bytes } => {
                    tokio::time::sleep(pause).await;
                    rest.len().min(piece_bytes)
                }
                Mode::Stall => {
                    changed(&mut orders).await;
                    continue;
                }
                Mode::HalfOpen | Mode::Refuse => pending().await,
            };
            to.write_all(&rest[..now]).await?;
            rest = &rest[now..];
        }
    }
}

async fn changed(orders: &mut watch::Receiver<Order>) {
    if orders.changed().await.is_err() {
        pending::<()>().await;
    }
}

async fn half_open(mut orders: watch::Receiver<Order>) {
    if orders.wait_for(|order| order.mode == Mode::HalfOpen).await.is_err() {
        pending::<()>().await;
    }
}
