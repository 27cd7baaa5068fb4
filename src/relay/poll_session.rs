//! A session that polls the table, by as many shards as are asked for.
//!
//! Promises: every tick reaches every shard; cursors are saved as often as asked for. Must not: know what an event
//! says, or who owns what. Fails: with the first error that concerns all shards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, watch};

use crate::capture::table::past_ticks::Remembered;
use crate::capture::table::rest::rest;
use crate::capture::table::ticker::{Audience, ForeignRows, Ticker};
use crate::control::cursors::{CursorStore, pause_after_save};
use crate::error::Result;
use crate::metrics::beats::Pulse;
use crate::metrics::health::SessionState;
use crate::order::tick::Tick;
use crate::postgres::with_timeout;
use crate::publish::kafka::config::{ArrivalPattern, ProducerConfig};
use crate::relay::assigner::Share;
use crate::relay::assigner::shard_lines::{Assignment, ShardLines};
use crate::relay::exactly::ExactlyOnce;
use crate::relay::instance::Instance;
use crate::relay::mode_watch::spawn_mode_watch;
use crate::relay::publishers::Publishers;
use crate::relay::replays::spawn_replays;
use crate::relay::shard_supervisor::{ShardContext, supervise};
use crate::relay::slot_recovery::{Recovery, recover};
use crate::relay::stages::SessionStage;
use crate::relay::tasks::{Ended, Opened, SessionTasks, Tasks};
use crate::schema;

/// What all shards hear of the ticker, and tell it.
struct Ticks {
    latest: watch::Receiver<Arc<Tick>>,
    nudge: Arc<Notify>,
}

impl Instance {
    /// Polls the table, until told to stop or until the slot can take over.
    pub(super) async fn poll_session(
        &self,
        opened: Opened,
        producer: &ProducerConfig,
        recovery: Option<Recovery>,
        stage: &mut SessionStage,
    ) -> Result<()> {
        let Opened { outbox, store, latest, way, control, state } = opened;
        let (own, buckets) = ((way, state.database), outbox.buckets);
        let exactly = ExactlyOnce::of(self, &store, own, producer, buckets).await?;
        let shards = self.shard_count(&outbox)?;
        let (database, cadence) = (&self.config.database, self.config.cadence);
        let (begin, foreign) = (Arc::clone(&latest), ForeignRows::Refused);
        let ticker = Ticker::connect(database, &outbox, cadence, begin, foreign).await?;
        let ticker = ticker.with_figures(Arc::clone(self.monitor.figures()));
        let (ticker, remembered) =
            with_timeout(database, "remember the ticks", ticker.with_memory()).await?;
        tell_of_memory(remembered);
        let (lines, assignments) = ShardLines::to_shards(shards);
        let mut session_tasks =
            SessionTasks::join(self, &outbox, &store, lines, Share::Fair).await?;
        *stage = if recovery.is_some() { SessionStage::Recovering } else { SessionStage::Polling };
        self.monitor.set_session(SessionState::Working);

        let ticks = spawn_ticker(&mut session_tasks.tasks, ticker, latest);
        if let Some(exactly) = &exactly {
            exactly.spawn_watch(&mut session_tasks.tasks);
        }
        let saving = self.monitor.figures().tasks.expect("saver of cursors");
        session_tasks.tasks.spawn(save_regularly(
            Arc::clone(&store),
            self.config.save_interval,
            saving,
        ));
        spawn_mode_watch(self, &mut session_tasks, way, Arc::new(Mutex::new(control)));
        self.spawn_recovery(&mut session_tasks, recovery, &store, &ticks.nudge);
        spawn_replays(self, &mut session_tasks, (&outbox, &store), producer, &ticks.nudge);
        let context = ShardContext {
            config: self.config.clone(),
            publishers: Publishers::new(
                self,
                outbox.payload,
                producer,
                ArrivalPattern::Pages,
                &session_tasks.send_deadline,
            ),
            outbox,
            shards,
            store,
            parked: Arc::clone(&session_tasks.parked),
            ticks: ticks.latest,
            nudge: ticks.nudge,
            stop: session_tasks.stop.clone(),
            exactly,
            delivery_term: way.delivery.term(),
        };
        self.spawn_shards(&mut session_tasks.tasks, context, assignments);
        session_tasks.work().await
    }

    /// Who polls as that is how events are read copies nothing; who recovers makes what is missing.
    fn spawn_recovery(
        &self,
        session_tasks: &mut SessionTasks,
        recovery: Option<Recovery>,
        store: &Arc<CursorStore>,
        nudge: &Arc<Notify>,
    ) {
        match recovery {
            None => self.held.give_up(),
            Some(recovery) => {
                let (store, nudge, end) =
                    (Arc::clone(store), Arc::clone(nudge), session_tasks.end());
                session_tasks.tasks.spawn(recover(recovery, store, nudge, end));
            }
        }
    }

    fn spawn_shards(&self, tasks: &mut Tasks, context: ShardContext, assignments: Vec<Assignment>) {
        let context = Arc::new(context);
        for (index, assignment) in assignments.into_iter().enumerate() {
            let gauge = self.monitor.shard(index);
            tasks.spawn(supervise(Arc::clone(&context), index, assignment, gauge));
        }
    }
}

fn tell_of_memory(remembered: Remembered) {
    if remembered == Remembered::Refused {
        tracing::warn!(
            remedy = "run sql/roles.sql again, as the role that migrates",
            "the role may not write {}: `postrider check` finds fewer of the rows that no cursor will reach",
            schema::chosen().of("past_tick")
        );
    }
}

fn spawn_ticker(tasks: &mut Tasks, ticker: Ticker, begin: Arc<Tick>) -> Ticks {
    let (sender, latest) = watch::channel(begin);
    let nudge = Arc::new(Notify::new());
    let (audience, nudged) = (Audience::Latest(sender), Arc::clone(&nudge));
    tasks.spawn(async move { ticker.run(audience, nudged).await.map(|()| Ended::Helper) });
    Ticks { latest, nudge }
}

async fn save_regularly(
    store: Arc<CursorStore>,
    interval: Duration,
    pulse: Pulse,
) -> Result<Ended> {
    let mut pause = interval;
    loop {
        rest(pause, &pulse).await;
        let began = Instant::now();
        store.save().await?;
        pause = pause_after_save(interval, began.elapsed());
    }
}
