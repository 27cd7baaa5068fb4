//! Chaos: kills whoever the cards say, the same way for the same seed.
//!
//! The cards are dealt from a shuffled deck that has each victim once, so a short run, too, hits them all. A killed
//! service is started again by its supervisor. A killed server is started again here, and meanwhile others die, too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::random::Random;
use crate::stage::{Stage, Victim};
use crate::topics::aside;

/// What became of a blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Struck,
    /// The server was killed before and is not there again.
    IsAway,
}

/// Kills until it is aborted.
pub(crate) async fn rage(stage: Arc<Stage>, every: Duration, seed: u64) {
    let mut random = Random::new(seed, u64::MAX);
    let mut deck: Vec<Victim> = Vec::new();
    loop {
        if deck.is_empty() {
            deck = stage.victims();
            random.shuffle(&mut deck);
        }
        tokio::time::sleep(every).await;
        // A card of who is away is laid aside, and the next one is dealt at once.
        while let Some(victim) = deck.pop() {
            match strike(&stage, victim) {
                Ok(Blow::Struck) => break,
                Ok(Blow::IsAway) => {}
                Err(error) => eprintln!("cannot kill {}: {error:#}", victim.name()),
            }
        }
    }
}

/// Kills one, and does not wait until it is back.
pub(crate) fn strike(stage: &Arc<Stage>, victim: Victim) -> Result<Blow> {
    let kind = match victim {
        Victim::Process(name) => {
            stage.say(format!("kill -9 {name}"));
            stage.supervisor.kill(name)?;
            return Ok(Blow::Struck);
        }
        Victim::Server(kind) => kind,
    };
    let Ok(turn) = Arc::clone(stage.turn(kind)).try_lock_owned() else { return Ok(Blow::IsAway) };
    stage.say(format!("kill -9 {}", victim.name()));
    let stage = Arc::clone(stage);
    // Killing waits for the processes to be gone, and starting for the server to be there.
    tokio::spawn(async move {
        if let Err(error) = aside(move || stage.kill_and_start_again(kind)).await {
            eprintln!("{} does not come back: {error:#}", victim.name());
        }
        drop(turn);
    });
    Ok(Blow::Struck)
}
