//! temp
use postrider::*;
use std::time::Duration;
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("demo") {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        enum Command { Demo(cli::demo::DemoArguments) }
        let Command::Demo(arguments) = Command::parse();
        return cli::demo::run(arguments).unwrap_or_else(|e| { eprintln!("error: {e}"); e.kind().exit_code().into() });
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let a: Vec<String> = std::env::args().collect();
    let shards = a[3].parse().ok();
    let config = config::Config { database: postgres::DatabaseConfig::parse(&a[1]).unwrap(), outbox: migrate::OutboxName::default(), shards,
        cadence: capture::ticker::Cadence { min: Duration::from_millis(5), max: Duration::from_millis(50) }, page_rows: 5000, max_in_flight_bytes: 32<<20, save_interval: Duration::from_millis(100), shutdown_timeout: Duration::from_secs(25),
        kafka: config::KafkaConfig { brokers: a[2].clone(), topic: route::DEFAULT_TOPIC_TEMPLATE.parse().unwrap(), record_timestamp: Default::default(), created_at_header: encode::CreatedAtHeader::Omit, properties: a[4..].iter().map(|p| { let (k, v) = p.split_once('=').unwrap(); (k.to_string(), v.to_string()) }).collect() } };
    let r = rt.block_on(async { let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
      relay::run(config, Default::default(), async move { term.recv().await; }).await });
    if let Err(e) = r { eprintln!("error: {e}"); std::process::exit(e.kind().exit_code().into()); }
    std::process::ExitCode::SUCCESS
}
