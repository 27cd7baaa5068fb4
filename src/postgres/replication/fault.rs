//! What goes wrong in a conversation of our own, told in the words of the driver's errors.
//!
//! Promises: the server's SQLSTATE and routine decide by the one table in `failure`; nothing is told twice.
//! Must not: know what was being done.

use std::io;

use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::SqlState;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::error::Error;
use crate::postgres::errors;
use crate::postgres::errors::{Explanation, ServerSaid, SessionPurpose};
use crate::postgres::require_auth::RefusedAuth;

/// Why a message was not had or not sent.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server says so.
    Server(ServerError),
    /// The operating system says so.
    Io(io::Error),
    /// The other side has hung up.
    Closed,
    /// The server has no encryption.
    TlsNotOffered,
    /// The handshake of TLS failed.
    Tls(io::Error),
    /// A password or a proof is missing or wrong, before the server could say so.
    Authentication(String),
    /// The server asks in a way that is not let through.
    Method(RefusedAuth),
    /// What came is not what PostgreSQL would send.
    Protocol(String),
    /// Our own settings or files; already in words.
    Ours(Error),
}

/// The parts of an ErrorResponse that are told.
#[derive(Debug)]
pub(super) struct ServerError {
    state: String,
    routine: Option<String>,
    message: String,
    detail: Option<String>,
}

/// `invalid_authorization_specification`: `pg_hba.conf` has no line for us.
const HOST_REFUSAL: &str = "28000";

impl Fault {
    /// The fault of an ErrorResponse.
    pub(super) fn from_fields(mut fields: ErrorFields<'_>) -> Self {
        let (mut state, mut message) = (String::new(), String::new());
        let (mut routine, mut detail) = (None, None);
        loop {
            match fields.next() {
                Ok(Some(field)) => {
                    let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
                    match field.type_() {
                        b'C' => state = value,
                        b'M' => message = value,
                        b'D' => detail = Some(value),
                        b'R' => routine = Some(value),
                        _ => {}
                    }
                }
                Ok(None) => {
                    return Self::Server(ServerError { state, routine, message, detail });
                }
                Err(cause) => return Self::Protocol(cause.to_string()),
            }
        }
    }

    /// Whether the password is not, or not yet, or no more the right one.
    pub(super) fn is_password_refusal(&self) -> bool {
        matches!(self, Self::Server(said) if said.state == SqlState::INVALID_PASSWORD.code())
    }

    /// Whether another kind of encryption may be let in.
    pub(super) fn asks_for_other_encryption(&self) -> bool {
        match self {
            Self::Tls(_) | Self::TlsNotOffered => true,
            Self::Server(said) => said.state == HOST_REFUSAL,
            _ => false,
        }
    }

    /// The error, where `operation` completes "cannot …".
    pub(super) fn during(self, operation: &str) -> Error {
        let (explanation, source) = match self {
            Self::Server(said) => {
                let said = ServerSaid {
                    state: &said.state,
                    routine: said.routine.as_deref(),
                    message: &said.message,
                    detail: said.detail.as_deref(),
                    session: SessionPurpose::Replication,
                };
                (errors::explain_server(&said), None)
            }
            Self::Io(cause) => (errors::explain_io(&cause), Some(cause)),
            Self::Closed => (errors::explain_end(), None),
            Self::TlsNotOffered => (errors::explain_missing_tls(), None),
            Self::Tls(cause) => (handshake(&cause), Some(cause)),
            Self::Authentication(cause) => (errors::explain_authentication(cause), None),
            Self::Method(refused) => (errors::explain_method(&refused), None),
            Self::Protocol(cause) => (errors::explain_protocol(cause), None),
            Self::Ours(error) => return error,
        };
        let error = errors::worded(operation, explanation);
        match source {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

fn handshake(cause: &io::Error) -> Explanation {
    errors::explain_handshake(format!("error performing TLS handshake: {cause}"), Some(cause))
}

impl From<RefusedAuth> for Fault {
    fn from(refused: RefusedAuth) -> Self {
        Self::Method(refused)
    }
}

impl From<io::Error> for Fault {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}
