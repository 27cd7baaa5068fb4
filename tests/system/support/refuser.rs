//! A proxy in front of Kafka that answers for the broker where a marked record comes by.
//!
//! Promises: every other request and answer goes through unchanged; the marked request never reaches the
//! broker. Must not: know what the relay does. Fails: a port that cannot be bound panics; a request that it
//! cannot read ends its connection.

use std::io;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use postrider_testkit::servers::{Kafka, KafkaOptions};

use super::start_kafka;

/// A request is marked that has this in it. Batches must not be compressed.
pub(crate) const MARKER: &str = "a-record-that-no-broker-takes";

/// The code of a record that is never answered.
pub(crate) const SILENCE: i16 = i16::MIN;

/// A mark that names the code of its answer.
pub(crate) fn marked(code: i16) -> String {
    format!("{MARKER}:{code};")
}

const PRODUCE: i16 = 0;
/// The word by which a transaction ends.
const END_TRANSACTION: i16 = 26;
/// Behind the correlation and the throttle of its answer, which has no tags yet.
const END_CODE: std::ops::Range<usize> = 8..10;
/// From this version on requests and answers have tags, and short lengths.
const FLEXIBLE: i16 = 9;

/// What happens to a marked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It goes through.
    None,
    /// It is answered with this code.
    Answer(i16),
    /// It is answered with the code of [`marked`], or not at all.
    AnswerAsMarked,
    /// Its connection ends.
    Cut,
    /// Whatever is to be written is answered with this code.
    AnswerAll(i16),
    /// The next word that ends a transaction is kept, and its connection ends; later ones go through.
    KeepEnd,
}

#[derive(Clone)]
struct Course {
    upstream: Arc<AtomicU16>,
    fault: Arc<Mutex<Fault>>,
    kept: Arc<Mutex<Option<Vec<u8>>>>,
}

pub(crate) struct Refuser {
    port: u16,
    course: Course,
}

impl Refuser {
    /// A Kafka, and a refuser in front of its second port.
    pub(crate) fn start() -> (Self, Kafka) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let course = Course {
            upstream: Arc::new(AtomicU16::new(0)),
            fault: Arc::new(Mutex::new(Fault::None)),
            kept: Arc::default(),
        };
        let accepted = course.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let course = accepted.clone();
                std::thread::spawn(move || {
                    if let Err(error) = carry(client, &course) {
                        eprintln!("a connection through the refuser ended: {error}");
                    }
                });
            }
        });
        let kafka = start_kafka(KafkaOptions { proxy_port: Some(port), ..KafkaOptions::default() });
        let upstream = kafka.proxied_port().expect("it was asked for");
        course.upstream.store(upstream, Ordering::Relaxed);
        (Self { port, course }, kafka)
    }

    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.course.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Whether a word that ends a transaction was kept.
    pub(crate) fn has_kept(&self) -> bool {
        self.course.kept.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets the broker have what was kept, though whoever sent it has gone; the code of its answer.
    pub(crate) fn deliver_kept(&self) -> i16 {
        let kept = self.course.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let upstream = self.course.upstream.load(Ordering::Relaxed);
        let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).expect("it listens");
        let to = Mutex::new(broker.try_clone().expect("a second end"));
        write_frame(&to, &kept.expect("something was kept")).expect("the broker reads");
        let answer = read_frame(&mut broker).expect("the broker answers");
        i16::from_be_bytes(answer[END_CODE].try_into().expect("two bytes"))
    }
}

fn carry(mut client: TcpStream, course: &Course) -> io::Result<()> {
    let server =
        TcpStream::connect((Ipv4Addr::LOCALHOST, course.upstream.load(Ordering::Relaxed)))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // Both the broker's answers and ours go to the client, whole each.
    let answers = Arc::new(Mutex::new(client.try_clone()?));
    let (mut from_server, to_client) = (server.try_clone()?, Arc::clone(&answers));
    let back = std::thread::spawn(move || {
        while let Ok(frame) = read_frame(&mut from_server) {
            if write_frame(&to_client, &frame).is_err() {
                break;
            }
        }
        let client = to_client.lock().unwrap_or_else(PoisonError::into_inner);
        client.shutdown(Shutdown::Both)
    });
    let ended = forward(&mut client, &server, &answers, course);
    // Whoever has hung up already does not mind.
    drop((client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both), back.join()));
    ended
}

fn forward(
    client: &mut TcpStream,
    mut server: &TcpStream,
    answers: &Mutex<TcpStream>,
    course: &Course,
) -> io::Result<()> {
    while let Ok(frame) = read_frame(client) {
        let fault = *course.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = frame.windows(MARKER.len()).position(|bytes| bytes == MARKER.as_bytes());
        let is_marked = mark.is_some();
        let is_produce = frame.starts_with(&PRODUCE.to_be_bytes());
        match fault {
            Fault::Answer(SILENCE) if is_marked && is_produce => {}
            Fault::Answer(code) if is_marked && is_produce => {
                write_frame(answers, &refuse(&frame, code)?)?;
            }
            Fault::AnswerAsMarked if is_marked && is_produce => {
                let code = mark.and_then(|mark| code_after(&frame[mark + MARKER.len()..]));
                let code = code.ok_or_else(|| io::Error::other("a mark without a code"))?;
                if code != SILENCE {
                    write_frame(answers, &refuse(&frame, code)?)?;
                }
            }
            Fault::Cut if is_marked && is_produce => return Ok(()),
            Fault::KeepEnd if frame.starts_with(&END_TRANSACTION.to_be_bytes()) => {
                *course.fault.lock().unwrap_or_else(PoisonError::into_inner) = Fault::None;
                *course.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame);
                return Ok(());
            }
            Fault::AnswerAll(code) if is_produce => write_frame(answers, &refuse(&frame, code)?)?,
            _ => {
                server.write_all(&(frame.len() as u32).to_be_bytes())?;
                server.write_all(&frame)?;
            }
        }
    }
    Ok(())
}

fn code_after(rest: &[u8]) -> Option<i16> {
    let end = rest.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(rest.get(1..end)?).ok()?.parse().ok()
}

fn read_frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(to: &Mutex<TcpStream>, frame: &[u8]) -> io::Result<()> {
    let mut whole = (frame.len() as u32).to_be_bytes().to_vec();
    whole.extend_from_slice(frame);
    to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&whole)
}

/// The answer to a request for one partition, in the same version.
fn refuse(request: &[u8], code: i16) -> io::Result<Vec<u8>> {
    let mut fields = Fields(request);
    let (_key, version) = (fields.number::<2>()?, i16::from_be_bytes(fields.number()?));
    let correlation = fields.number::<4>()?;
    let client_bytes = i16::from_be_bytes(fields.number()?);
    fields.take(usize::try_from(client_bytes).unwrap_or(0))?;
    if version < FLEXIBLE {
        return Err(io::Error::other(format!("version {version} of a request to produce")));
    }
    fields.no_tags()?;
    let transaction_bytes = fields.length()?;
    fields.take(transaction_bytes.saturating_sub(1))?;
    let (_acks, _timeout) = (fields.number::<2>()?, fields.number::<4>()?);
    if fields.length()? != 2 {
        return Err(io::Error::other("a request for more than one topic"));
    }
    let name_bytes = fields.length()?.saturating_sub(1);
    let name = fields.take(name_bytes)?;
    if fields.length()? != 2 {
        return Err(io::Error::other("a request for more than one partition"));
    }
    let partition = fields.number::<4>()?;

    let mut answer = correlation.to_vec();
    answer.extend([0, 2, u8::try_from(name_bytes + 1).map_err(io::Error::other)?]);
    answer.extend_from_slice(name);
    answer.push(2);
    answer.extend(partition);
    answer.extend(code.to_be_bytes());
    // Offset, time of the log, and its begin: none.
    answer.extend([0xff; 24]);
    // No errors of records, no words, no tags of the partition and of the topic.
    answer.extend([1, 0, 0, 0]);
    // Not throttled, no tags.
    answer.extend([0, 0, 0, 0, 0]);
    Ok(answer)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const BYTES: usize>(&mut self) -> io::Result<[u8; BYTES]> {
        self.take(BYTES)?.try_into().map_err(io::Error::other)
    }

    /// Seven bits in each byte, the low ones first.
    fn length(&mut self) -> io::Result<usize> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let [byte] = self.number::<1>()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
    }

    fn no_tags(&mut self) -> io::Result<()> {
        match self.length()? {
            0 => Ok(()),
            count => Err(io::Error::other(format!("{count} tags"))),
        }
    }
}
