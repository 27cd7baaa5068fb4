//! The sequence is read under its page's lock, so that a tick's floor is never too high.

use std::time::{Duration, Instant};

use crate::support::fixture::connect;
use crate::support::start_postgres;

const DRAWN: &str = include_str!("../../sql/queries/drawn.sql");

/// Reads again and again, inside the server, and counts how often a value was lower than one before it.
const READS: &str = "
    do $reads$
    declare
        read constant text := $drawn${drawn}$drawn$;
        stop constant timestamptz := clock_timestamp() + interval '10 s';
        value bigint;
        highest bigint := 0;
        lower integer := 0;
    begin
        while clock_timestamp() < stop loop
            execute read into value;
            lower := lower + (value < highest)::integer;
            highest := greatest(highest, value);
        end loop;
        perform set_config('test.lower', lower::text, false);
    end
    $reads$";

/// PostgreSQL's nextval leaves a value up to 32 ahead in the page while it logs, which takes long when the
/// log's buffers are full. A plain `select last_value` meets it a few times in these ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_drawn_never_goes_back() {
    let settings =
        [("wal_buffers", "32kB"), ("synchronous_commit", "off"), ("wal_writer_delay", "10s")];
    let postgres = start_postgres(&settings);
    let url = postgres.url("postgres");
    let client = connect(&url).await;
    let table = "create sequence drawn_seq;
        create table filler (n bigint default nextval('drawn_seq'), text text)";
    client.batch_execute(table).await.expect("the database is empty");
    let until = Instant::now() + Duration::from_secs(11);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let writer = connect(&url).await;
        writers.spawn(async move {
            let fill = "insert into filler (text)
                select repeat(md5(g::text), 30) from generate_series(1, 200) g";
            while Instant::now() < until {
                writer.batch_execute(fill).await.expect("an insert never fails");
            }
        });
    }
    let drawn = DRAWN.replace("{sequence}", "'public.drawn_seq'");
    client.batch_execute(&READS.replace("{drawn}", &drawn)).await.expect("it reads");
    let lower = client.query_one("select current_setting('test.lower')", &[]).await;
    assert_eq!(lower.expect("it was set").get::<_, String>(0), "0");
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer panics");
    }
}
