//! What an error of PostgreSQL means: the one place that knows SQLSTATEs.
//! A state with several causes is told apart by the routine that raised it, never by words: a server may
//! speak any language. Refusals of the driver's own are told apart in `driver`.
//!
//! Promises: one line of cause, one line of what to do, for everything an operator can meet; the
//! server's message and its SQLSTATE for everything else.
//! Must not: decide whether to try again; [`ErrorKind`] does.
//!
//! Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes".

use std::error::Error as StdError;
use std::io;

use tokio_postgres::error::SqlState;

use crate::error::{Error, ErrorKind};
use crate::postgres::driver::{DriverFault, is_lookup, is_read_only};
use crate::postgres::require_auth::RefusedAuth;

/// Turns an error of the driver into one of ours. `operation` completes "cannot …".
pub fn classify(operation: &str, error: tokio_postgres::Error) -> Error {
    worded(operation, explain(&error)).with_source(error)
}

/// Kind, cause, remedy.
pub(super) type Explanation = (ErrorKind, String, Option<&'static str>);

/// The error of an explanation. `operation` completes "cannot …".
pub(super) fn worded(operation: &str, (kind, cause, remedy): Explanation) -> Error {
    let error = Error::new(kind, format!("cannot {operation}: {cause}"));
    match remedy {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    }
}

fn explain(error: &tokio_postgres::Error) -> Explanation {
    if let Some(database) = error.as_db_error() {
        return explain_server(&ServerSaid {
            state: database.code().code(),
            routine: database.routine(),
            message: database.message(),
            detail: database.detail(),
            session: SessionPurpose::Statements,
        });
    }
    let fault = DriverFault::of(error);
    match fault {
        DriverFault::TlsNotOffered => return explain_missing_tls(),
        DriverFault::Handshake => return explain_handshake(with_sources(error), find_io(error)),
        // Its source may be an error of input, which no network has caused.
        DriverFault::Authentication => return explain_authentication(with_sources(error)),
        DriverFault::Settings
        | DriverFault::Protocol
        | DriverFault::Silence
        | DriverFault::Other => {}
    }
    if error.is_closed() {
        return explain_end();
    }
    if let Some(cause) = find_io(error) {
        return match cause.get_ref().and_then(|inner| inner.downcast_ref::<RefusedAuth>()) {
            Some(refused) => explain_method(refused),
            None => explain_io(cause),
        };
    }
    explain_driver(fault, with_sources(error))
}

/// The server, or something before it, has hung up.
pub(super) fn explain_end() -> Explanation {
    let remedy = "see the server's log for the reason; it was stopped, or the network cut";
    (ErrorKind::PostgresUnavailable, "the connection has ended".into(), Some(remedy))
}

/// We cannot prove who we are, or the server does not.
pub(super) fn explain_authentication(cause: String) -> Explanation {
    let remedy =
        "set the password by --database-password-file, in the URL, in PGPASSWORD or in ~/.pgpass";
    (ErrorKind::PostgresRefused, cause, Some(remedy))
}

/// The server asks who we are in a way that `require_auth` does not let through.
pub(super) fn explain_method(refused: &RefusedAuth) -> Explanation {
    (ErrorKind::PostgresRefused, refused.to_string(), Some(RefusedAuth::REMEDY))
}

/// Something else than PostgreSQL's protocol was spoken.
pub(super) fn explain_protocol(cause: String) -> Explanation {
    let remedy = "check that host and port are those of a PostgreSQL server, not of a proxy";
    (ErrorKind::PostgresRefused, cause, Some(remedy))
}

/// A refusal of the driver's own that came from no network.
fn explain_driver(fault: DriverFault, cause: String) -> Explanation {
    match fault {
        DriverFault::Settings => (ErrorKind::Config, cause, Some("correct --database-url")),
        DriverFault::Protocol => explain_protocol(cause),
        DriverFault::Silence => (
            ErrorKind::PostgresUnavailable,
            cause,
            Some("check that the server is up and the network lets you through"),
        ),
        DriverFault::Authentication
        | DriverFault::TlsNotOffered
        | DriverFault::Handshake
        | DriverFault::Other => (ErrorKind::Internal, cause, None),
    }
}

/// Whether encryption is what failed.
pub(super) fn is_about_encryption(error: &tokio_postgres::Error) -> bool {
    matches!(DriverFault::of(error), DriverFault::TlsNotOffered | DriverFault::Handshake)
}

/// Whether the server's `pg_hba.conf` has no line for this user, host and encryption.
pub(super) fn is_host_refusal(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// Whether the password is not, or not yet, or no more the right one.
pub(super) fn is_password_refusal(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_PASSWORD)
}

/// The server said no when it was asked for encryption.
pub(super) fn explain_missing_tls() -> Explanation {
    let remedy = "turn on ssl in the server, or accept an open connection with sslmode=prefer";
    (ErrorKind::PostgresRefused, "the server does not offer TLS".into(), Some(remedy))
}

/// A handshake was begun and failed: over the network, or over a certificate.
pub(super) fn explain_handshake(cause: String, error: Option<&io::Error>) -> Explanation {
    match error {
        Some(io) if !io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            (ErrorKind::PostgresUnavailable, cause, Some("check the network and the server's log"))
        }
        _ => (
            ErrorKind::PostgresRefused,
            cause,
            Some("check sslmode, sslrootcert, sslcert and sslkey against the server's certificate"),
        ),
    }
}

/// The operating system's error.
pub(super) fn explain_io(error: &io::Error) -> Explanation {
    let (cause, remedy) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "connection refused".to_owned(),
            "check host and port, and that PostgreSQL is running and listens there",
        ),
        io::ErrorKind::TimedOut => (
            "no answer in time".to_owned(),
            "check that the server is up and the network lets you through",
        ),
        io::ErrorKind::NotFound => (
            "there is no such socket".to_owned(),
            "check the socket folder in host, and that PostgreSQL is running",
        ),
        _ if is_read_only(error) => {
            let remedy = "connect to the primary; list all servers in the URL to find it";
            return (ErrorKind::Standby, error.to_string(), Some(remedy));
        }
        _ if is_lookup(error) => {
            (format!("the host's name is not known ({error})"), "check the host in the URL and DNS")
        }
        _ => (error.to_string(), "check the network and the server's log"),
    };
    (ErrorKind::PostgresUnavailable, cause, Some(remedy))
}

/// What the session is for, on which an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionPurpose {
    Statements,
    Replication,
}

/// The server's own error.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerSaid<'a> {
    pub(super) state: &'a str,
    /// The function of the server that raised it. Unlike the message it is never translated.
    pub(super) routine: Option<&'a str>,
    pub(super) message: &'a str,
    pub(super) detail: Option<&'a str>,
    pub(super) session: SessionPurpose,
}

/// The server's own error.
pub(super) fn explain_server(said: &ServerSaid<'_>) -> Explanation {
    let (kind, remedy) = judge(said.state, said.routine, said.session);
    let mut cause = format!("{} (SQLSTATE {})", said.message, said.state);
    if remedy.is_none()
        && let Some(detail) = said.detail
    {
        cause.push_str(": ");
        cause.push_str(&detail.replace('\n', " "));
    }
    (kind, cause, remedy)
}

const POOLER: &str =
    "connect to PostgreSQL itself: a connection pooler shares sessions, the relay needs its own";

/// The table: SQLSTATE → kind and remedy; where a state has several causes, with the routine.
fn judge(
    state: &str,
    routine: Option<&str>,
    session: SessionPurpose,
) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{PostgresRefused as Refused, PostgresUnavailable as Unavailable};
    let (kind, remedy) = match (state, routine) {
        ("28P01", _) => (
            Refused,
            "set the right password: --database-password-file, the URL, PGPASSWORD or ~/.pgpass",
        ),
        ("28000", _) => (Refused, "check the user, and that pg_hba.conf lets this host in with it"),
        ("3D000", _) => (Refused, "create the database, or correct its name in --database-url"),
        ("42501", Some("check_enable_rls")) => {
            (Refused, "turn row security off for that table, or give the role BYPASSRLS")
        }
        // `check_permissions` is that of PostgreSQL 14.
        ("42501", Some("InitPostgres" | "CheckSlotPermissions" | "check_permissions")) => {
            (Refused, "give the role the attribute: alter role … replication")
        }
        ("42501", _) => (Refused, "grant the role the rights listed in sql/roles.sql"),
        ("42P01", Some("exec_stmt_raise")) => (
            ErrorKind::Schema,
            "attach it again: alter table ... attach partition ... for values in (...); `postrider check` names what \
             is missing",
        ),
        ("42P01" | "3F000" | "42703", _) => (ErrorKind::Schema, "run `postrider migrate up`"),
        ("42P07", _) => {
            (ErrorKind::Schema, "choose another name with --outbox, or rename what is there")
        }
        // No migration makes one.
        ("42704", Some("get_publication_oid" | "AlterPublication")) => (
            ErrorKind::Schema,
            "find out who dropped the publication; a relay that may makes it again, else `postrider capture switch \
             wal` as the owner of the outbox",
        ),
        ("42704", Some("ReplicationSlotAcquire")) => {
            (Unavailable, "find out who dropped the replication slot; it is made again")
        }
        ("55000", Some("CheckLogicalDecodingRequirements")) => {
            (Refused, "set wal_level to logical, and start the server again")
        }
        ("53400", Some("ReplicationSlotCreate")) => {
            (Unavailable, "drop replication slots of no use, or raise max_replication_slots")
        }
        ("53300", Some("InitProcess" | "InitWalSenderSlot"))
            if session == SessionPurpose::Replication =>
        {
            (Unavailable, "end replication connections of no use, or raise max_wal_senders")
        }
        ("55P03", _) => {
            (Unavailable, "Another transaction holds a lock; end it, or try again later")
        }
        ("57P03", _) => (Unavailable, "wait until the server has started"),
        // Who reads of a slot that is given up is ended as by hand.
        ("57P01", _) if session == SessionPurpose::Replication => (
            Unavailable,
            "The server was stopped, the session ended by hand, or the slot lies further back than \
             max_slot_wal_keep_size: the next attempt tells",
        ),
        ("57P01" | "57P02", _) => {
            (Unavailable, "The server was stopped, or the session ended by hand")
        }
        ("53300", _) => {
            (Unavailable, "free connections, or raise max_connections or the role's limit")
        }
        // Before PostgreSQL 16 whoever logs in is not told why the file could not be written.
        ("53100", _) | ("XX000", Some("write_item" | "write_relcache_init_file")) => {
            (Unavailable, "free space on the server's disk")
        }
        // Asked how far its log is written, which a standby does not know.
        ("55000", Some("pg_current_wal_lsn" | "pg_current_wal_flush_lsn")) => {
            (ErrorKind::Standby, "the server is a standby: name the primary")
        }
        ("25006", _) => (ErrorKind::Standby, "connect to the primary, and let it accept writes"),
        ("26000" | "42P05", _) => (Refused, POOLER),
        // PostgreSQL's own errors always tell the routine.
        ("08P01", None) => (Refused, POOLER),
        _ => return (other(state), None),
    };
    (kind, Some(remedy))
}

/// What a new session may mend is worth another try; the rest is not.
fn other(state: &str) -> ErrorKind {
    let passes = ["08", "40", "53", "55", "57", "58"].iter().any(|class| state.starts_with(class));
    if passes || state == "XX000" {
        ErrorKind::PostgresUnavailable
    } else {
        ErrorKind::PostgresRefused
    }
}

/// Whether the server could not make or send a value, so that another row may be read all the same: class 22
/// (data), 54 (limits of the program), XX (damaged or unexpected). Not those that a moment or a person
/// causes, like 53 (resources) and 57 (intervention).
pub fn is_about_a_value(error: &tokio_postgres::Error) -> bool {
    let Some(database) = error.as_db_error() else { return false };
    names_a_value(database.code().code())
}

fn names_a_value(state: &str) -> bool {
    ["22", "54", "XX"].iter().any(|class| state.starts_with(class))
}

/// The error of a connection that something between us and the server has taken over.
pub(super) fn pooler(server: &str) -> Error {
    let cause = format!("cannot use {server}: a connection pooler stands before PostgreSQL");
    Error::new(ErrorKind::PostgresRefused, cause).with_remedy(POOLER)
}

fn find_io(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        source = cause.source();
    }
    None
}

/// The error and its sources on one line.
fn with_sources(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_kind() {
        use ErrorKind::{PostgresRefused as Refused, PostgresUnavailable as Unavailable, Schema};
        let table = [
            ("28P01", "auth_failed", Refused, "password"),
            ("28000", "ClientAuthentication", Refused, "pg_hba.conf"),
            ("3D000", "InitPostgres", Refused, "create"),
            ("42501", "aclcheck_error", Refused, "roles"),
            ("42501", "check_enable_rls", Refused, "BYPASSRLS"),
            ("42501", "InitPostgres", Refused, "attribute"),
            ("42501", "CheckSlotPermissions", Refused, "attribute"),
            ("42P01", "parserOpenTable", Schema, "migrate up"),
            ("42P01", "exec_stmt_raise", Schema, "attach"),
            ("3F000", "get_namespace_oid", Schema, "migrate up"),
            ("57P03", "ProcessStartupPacket", Unavailable, "wait"),
            ("57P01", "ProcessInterrupts", Unavailable, "stopped"),
            ("53300", "InitProcess", Unavailable, "max_connections"),
            ("53400", "ReplicationSlotCreate", Unavailable, "max_replication_slots"),
            ("42704", "get_publication_oid", Schema, "capture switch wal"),
            ("42704", "ReplicationSlotAcquire", Unavailable, "dropped"),
            ("55000", "CheckLogicalDecodingRequirements", Refused, "wal_level"),
            ("25006", "PreventCommandIfReadOnly", ErrorKind::Standby, "primary"),
            ("55000", "pg_current_wal_lsn", ErrorKind::Standby, "primary"),
            ("53100", "mdextend", Unavailable, "disk"),
            ("XX000", "write_item", Unavailable, "disk"),
            ("26000", "FetchPreparedStatement", Refused, "pooler"),
        ];
        for (state, routine, kind, word) in table {
            let (judged, remedy) = judge(state, Some(routine), SessionPurpose::Statements);
            assert_eq!(judged, kind, "{state}");
            assert!(remedy.unwrap().contains(word), "{state}: {remedy:?}");
        }
        let (_, remedy) = judge("53300", Some("InitProcess"), SessionPurpose::Replication);
        assert!(remedy.unwrap().contains("max_wal_senders"), "{remedy:?}");
        let (_, remedy) = judge("57P01", Some("ProcessInterrupts"), SessionPurpose::Replication);
        assert!(remedy.unwrap().contains("max_slot_wal_keep_size"), "{remedy:?}");
        let pooler = |routine| judge("08P01", routine, SessionPurpose::Statements);
        assert_eq!(pooler(None), (Refused, Some(POOLER)), "a pooler knows no routine");
        assert_eq!(pooler(Some("ProcessStartupPacket")), (Unavailable, None));
    }

    /// A server that speaks another language says the same.
    #[test]
    fn words_do_not_matter() {
        for message in ["Publikation »p« existiert nicht", "publication \"p\" does not exist"] {
            let said = ServerSaid {
                state: "42704",
                routine: Some("get_publication_oid"),
                message,
                detail: None,
                session: SessionPurpose::Replication,
            };
            let (kind, cause, remedy) = explain_server(&said);
            assert_eq!(kind, ErrorKind::Schema);
            assert!(remedy.is_some_and(|remedy| remedy.contains("publication")), "{remedy:?}");
            assert_eq!(cause, format!("{message} (SQLSTATE 42704)"));
        }
    }

    #[test]
    fn what_a_row_causes_is_told_from_what_a_moment_causes() {
        for state in ["22021", "22P05", "22P02", "54000", "XX000", "XX001"] {
            assert!(names_a_value(state), "{state}");
        }
        for state in ["57014", "57P01", "53200", "53100", "08006", "40P01", "42501", "2F005"] {
            assert!(!names_a_value(state), "{state}");
        }
    }

    #[test]
    fn the_rest_is_tried_again_only_where_a_new_session_may_mend_it() {
        let judge = |state| judge(state, Some("somewhere"), SessionPurpose::Statements);
        for state in ["08006", "40P01", "57014", "58030", "XX000", "53200", "55006"] {
            assert_eq!(judge(state), (ErrorKind::PostgresUnavailable, None), "{state}");
        }
        for state in ["22P02", "42883", "42704", "XX001", "0A000"] {
            assert_eq!(judge(state), (ErrorKind::PostgresRefused, None), "{state}");
        }
    }
}
