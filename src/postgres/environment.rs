//! libpq's environment: `PG…` variables, `~/.pgpass`, the files in `~/.postgresql`.
//!
//! Promises: what a connection string leaves open is filled as libpq fills it.
//! Must not: override what was given; log a password.
//! Fails: never here; a password file that cannot be used is skipped, with a warning, as in libpq.
//!
//! Source: PostgreSQL documentation, "Environment Variables" and "The Password File" of libpq.

use std::path::{Path, PathBuf};

use crate::secret;

/// Where variables come from: the process, or a test's list.
pub(super) trait EnvironmentSource {
    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<String>;

    /// Whether a variable is set to what is no text.
    fn is_no_text(&self, _name: &str) -> bool {
        false
    }

    /// A path below the user's home folder.
    fn home(&self, path: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| Path::new(&home).join(path))
    }
}

/// The environment of the process.
pub(super) struct ProcessVariables;

impl EnvironmentSource for ProcessVariables {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn is_no_text(&self, name: &str) -> bool {
        matches!(std::env::var(name), Err(std::env::VarError::NotUnicode(_)))
    }
}

/// What a line of the password file is looked up by.
pub(super) struct PasswordKey<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password for the server in the password file, if there is one.
pub(super) fn password(file: &Path, server: &PasswordKey<'_>) -> Option<String> {
    if !only_the_owner_reads(file)? {
        tracing::warn!(file = %file.display(), "password file ignored: others can read it");
        return None;
    }
    match secret::read_file(file) {
        Ok(text) => find(&text, server),
        Err(cause) => {
            tracing::warn!(file = %file.display(), %cause, "password file ignored");
            None
        }
    }
}

/// None when there is no such file.
#[cfg(unix)]
fn only_the_owner_reads(file: &Path) -> Option<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some(metadata.permissions().mode().trailing_zeros() >= 6)
}

#[cfg(not(unix))]
fn only_the_owner_reads(file: &Path) -> Option<bool> {
    file.is_file().then_some(true)
}

fn find(text: &str, server: &PasswordKey<'_>) -> Option<String> {
    let port = server.port.to_string();
    let wanted = [server.host, &port, server.database, server.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (names, password) = (fields.get(..4)?, fields.get(4)?);
        let matches = names.iter().zip(wanted).all(|(field, name)| match field {
            Field::Any => true,
            Field::Text(text) => text == name,
        });
        match password {
            Field::Text(password) if matches => Some(password.clone()),
            Field::Any if matches => Some("*".to_owned()),
            _ => None,
        }
    })
}

/// One field of a line; a star alone stands for anything.
enum Field {
    Any,
    Text(String),
}

/// Splits at colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<Field> {
    let mut texts = vec![String::new()];
    let mut characters = line.chars();
    let mut starred = Vec::new();
    while let Some(character) = characters.next() {
        let last = texts.len() - 1;
        match character {
            ':' if texts.len() < 5 => texts.push(String::new()),
            '\\' => texts[last].extend(characters.next()),
            '*' => {
                starred.push(last);
                texts[last].push('*');
            }
            _ => texts[last].push(character),
        }
    }
    let field = |(index, text): (usize, String)| {
        if text == "*" && starred.contains(&index) { Field::Any } else { Field::Text(text) }
    };
    texts.into_iter().enumerate().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let text = "# comment:1:2:3:4\nshort:line\n\
                    db:5432:app:relay:first\ndb:*:*:relay:second\n\
                    ::1:5432:x:y:z\n\\:\\:1:5432:*:*:six\\:seven:8\n*:*:*:\\*:star\n";
        let lookup =
            |host, port, user| find(text, &PasswordKey { host, port, database: "app", user });
        assert_eq!(lookup("db", 5432, "relay").as_deref(), Some("first"));
        assert_eq!(lookup("db", 5433, "relay").as_deref(), Some("second"));
        assert_eq!(lookup("::1", 5432, "any").as_deref(), Some("six:seven:8"));
        assert_eq!(lookup("h", 1, "*").as_deref(), Some("star"));
        assert_eq!(lookup("db", 5432, "other"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_password_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("postrider-pgpass-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let server = PasswordKey { host: "h", port: 1, database: "d", user: "u" };
        assert_eq!(password(&file, &server), None, "no file");
        std::fs::write(&file, "h:1:d:u:word\n").unwrap();
        for (mode, found) in [(0o600, Some("word")), (0o640, None), (0o604, None)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&file, &server).as_deref(), found, "{mode:o}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
