//! The user and the password with which all clients of a relay log in to Kafka (PLAIN, SCRAM), from files that change.
//!
//! Promises: what the files say is shown at each connection that is opened a second after it was written, and at
//! once after a broker refused what was there before. A file that is away or empty for a while changes nothing.
//! Must not: show a password; know properties beyond these two. Fails: when no thread can be started; later a file
//! that says nothing is warned of.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rdkafka::config::ClientConfig;

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::producer::WARNING_PAUSE;
use crate::publish::kafka::roll::{Credential, LogsIn, Roll};
use crate::secret;
use crate::throttle::Repeats;

/// Between two looks at the files.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

const USERNAME: &str = "sasl.username";
const PASSWORD: &str = "sasl.password";

/// The files that hold what clients log in with; none where the value is fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFiles {
    username: Option<PathBuf>,
    password: Option<PathBuf>,
}

impl LoginFiles {
    /// The property is read from this file, or from none any more. Others than these two are read once.
    pub fn note(&mut self, property: &str, file: Option<&Path>) {
        let place = match property {
            USERNAME => &mut self.username,
            PASSWORD => &mut self.password,
            _ => return,
        };
        *place = file.map(Path::to_owned);
    }

    /// Whether nothing can change.
    pub(super) fn is_empty(&self) -> bool {
        self.username.is_none() && self.password.is_none()
    }
}

/// What a client logs in with.
#[derive(Clone, PartialEq, Eq)]
struct PasswordLogin {
    username: String,
    password: String,
}

impl std::fmt::Debug for PasswordLogin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login(***)")
    }
}

impl PasswordLogin {
    fn lend(&self) -> Credential<'_> {
        let (username, password) = (self.username.as_str(), self.password.as_str());
        Credential::Password(postrider_token::Password { username, password })
    }
}

struct PasswordState {
    login: PasswordLogin,
    clients: Roll,
}

struct SharedPassword {
    files: LoginFiles,
    state: Mutex<PasswordState>,
    warnings: Repeats<Instant, Duration>,
}

/// Keeps what all clients log in with as the files say. Its thread ends with it.
pub(super) struct Passwords {
    shared: Arc<SharedPassword>,
    /// Wakes the thread that looks; none before the first client.
    doubts: Mutex<Option<Sender<()>>>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Passwords").field(&self.shared.files).finish()
    }
}

impl Passwords {
    /// The properties hold what was read at the start. Looks at nothing yet.
    pub(super) fn new(files: LoginFiles, properties: &ClientConfig) -> Self {
        let value = |name| properties.get(name).unwrap_or_default().to_owned();
        let login = PasswordLogin { username: value(USERNAME), password: value(PASSWORD) };
        let state = Mutex::new(PasswordState { login, clients: Roll::default() });
        let shared = SharedPassword { files, state, warnings: Repeats::new(WARNING_PAUSE) };
        Self { shared: Arc::new(shared), doubts: Mutex::default() }
    }

    /// Makes a client that logs in as the files say, and goes on to do so.
    pub(super) fn attend<T: LogsIn + 'static>(
        &self,
        properties: &ClientConfig,
        make: impl FnOnce(&ClientConfig) -> Result<T>,
    ) -> Result<Arc<T>> {
        self.start()?;
        let mut properties = properties.clone();
        // Made under the lock: what changes meanwhile is told to this client, too.
        let mut state = self.shared.state();
        properties.set(USERNAME, &state.login.username).set(PASSWORD, &state.login.password);
        let client = Arc::new(make(&properties)?);
        state.clients.note(&client);
        Ok(client)
    }

    /// A broker refused what was shown.
    pub(super) fn doubt(&self) {
        let doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(doubts) = &*doubts
            && doubts.try_send(()).is_err()
        {
            tracing::trace!("the files are looked at already");
        }
    }

    /// Starts the thread with the first client.
    fn start(&self) -> Result<()> {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.is_some() {
            return Ok(());
        }
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("kafka-passwords".to_owned())
            .spawn(move || shared.follow(&receiver))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to read passwords: {cause}"))
            })?;
        *doubts = Some(sender);
        Ok(())
    }
}

impl SharedPassword {
    fn state(&self) -> MutexGuard<'_, PasswordState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until nobody logs in any more.
    fn follow(&self, doubts: &Receiver<()>) {
        loop {
            match doubts.recv_timeout(LOOK_PAUSE) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(()) | Err(RecvTimeoutError::Timeout) => self.look(),
            }
        }
    }

    /// Hands on what has changed.
    fn look(&self) {
        let mut login = self.state().login.clone();
        self.read(self.files.username.as_deref(), &mut login.username);
        self.read(self.files.password.as_deref(), &mut login.password);
        let clients = {
            let mut state = self.state();
            if state.login == login {
                return;
            }
            state.login = login.clone();
            state.clients.present()
        };
        tracing::info!("what Kafka is logged in to with has changed; new connections show it");
        for client in clients {
            if let Err(cause) = client.log_in(login.lend()) {
                self.warn(&format!("librdkafka does not take what a file says: {cause}"));
            }
        }
    }

    /// A file that is being replaced may be away or empty.
    fn read(&self, file: Option<&Path>, value: &mut String) {
        let Some(file) = file else { return };
        match secret::read_value(file) {
            Ok(text) if text.is_empty() => self.warn(&format!("{} is empty", file.display())),
            Ok(text) => *value = text,
            Err(cause) => self.warn(&format!("{} cannot be read: {cause}", file.display())),
        }
    }

    fn warn(&self, cause: &str) {
        if let Some(unsaid) = self.warnings.note(cause, Instant::now()) {
            let remedy = "write the file anew, readable by this user; what it said before is used";
            tracing::warn!(cause, remedy, unsaid, "no new login for Kafka");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that notes what it is given, beginning with what it was made with.
    struct Book(Mutex<Vec<String>>);

    impl Book {
        fn made(properties: &ClientConfig) -> Result<Self> {
            let value = |name| properties.get(name).expect("it is set");
            let first = format!("{}/{}", value(USERNAME), value(PASSWORD));
            Ok(Self(Mutex::new(vec![first])))
        }

        fn has(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    impl LogsIn for Book {
        fn log_in(&self, credential: Credential<'_>) -> std::result::Result<(), String> {
            let Credential::Password(login) = credential else { return Err("a token".to_owned()) };
            self.0.lock().unwrap().push(format!("{}/{}", login.username, login.password));
            Ok(())
        }
    }

    fn wait_for(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Files of both, and the properties as they were read at the start.
    fn scene(name: &str) -> (Passwords, ClientConfig, PathBuf) {
        let folder = std::env::temp_dir().join(format!("postrider-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut files = LoginFiles::default();
        for (property, file, text) in [(USERNAME, "user", "u0\n"), (PASSWORD, "word", "p0\n")] {
            std::fs::write(folder.join(file), text).unwrap();
            files.note(property, Some(&folder.join(file)));
        }
        let mut properties = ClientConfig::new();
        properties.set(USERNAME, "u0").set(PASSWORD, "p0");
        (Passwords::new(files, &properties), properties, folder)
    }

    #[test]
    fn all_clients_are_told_of_what_changes_in_either_file() {
        let (passwords, properties, folder) = scene("passwords");
        let one = passwords.attend(&properties, Book::made).unwrap();
        let other = passwords.attend(&properties, Book::made).unwrap();
        std::fs::write(folder.join("word"), "p1\r\n").unwrap();
        wait_for("the password is told", || other.has().len() > 1);
        assert_eq!(other.has(), ["u0/p0", "u0/p1"]);
        drop(one);
        let late = passwords.attend(&properties, Book::made).unwrap();
        assert_eq!(late.has(), ["u0/p1"], "not what the properties say");
        std::fs::write(folder.join("user"), "u1").unwrap();
        passwords.doubt();
        wait_for("the user is told", || other.has().len() > 2 && late.has().len() > 1);
        assert_eq!((other.has()[2].as_str(), late.has()[1].as_str()), ("u1/p1", "u1/p1"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_says_nothing_changes_nothing() {
        let (passwords, properties, folder) = scene("silent-passwords");
        // Without the thread: this test looks itself.
        let client = Arc::new(Book::made(&properties).unwrap());
        passwords.shared.state().clients.note(&client);
        std::fs::write(folder.join("word"), "\n").unwrap();
        passwords.shared.look();
        std::fs::remove_file(folder.join("word")).unwrap();
        passwords.shared.look();
        std::fs::write(folder.join("word"), [0xff, 0xfe]).unwrap();
        passwords.shared.look();
        assert_eq!(client.has(), ["u0/p0"]);
        std::fs::write(folder.join("word"), "p1").unwrap();
        passwords.shared.look();
        assert_eq!(client.has(), ["u0/p0", "u0/p1"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_thread_ends_with_its_owner_and_nothing_shows_a_password() {
        let (passwords, properties, folder) = scene("ending-passwords");
        let _client = passwords.attend(&properties, Book::made).unwrap();
        let said = format!("{passwords:?} {:?}", passwords.shared.state().login);
        assert!(!said.contains("p0"), "{said}");
        let shared = Arc::downgrade(&passwords.shared);
        drop(passwords);
        wait_for("nobody has it", || shared.strong_count() == 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
