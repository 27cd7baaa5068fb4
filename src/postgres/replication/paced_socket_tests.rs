//! Sockets of this machine: bytes stay whole and in order, and nobody waits for long.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::postgres::replication::paced_socket::*;

const PATIENCE: Duration = Duration::from_secs(20);
const MESSAGE_BYTES: usize = 350;

async fn pair() -> (TcpStream, PacedTcp) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    server.set_nodelay(true).unwrap();
    let mut paced = PacedTcp::new(ours);
    paced.pace();
    (server, paced)
}

async fn read_all(paced: &mut PacedTcp) -> (Vec<u8>, u32) {
    let (mut bytes, mut reads) = (Vec::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = timeout(PATIENCE, paced.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            return (bytes, reads);
        }
        bytes.extend_from_slice(&buffer[..read]);
        reads += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_in_few_reads_whole_and_in_order() {
    const MESSAGES: u32 = 30_000;
    let (mut server, mut paced) = pair().await;
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let mut message = [7; MESSAGE_BYTES];
            message[..4].copy_from_slice(&number.to_be_bytes());
            server.write_all(&message).await.unwrap();
        }
    });
    let (bytes, reads) = read_all(&mut paced).await;
    sending.await.unwrap();
    let numbers = bytes.chunks(MESSAGE_BYTES).map(|message| *message.first_chunk().unwrap());
    assert!(numbers.map(u32::from_be_bytes).eq(0..MESSAGES), "{} bytes", bytes.len());
    assert!(reads < MESSAGES / 20, "{reads} reads for {MESSAGES} messages");
}

#[tokio::test]
async fn what_comes_after_a_silence_is_read_at_once() {
    let (mut server, mut paced) = pair().await;
    for silence in [Duration::ZERO, PAUSE * (EMPTY_PAUSES_MAX + 20)] {
        let answer = async {
            tokio::time::sleep(silence).await;
            server.write_all(b"x").await.unwrap();
            Instant::now()
        };
        let mut byte = [0];
        let reading = timeout(PATIENCE, paced.read_exact(&mut byte));
        let (sent, read) = tokio::join!(answer, reading);
        read.unwrap().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(1), "after {silence:?}");
        assert_eq!(byte, *b"x");
    }
    assert!(matches!(paced.socket, Some(Socket::Unwatched(_))), "a byte has come");
    assert!(timeout(PAUSE * (EMPTY_PAUSES_MAX + 20), paced.read(&mut [0])).await.is_err());
    assert!(matches!(paced.socket, Some(Socket::Watched(_))), "it is quiet, and still not watched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_that_lies_unread_holds_up_neither_side() {
    const MESSAGES: usize = 3_000;
    const WORDS: usize = 8;
    let (server, mut paced) = pair().await;
    let (mut hears, mut says) = server.into_split();
    let saying = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            says.write_all(&[7; MESSAGE_BYTES]).await.unwrap();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    });
    let hearing = tokio::spawn(async move {
        let heard = hears.read_exact(&mut [0; WORDS]).await;
        heard.map(|_| Instant::now())
    });
    for _ in 0..WORDS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        paced.write_all(b"r").await.unwrap();
    }
    let said = Instant::now();
    let heard = timeout(PATIENCE, hearing).await.unwrap().unwrap().unwrap();
    assert!(heard.saturating_duration_since(said) < Duration::from_secs(1), "it heard us late");
    let mut rest = vec![0; MESSAGES * MESSAGE_BYTES];
    timeout(PATIENCE, paced.read_exact(&mut rest)).await.unwrap().unwrap();
    assert!(said.elapsed() < Duration::from_secs(2), "what lay unread came late");
    saying.await.unwrap();
}
