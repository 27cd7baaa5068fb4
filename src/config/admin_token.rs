//! The token of those who may steer a running instance.
//!
//! Promises: it is read anew each time, so that it can be changed while the relay runs; how long a comparison takes says
//! nothing of it. Must not: keep or show it. Fails: with [`ErrorKind::Config`] for a file that cannot be read, or a token
//! that can be guessed.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::secret;

/// Fewer can be tried out.
const CHARACTERS_MIN: usize = 16;

/// The file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken(PathBuf);

/// Whether somebody has shown the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// It is the token.
    Right,
    /// It is another one.
    Wrong,
}

impl AdminToken {
    /// The token in this file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot be read, or is too short.
    pub fn open(file: PathBuf) -> Result<Self> {
        let token = Self(file);
        token.read().map(|_| token)
    }

    /// Whether this is the token of the moment.
    ///
    /// # Errors
    /// As [`AdminToken::open`].
    pub fn judge(&self, shown: &str) -> Result<TokenVerdict> {
        // Of digests, however alike the texts are, nobody can choose how many bytes are the same.
        let (known, shown) = (Sha256::digest(self.read()?), Sha256::digest(shown));
        let differences = known.iter().zip(&shown).fold(0, |all, (one, other)| all | (one ^ other));
        Ok(if differences == 0 { TokenVerdict::Right } else { TokenVerdict::Wrong })
    }

    fn read(&self) -> Result<String> {
        let file = self.0.display();
        let token = secret::read_value(&self.0).map_err(|cause| {
            let cause = format!("the file {file} cannot be read: {cause}");
            Error::new(ErrorKind::Config, cause)
                .with_remedy("check --admin-token-file and the file's permissions")
        })?;
        let length = token.trim().chars().count();
        if length < CHARACTERS_MIN {
            let cause = format!("the token in {file} has {length} characters, and can be guessed");
            return Err(Error::new(ErrorKind::Config, cause).with_remedy(format!(
                "give it {CHARACTERS_MIN} or more, as `openssl rand -hex 32` does"
            )));
        }
        Ok(token.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> PathBuf {
        let file =
            std::env::temp_dir().join(format!("postrider-token-{name}-{}", std::process::id()));
        std::fs::write(&file, text).expect("it can be written");
        file
    }

    #[test]
    fn the_token_of_the_moment_counts() {
        let file = written("change", "first-0123456789abcdef\n");
        let token = AdminToken::open(file.clone()).expect("it is one");
        assert_eq!(token.judge("first-0123456789abcdef").expect("it is read"), TokenVerdict::Right);
        for wrong in
            ["", "first-0123456789abcde", "first-0123456789abcdef0", "second-0123456789abc"]
        {
            assert_eq!(token.judge(wrong).expect("it is read"), TokenVerdict::Wrong, "{wrong}");
        }
        std::fs::write(&file, "second-0123456789abc").expect("it can be written");
        assert_eq!(token.judge("first-0123456789abcdef").expect("it is read"), TokenVerdict::Wrong);
        assert_eq!(token.judge("second-0123456789abc").expect("it is read"), TokenVerdict::Right);
        std::fs::remove_file(&file).expect("it is there");
        assert_eq!(token.judge("").expect_err("it is gone").kind(), ErrorKind::Config);
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        for (name, text) in
            [("empty", ""), ("short", "hunter2"), ("blank", "                    \n")]
        {
            let file = written(name, text);
            let refused = AdminToken::open(file.clone()).expect_err("it is none");
            assert!(refused.message().contains("can be guessed"), "{refused}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
            std::fs::remove_file(&file).expect("it is there");
        }
    }
}
