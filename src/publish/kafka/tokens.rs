//! The tokens with which all clients of a relay log in to Kafka (OAUTHBEARER), from a program of the operator's.
//!
//! Promises: every client that is made has a token before it connects, and the next one long before that one
//! ends; one run of the program serves all. A program that fails after its first token is run again, and the old
//! token is used as long as it holds. Must not: keep a token that was replaced; show one.
//! Fails: with [`ErrorKind::Config`] when no first token is had; later with [`ErrorKind::KafkaUnavailable`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::producer::WARNING_PAUSE;
use crate::publish::kafka::roll::{Credential, LogsIn, Roll};
use crate::secret::{Purpose, SecretCommand};
use crate::throttle::Repeats;

/// What the program is for.
pub const COMMAND: Purpose = Purpose {
    flag: "--kafka-token-command",
    name: "token command",
    writes: "it writes {\"token\": \"…\", \"expires_at_ms\": …}, and may add principal and extensions",
};

/// A token is replaced when so much of its life is over. librdkafka would ask at 8 of 10.
const RENEWAL: (u32, u32) = (3, 4);
/// Between two runs, whatever a token says of its life.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// After a run that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// A broker that refuses a token which should hold has another one made, but not more often than this.
const DOUBT_PAUSE: Duration = Duration::from_secs(5);
/// Where a token says that it holds for ever, it is replaced once a day.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What the program writes.
#[derive(Clone, PartialEq, Eq)]
struct WrittenToken {
    value: String,
    expires_at_millis: i64,
    principal: String,
    extensions: Vec<(String, String)>,
}

impl std::fmt::Debug for WrittenToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Token(expires at {} ms)", self.expires_at_millis)
    }
}

impl WrittenToken {
    /// # Errors
    /// What the program wrote instead, without quoting it.
    fn parse(text: &str, now_millis: i64) -> std::result::Result<Self, String> {
        let said: serde_json::Value =
            serde_json::from_str(text).map_err(|_| "did not write JSON".to_owned())?;
        let text = |name: &str| match said.get(name) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("wrote a {name} that is no text")),
        };
        let value = text("token")?.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| "wrote no token".to_owned())?;
        let expires_at_millis = said.get("expires_at_ms").and_then(serde_json::Value::as_i64);
        let expires_at_millis = expires_at_millis.ok_or_else(|| {
            "wrote no expires_at_ms, a whole number of milliseconds since 1970".to_owned()
        })?;
        if expires_at_millis <= now_millis {
            let late = (now_millis - expires_at_millis) / 1_000;
            let hint = "the unit is milliseconds; or a clock is wrong";
            return Err(format!("wrote a token that expired {late} s ago ({hint})"));
        }
        let principal = text("principal")?.unwrap_or_default();
        Ok(Self { value, expires_at_millis, principal, extensions: extensions(&said)? })
    }

    fn life(&self, now_millis: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.expires_at_millis - now_millis).unwrap_or(0))
    }

    fn lend(&self) -> Credential<'_> {
        Credential::Token(postrider_token::Token {
            value: &self.value,
            expires_at_millis: self.expires_at_millis,
            principal: &self.principal,
            extensions: &self.extensions,
        })
    }
}

fn extensions(said: &serde_json::Value) -> std::result::Result<Vec<(String, String)>, String> {
    let wrong = || "wrote extensions that are no object of texts".to_owned();
    match said.get("extensions") {
        None | Some(serde_json::Value::Null) => Ok(Vec::new()),
        Some(serde_json::Value::Object(found)) => found
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// The token of the moment, and who has it.
#[derive(Default)]
struct TokenState {
    token: Option<WrittenToken>,
    clients: Roll,
    /// Why the last run gave none.
    trouble: Option<String>,
}

struct SharedToken {
    command: SecretCommand,
    state: Mutex<TokenState>,
    warnings: Repeats<Instant, Duration>,
}

/// Keeps all clients logged in. Its thread ends with it.
pub(super) struct Tokens {
    shared: Arc<SharedToken>,
    /// Wakes the thread that renews; none before the first token.
    doubts: Mutex<Option<Sender<()>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Tokens").field(&self.shared.command).finish()
    }
}

impl Tokens {
    /// Asks for nothing yet.
    pub(super) fn new(command: SecretCommand) -> Self {
        let (state, warnings) = (Mutex::default(), Repeats::new(WARNING_PAUSE));
        let shared = Arc::new(SharedToken { command, state, warnings });
        Self { shared, doubts: Mutex::default() }
    }

    /// Gives a new client the token, and each one that follows. Blocks while the program runs for the first time.
    pub(super) fn attend<T: LogsIn + 'static>(&self, client: &Arc<T>) -> Result<()> {
        let mut state = self.shared.state();
        if state.token.is_none() {
            state.token = Some(self.shared.ask()?);
            self.start()?;
        }
        let token = state.token.as_ref().expect("it is there now");
        if let Err(cause) = client.log_in(token.lend()) {
            return Err(self.shared.refused(&cause, state.trouble.as_deref()));
        }
        state.clients.note(client);
        Ok(())
    }

    /// A broker refused the token.
    pub(super) fn doubt(&self) {
        let doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(doubts) = &*doubts
            && doubts.try_send(()).is_err()
        {
            tracing::trace!("a token is asked for already");
        }
    }

    fn start(&self) -> Result<()> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("kafka-tokens".to_owned())
            .spawn(move || shared.renew(&receiver))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to renew tokens: {cause}"))
            })?;
        *self.doubts.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(())
    }
}

impl SharedToken {
    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> Result<WrittenToken> {
        WrittenToken::parse(&self.command.run()?, now_millis())
            .map_err(|cause| self.command.failed(&cause))
    }

    /// The token that there is does not do.
    fn refused(&self, cause: &str, trouble: Option<&str>) -> Error {
        match trouble {
            Some(trouble) => {
                let cause =
                    format!("the token for Kafka has ended, and there is no other: {trouble}");
                Error::new(ErrorKind::KafkaUnavailable, cause)
                    .with_remedy(format!("run the {} by hand as this user", COMMAND.name))
            }
            None => self.command.failed(&format!("wrote a token that cannot be used: {cause}")),
        }
    }

    /// Until nobody needs tokens any more.
    fn renew(&self, doubts: &Receiver<()>) {
        let mut asked = Instant::now();
        let mut due = asked + self.next_pause();
        loop {
            match doubts.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(()) => due = due.min(asked + DOUBT_PAUSE),
                Err(RecvTimeoutError::Timeout) => {
                    asked = Instant::now();
                    due = Instant::now() + self.ask_again();
                }
            }
        }
    }

    /// One more run: how long it is until the next.
    fn ask_again(&self) -> Duration {
        match self.ask() {
            Ok(token) => {
                self.hand_out(token);
                self.next_pause()
            }
            Err(error) => {
                self.warn(error.message());
                self.state().trouble = Some(error.message().to_owned());
                RETRY_PAUSE
            }
        }
    }

    fn hand_out(&self, token: WrittenToken) {
        // Not under the lock: a client that was dropped meanwhile ends here, which takes its time.
        let clients: Vec<Arc<dyn LogsIn>> = {
            let mut state = self.state();
            (state.token, state.trouble) = (Some(token.clone()), None);
            state.clients.present()
        };
        for client in clients {
            if let Err(cause) = client.log_in(token.lend()) {
                self.warn(&format!("librdkafka does not take the new token: {cause}"));
            }
        }
    }

    fn next_pause(&self) -> Duration {
        let life =
            self.state().token.as_ref().map_or(RETRY_PAUSE, |token| token.life(now_millis()));
        (life * RENEWAL.0 / RENEWAL.1).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    fn warn(&self, cause: &str) {
        if let Some(unsaid) = self.warnings.note(cause, Instant::now()) {
            let remedy = format!("run the {} by hand as this user", COMMAND.name);
            tracing::warn!(cause, remedy, unsaid, "no new token for Kafka; it is asked for again");
        }
    }
}

fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    #[test]
    fn a_token_is_read_with_all_that_belongs_to_it() {
        let token = WrittenToken::parse(
            " {\"token\": \"a.b.c\",\n \"expires_at_ms\": 1060000, \"principal\": \"us\",
               \"extensions\": {\"logicalCluster\": \"lkc-1\"}, \"scope\": 1}\n",
            NOW,
        )
        .unwrap();
        assert_eq!((token.value.as_str(), token.principal.as_str()), ("a.b.c", "us"));
        assert_eq!(token.extensions, [("logicalCluster".to_owned(), "lkc-1".to_owned())]);
        assert_eq!(token.life(NOW), Duration::from_secs(60));
        let least =
            WrittenToken::parse("{\"token\":\"x\",\"expires_at_ms\":1000001}", NOW).unwrap();
        assert_eq!((least.principal, least.extensions), (String::new(), Vec::new()));
    }

    #[test]
    fn what_is_no_token_is_told_and_not_shown() {
        for (text, word) in [
            ("hush", "did not write JSON"),
            ("", "did not write JSON"),
            ("[\"hush\"]", "no token"),
            ("{\"access_token\":\"hush\"}", "no token"),
            ("{\"token\":\"\",\"expires_at_ms\":2000000}", "no token"),
            ("{\"token\":7,\"expires_at_ms\":2000000}", "a token that is no text"),
            ("{\"token\":\"hush\"}", "no expires_at_ms"),
            ("{\"token\":\"hush\",\"expires_at_ms\":\"2000000\"}", "no expires_at_ms"),
            ("{\"token\":\"hush\",\"expires_at_ms\":2000000.5}", "no expires_at_ms"),
            ("{\"token\":\"hush\",\"expires_at_ms\":1000}", "expired 999 s ago"),
            ("{\"token\":\"hush\",\"expires_at_ms\":2000000,\"principal\":[]}", "principal"),
            (
                "{\"token\":\"hush\",\"expires_at_ms\":2000000,\"extensions\":\"hush\"}",
                "extensions",
            ),
            (
                "{\"token\":\"hush\",\"expires_at_ms\":2000000,\"extensions\":{\"a\":1}}",
                "extensions",
            ),
        ] {
            let said = WrittenToken::parse(text, NOW).unwrap_err();
            assert!(said.contains(word) && !said.contains("hush"), "{text}: {said}");
        }
    }

    /// A client that notes what it is given.
    #[derive(Default)]
    struct Book(Mutex<Vec<String>>);

    impl Book {
        fn has(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    impl LogsIn for Book {
        fn log_in(&self, credential: Credential<'_>) -> std::result::Result<(), String> {
            let Credential::Token(token) = credential else { return Err("a password".to_owned()) };
            if token.expires_at_millis <= now_millis() {
                return Err("an unexpired one".to_owned());
            }
            self.0.lock().unwrap().push(token.value.to_owned());
            Ok(())
        }
    }

    /// Writes `t0`, `t1` and so on, each for so many milliseconds; fails while there is a file.
    fn program(name: &str, life_millis: u32) -> (Tokens, std::path::PathBuf) {
        let folder = std::env::temp_dir().join(format!("postrider-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!(
            "cd '{}'; test -e broken && exit 7; n=$(ls n* 2>/dev/null | wc -l); touch n$n
             echo \"{{\\\"token\\\":\\\"t$n\\\",\\\"expires_at_ms\\\":$(( $(date +%s%3N) + {life_millis} ))}}\"",
            folder.display()
        );
        let typed = shlex::try_join(["sh", "-c", script.as_str()]).unwrap();
        (Tokens::new(SecretCommand::parse(COMMAND, &typed).unwrap()), folder)
    }

    fn wait_for(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn all_clients_have_one_token_and_then_the_next() {
        let (tokens, folder) = program("tokens", 2_000);
        let (one, other) = (Arc::new(Book::default()), Arc::new(Book::default()));
        tokens.attend(&one).unwrap();
        tokens.attend(&other).unwrap();
        assert_eq!((one.has(), other.has()), (vec!["t0".to_owned()], vec!["t0".to_owned()]));
        drop(one);
        wait_for("it is renewed", || other.has().len() > 1);
        assert_eq!(other.has()[1], "t1");
        tokens.doubt();
        wait_for("it is renewed again", || other.has().len() > 2);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_program_that_fails_is_final_at_first_and_an_outage_later() {
        let (tokens, folder) = program("broken-tokens", 700);
        let (client, broken) = (Arc::new(Book::default()), folder.join("broken"));
        std::fs::write(&broken, "").unwrap();
        let error = tokens.attend(&client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("token command sh failed: exit status: 7"), "{error}");
        assert!(error.remedy().unwrap().contains("expires_at_ms"), "{error}");
        std::fs::remove_file(&broken).unwrap();
        tokens.attend(&client).unwrap();
        std::fs::write(&broken, "").unwrap();
        wait_for("the last token ends", || tokens.attend(&Arc::new(Book::default())).is_err());
        let error = tokens.attend(&client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KafkaUnavailable);
        assert!(error.message().contains("exit status: 7"), "{error}");
        std::fs::remove_file(&broken).unwrap();
        wait_for("it works again", || tokens.attend(&Arc::new(Book::default())).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let (tokens, folder) = program("ending-tokens", 60_000);
        tokens.attend(&Arc::new(Book::default())).unwrap();
        let shared = Arc::downgrade(&tokens.shared);
        drop(tokens);
        wait_for("nobody has it", || shared.strong_count() == 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
