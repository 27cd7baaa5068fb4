//! What is thrown at the bytes of a server and at connection strings.
//!
//! Promises: as `crate::fuzz` says. Must not: be a part of what is built to run. Fails: by a panic, when a rule
//! does not hold.

use crate::postgres::connection_string::ConnectionString;
pub use crate::postgres::replication::fuzz::inbox;

/// What stands for a password in the corpus.
const SECRET: &str = "S3cret";

/// A connection string: whatever is wrong with it, the password in it is not shown.
pub fn connection_string(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let split = ConnectionString::split(text);
    match split {
        Ok(split) => {
            for name in ["host", "port", "dbname", "user", "password"] {
                assert_ne!(split.get(name), Some(""), "an empty value is none");
            }
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(SECRET), "the password is shown: {shown}");
        }
    }
}
