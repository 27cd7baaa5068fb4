//! What it costs to read a claimed page off the wire and lend its rows as events.
//!
//! Promises: the relay's own session and claim, against a stand-in for PostgreSQL that plays one page
//! from memory: no query runs, so what is measured is the driver and the decoding. Must not: need a
//! server. Fails: when the session asks for something that the stand-in does not know.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt;
use postrider::capture::table::claim::{PageReading, Poller};
use postrider::event::{Bucket, LendEvent};
use postrider::order::cursor::{Cursor, CursorGroup};
use postrider::outbox::{Outbox, PayloadType};
use postrider::postgres::DatabaseConfig;
use tokio_postgres::types::Type;

const ROWS: usize = 5_000;

/// What a claim asks for, in its order.
const COLUMNS: [(&str, Type); 8] = [
    ("seq", Type::INT8),
    ("id", Type::UUID),
    ("aggregatetype", Type::TEXT),
    ("aggregateid", Type::TEXT),
    ("type", Type::TEXT),
    ("payload", Type::JSON),
    ("headers", Type::JSONB),
    ("created_at", Type::TIMESTAMPTZ),
];

/// What a claim is given: position, through, from, upto, rows at most.
const PARAMETERS: [Type; 5] =
    [Type::INT8, Type::INT8, Type::PG_SNAPSHOT, Type::PG_SNAPSHOT, Type::INT8];

/// One message of the server: its letter, its length, its body.
fn message(letter: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + 4) as u32;
    [&[letter], length.to_be_bytes().as_slice(), body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A description of the result's columns.
fn row_description(columns: &[(&str, Type)]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for (name, of) in columns {
        body.extend_from_slice(name.as_bytes());
        // Name's end, table, column, type, size, modifier, binary form.
        body.extend_from_slice(&[0; 7]);
        body.extend_from_slice(&of.oid().to_be_bytes());
        body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
    }
    message(b'T', &body)
}

/// One row; a column without bytes is null.
fn data_row(columns: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        let length = column.map_or(-1, |bytes| bytes.len() as i32);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(column.unwrap_or_default());
    }
    message(b'D', &body)
}

/// The answer to a claim: the page.
fn page(payload_bytes: usize, headers: Option<&str>) -> Vec<u8> {
    let payload = vec![b'x'; payload_bytes];
    // `jsonb` in binary form begins with its version.
    let headers = headers.map(|text| [&[1], text.as_bytes()].concat());
    let mut answer = message(b'2', &[]);
    for seq in 1..=ROWS as i64 {
        let aggregate_id = format!("customer-{}", seq / 5);
        answer.extend(data_row(&[
            Some(&seq.to_be_bytes()),
            Some(&[0x5a; 16]),
            Some(b"order"),
            Some(aggregate_id.as_bytes()),
            Some(b"OrderPlaced"),
            Some(&payload),
            headers.as_deref(),
            Some(&848_781_321_219_663_i64.to_be_bytes()),
        ]));
    }
    answer.extend(message(b'C', format!("SELECT {ROWS}\0").as_bytes()));
    answer
}

/// The answer to the preparation of a claim.
fn description() -> Vec<u8> {
    let mut parameters = (PARAMETERS.len() as u16).to_be_bytes().to_vec();
    parameters.extend(PARAMETERS.iter().flat_map(|of| of.oid().to_be_bytes()));
    [message(b't', &parameters), row_description(&COLUMNS)].concat()
}

/// A stand-in for PostgreSQL that plays `page` for every claim, on one connection.
fn stand_in(page: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the bench connects");
        serve(stream, &page);
    });
    port
}

/// Answers until the bench hangs up.
fn serve(mut stream: TcpStream, page: &[u8]) {
    stream.set_nodelay(true).expect("a TCP socket");
    read_body(&mut stream).expect("a start-up message");
    let welcome = [message(b'R', &[0; 4]), message(b'S', b"client_encoding\0UTF8\0"), ready()];
    stream.write_all(&welcome.concat()).expect("the bench reads");
    let mut letter = [0];
    while stream.read_exact(&mut letter).is_ok() {
        let Some(body) = read_body(&mut stream) else { return };
        let answer = match letter[0] {
            b'Q' => simple_answer(&body),
            b'P' => message(b'1', &[]),
            b'D' => description(),
            b'C' => message(b'3', &[]),
            b'S' => ready(),
            b'E' => page.to_vec(),
            b'B' | b'H' => Vec::new(),
            b'X' => return,
            other => panic!("the stand-in does not know {:?}", char::from(other)),
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The answer to a simple query: the mark that a session looks for, and that all was done.
fn simple_answer(query: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if query.windows(15).any(|part| part == b"postrider.direc") {
        answer.extend(row_description(&[("current_setting", Type::TEXT)]));
        answer.extend(data_row(&[Some(b"on")]));
    }
    answer.extend(message(b'C', b"SET\0"));
    answer.extend(ready());
    answer
}

/// What follows a message's letter; none when the bench has hung up.
fn read_body(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn outbox() -> Outbox {
    Outbox {
        schema: "public".to_owned(),
        table: "outbox".to_owned(),
        buckets: 1,
        payload: PayloadType::Json,
        generation_seconds: 600,
        sequence: "public.outbox_seq_seq".to_owned(),
    }
}

/// Claims the page and looks at every event.
async fn claim(poller: &mut Poller, cursor_group: &CursorGroup, cursor: &Cursor) -> usize {
    let mut page =
        poller.claim(cursor_group, cursor, ROWS as u32, PageReading::Plain).await.expect("a page");
    let mut rows = 0;
    while let Some(row) = page.next().await {
        let row = row.expect("a row");
        rows += usize::from(black_box(row.event()).seq > 0);
    }
    rows
}

fn decode(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("claim_decode");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    let cursor_group: CursorGroup = Arc::from([Bucket(0)]);
    let cursor = Cursor::initial();
    let shapes = [
        (200, None),
        (200, Some(r#"{"trace": "4bf92f3577b34da6a3ce929d0e0e4736"}"#)),
        (2_000, None),
    ];
    for (payload_bytes, headers) in shapes {
        let port = stand_in(page(payload_bytes, headers));
        let url = format!("postgres://bench@127.0.0.1:{port}/bench?sslmode=disable");
        let database = DatabaseConfig::parse(&url).expect("a legal URL");
        let mut poller = runtime
            .block_on(Poller::connect(&database, &outbox(), "bench", 8 << 20))
            .expect("the stand-in answers");
        assert_eq!(runtime.block_on(claim(&mut poller, &cursor_group, &cursor)), ROWS);
        let with = if headers.is_some() { "with_headers" } else { "no_headers" };
        let id = BenchmarkId::new(format!("{payload_bytes}_bytes"), with);
        group.bench_function(id, |bencher| {
            bencher.iter(|| runtime.block_on(claim(&mut poller, &cursor_group, &cursor)));
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
