//! `postrider run`: relays until it is told to stop.
//!
//! Promises: SIGTERM and SIGINT let what is in flight land; a second signal ends the process at once.
//! Must not: know how the relay works. Fails: as [`crate::relay::run`].

use std::path::Path;
use std::sync::Arc;

use clap::{Args, CommandFactory as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::config::holding;
use crate::cli::service::ServiceManager;
use crate::cli::{CommandLine, block_on, prepare};
use crate::config::Config;
use crate::config::file::FileSettings;
use crate::config::settings::{CommonSettings, Property, RelaySettings};
use crate::error::{Error, ErrorKind, Result};
use crate::logging;
use crate::metrics::admin::Admin;
use crate::metrics::counters::Monitor;
use crate::metrics::http;
use crate::metrics::shape::SettingStatus;
use crate::relay;
use crate::schema;

/// The exit code when a second signal cuts the stop short.
const CUT_SHORT: i32 = 1;

/// Relays committed rows of the outbox to Kafka until SIGTERM or SIGINT.
#[derive(Args, Debug)]
#[command(after_help = "\
Each long flag has an environment variable (--page-rows: POSTRIDER_PAGE_ROWS) and a key in the TOML
file (page-rows = 2000); -X has the file's table [librdkafka].

Examples:
  postrider run --database-url postgres://relay@db/shop --brokers kafka:9092
  postrider run --topic shop.{aggregatetype} --shards 2 -X compression.type=zstd
  POSTRIDER_BROKERS=kafka:9092 PGHOST=db PGDATABASE=shop postrider run")]
pub(super) struct RunArguments {
    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,
}

pub(super) fn run(arguments: RunArguments) -> Result<()> {
    block_on(async move {
        // First of all: whoever asks for a stop at once gets one, and no end by a signal.
        let mut signals = StopSignals::listen()?;
        let flags = arguments.relay.property.clone();
        let (common, relay, file) = prepare(arguments.common, arguments.relay, "info")?;
        logging::own_stderr(common.log_format);
        let config = Config::resolve(&common, &relay)?;
        announce(&config, file.path.as_deref());
        let manager = ServiceManager::of_environment();
        let told = manager.clone();
        let shutdown = async move {
            signals.next().await;
            tokio::spawn(cut_short_at_next(signals));
            if let Some(manager) = told {
                manager.tell_stopping();
            }
        };
        let monitor = Arc::new(Monitor::default());
        let admin = Admin::new(Arc::clone(&monitor), settings(flags, &common, &file)?)
            .answering_by(config.admin_hosts.clone())
            .steered(config.admin_token.clone(), &config.database);
        http::serve(config.admin_listen, admin).await?;
        if let Some(manager) = manager {
            manager.watch_over(Arc::clone(&monitor));
        }
        Box::pin(relay::run(config, monitor, shutdown)).await
    })?;
    tracing::info!("stopped: everything that was claimed is acknowledged and saved");
    Ok(())
}

/// By what it works, for whoever asks it.
fn settings(
    flags: Vec<Property>,
    common: &CommonSettings,
    file: &FileSettings,
) -> Result<Vec<SettingStatus>> {
    let typed = CommandLine::command().get_matches();
    let typed = typed.subcommand_matches("run").expect("this is the command that was typed");
    holding(typed, flags, common, file)
}

/// The first line of the log: who works, from where to where.
fn announce(config: &Config, file: Option<&Path>) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        database = config.database.display_name(),
        schema = schema::chosen().unusual(),
        brokers = config.kafka.brokers,
        shards = config.shards.map_or_else(|| "one per core".to_owned(), |count| count.to_string()),
        file = file.map(|path| path.display().to_string()),
        "postrider starts"
    );
    for way in config.open_ways() {
        tracing::warn!("{way}");
    }
}

/// The two signals that ask for a stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self> {
        let failed = |cause: std::io::Error| {
            Error::new(ErrorKind::Internal, format!("signals cannot be received: {cause}"))
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Whoever asks twice does not want to wait. Nothing is lost: what is not saved is sent again.
async fn cut_short_at_next(mut signals: StopSignals) {
    signals.next().await;
    tracing::warn!(
        "a second signal: ending at once; unsaved events are sent again by the next start"
    );
    std::process::exit(CUT_SHORT);
}
