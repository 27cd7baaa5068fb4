//! Two scenes in mid-traffic: a consumer that is slow for a while, and relays that change their way of reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::customers::Figures;
use crate::stage::Stage;
use crate::supervisor::postrider;
use crate::topics::{Groups, Reader, aside};

/// The relays that change, by their databases.
const OWNERS: [&str; 3] = ["orders", "stock", "payments"];
/// A server that was killed is back after less.
const SWITCH_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// What a slow consumer did to others.
#[derive(Debug)]
pub(crate) struct Slowness {
    /// Records that waited in Kafka at most.
    pub(crate) highest_lag: i64,
    /// How long they took to be dealt with, once the consumer was fast again.
    pub(crate) drained_in: Option<Duration>,
    /// The answers to new orders, median and 99th percentile: before and meanwhile.
    pub(crate) before: Option<(Duration, Duration)>,
    pub(crate) meanwhile: Option<(Duration, Duration)>,
}

/// Makes the read model slow for the second quarter of the time, and looks who notices.
pub(crate) async fn slow_consumer(
    stage: Arc<Stage>,
    figures: &Figures,
    whole: Duration,
) -> Result<Slowness> {
    let begin = Instant::now();
    tokio::time::sleep(whole / 4).await;
    let slow_from = Instant::now();
    stage.set_slow(true)?;
    let mut highest_lag = 0;
    while slow_from.elapsed() < whole / 4 {
        tokio::time::sleep(PAUSE).await;
        highest_lag = lag(&stage).await.unwrap_or(0).max(highest_lag);
    }
    stage.set_slow(false)?;
    let fast_from = Instant::now();
    let mut drained_in = None;
    while drained_in.is_none() && fast_from.elapsed() < whole {
        tokio::time::sleep(PAUSE).await;
        // A moment's lag is always there; a tenth of what it was is drained.
        let is_drained = lag(&stage).await.is_ok_and(|lag| lag <= highest_lag / 10);
        drained_in = is_drained.then(|| fast_from.elapsed());
    }
    Ok(Slowness {
        highest_lag,
        drained_in,
        before: figures.latency(begin, slow_from),
        meanwhile: figures.latency(slow_from, fast_from),
    })
}

/// How many records the read model has not dealt with.
async fn lag(stage: &Stage) -> Result<i64> {
    let brokers = stage.brokers().to_owned();
    aside(move || {
        let groups = Groups::new(&brokers)?;
        let mut reader = Reader::new(&brokers, &[crate::events::ORDER_TOPIC])?;
        reader.look_for_ends()?;
        groups.lag(crate::read_model::NAME, &reader)
    })
    .await
}

/// To `wal` when a third of the time is over, and back to `poll` when two are.
pub(crate) async fn switch_twice(stage: Arc<Stage>, whole: Duration) -> Result<()> {
    for to in ["wal", "poll"] {
        tokio::time::sleep(whole / 3).await;
        switch_capture(&stage, to).await?;
    }
    Ok(())
}

/// Changes how all relays read: `postrider capture switch`, as people would type it. Services do not notice.
pub(crate) async fn switch_capture(stage: &Arc<Stage>, to: &'static str) -> Result<()> {
    let [orders, stock, payments] = OWNERS.map(|owner| switch_one(stage, owner, to));
    tokio::try_join!(orders, stock, payments)?;
    stage.set_capture(to);
    Ok(())
}

async fn switch_one(stage: &Stage, owner: &'static str, to: &'static str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let url = stage.url(owner);
        let switched = aside(move || postrider(&url, &["capture", "switch", to])).await;
        match switched {
            Ok(()) => break,
            // PostgreSQL was just killed, or the relay: it can be said again at any time.
            Err(_) if begin.elapsed() < SWITCH_DEADLINE => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
    stage.say(format!("postrider capture switch {to} ({owner})"));
    Ok(())
}
