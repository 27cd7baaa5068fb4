//! What the log brings, and always will, in a form that cannot be used: how a table looked when a row was written stands
//! in the log, whatever the table looks like now.
//!
//! Promises: it is told apart from what passes when the stream begins anew, and from a table that is wrong now. Must
//! not: know a connection.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::outbox::OutboxName;

/// The form was that of a table at this place of the log.
#[derive(Debug)]
struct Misformed {
    /// What whoever has such a table now is told.
    error: Error,
    /// The adopted table; none for the outbox.
    adopted: Option<OutboxName>,
}

impl fmt::Display for Misformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl std::error::Error for Misformed {}

/// Values of the stream come in a form of which only the server knows the text.
#[derive(Debug)]
struct Unprinted;

impl fmt::Display for Unprinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the value is not printed")
    }
}

impl std::error::Error for Unprinted {}

/// A row, or a table, that is not of the form that is read.
pub fn misformed(error: Error, adopted: Option<&OutboxName>) -> Error {
    if error.kind() != ErrorKind::Schema {
        return error;
    }
    let cause =
        format!("the log brings rows in a form that their table has no more: {}", error.message());
    Error::new(ErrorKind::SlotUnusable, cause)
        .with_remedy("nothing, unless the next lines name something: the table is looked at")
        .with_source(Misformed { error, adopted: adopted.cloned() })
}

/// A column's type was changed while the log was read.
pub fn unprinted(cause: String) -> Error {
    Error::new(ErrorKind::SlotUnusable, cause)
        .with_remedy("nothing: the stream begins anew, with printed values")
        .with_source(Unprinted)
}

fn source<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// Whether a stream that begins at the same place would end so, too.
pub fn is_misformed(error: &Error) -> bool {
    source::<Misformed>(error).is_some()
}

/// Whether a stream of printed values would go on.
pub fn is_unprinted(error: &Error) -> bool {
    source::<Unprinted>(error).is_some()
}

/// The adopted table whose rows are not of its form.
pub fn misformed_table(error: &Error) -> Option<&OutboxName> {
    source::<Misformed>(error)?.adopted.as_ref()
}

/// What is told where the table is not as it should be now.
pub fn as_table_is(error: &Error) -> Option<Error> {
    let Misformed { error, .. } = source(error)?;
    let told = Error::new(error.kind(), error.message());
    Some(match error.remedy() {
        Some(remedy) => told.with_remedy(remedy),
        None => told,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_will_always_bring_is_told_apart() {
        let gone = || Error::new(ErrorKind::Schema, "no column").with_remedy("restore it");
        let table = OutboxName::default();
        let error = misformed(gone(), Some(&table));
        assert_eq!(error.kind(), ErrorKind::SlotUnusable, "it is tried again");
        assert!(is_misformed(&error) && !is_unprinted(&error));
        assert_eq!(misformed_table(&error), Some(&table));
        assert_eq!(misformed_table(&misformed(gone(), None)), None);
        let now = as_table_is(&error).expect("it is known");
        assert_eq!((now.kind(), now.remedy()), (ErrorKind::Schema, Some("restore it")));
        assert!(is_unprinted(&unprinted("a number".to_owned())));
    }

    #[test]
    fn what_may_pass_is_none_of_it() {
        for kind in [ErrorKind::SlotUnusable, ErrorKind::PostgresUnavailable] {
            let error = misformed(Error::new(kind, "again"), None);
            assert!(!is_misformed(&error) && as_table_is(&error).is_none());
            assert_eq!((error.kind(), error.message()), (kind, "again"));
        }
    }
}
