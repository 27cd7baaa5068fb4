//! Rests of those who give signs of life.
//!
//! Promises: whoever rests as he was told to is not taken for one who waits for an answer. Must not: decide for how long.
//! Fails: where the runtime has no timer.

use std::time::Duration;

use crate::metrics::beats::Pulse;

/// Nobody is taken for silent within this.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Sleeps so long, and gives signs of life.
pub async fn rest(pause: Duration, pulse: &Pulse) {
    let mut left = pause;
    loop {
        pulse.beat();
        let step = left.min(BEAT_INTERVAL);
        tokio::time::sleep(step).await;
        left -= step;
        if left.is_zero() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::beats::Beats;

    #[tokio::test]
    async fn who_rests_gives_signs_of_life() {
        let beats = Arc::new(Beats::default());
        let pulse = beats.expect("saver of cursors");
        rest(BEAT_INTERVAL + Duration::from_millis(50), &pulse).await;
        assert_eq!(beats.heard()[0].beats, 2);
        rest(Duration::ZERO, &pulse).await;
        assert_eq!(beats.heard()[0].beats, 3);
    }
}
