//! Who takes part in a comparison.
//!
//! Promises: a peer has a name, a table and a command line. Must not: know how it is measured.
//! Fails: with what a peer on the command line lacks.

/// The relay, as the table names it, and the same relay reading the WAL.
pub(super) const RELAY: &str = "relay";
pub(super) const WAL_RELAY: &str = "relay, wal";

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The name in the table.
    pub(crate) name: String,
    /// The table that it relays.
    pub(crate) table: String,
    /// Its command line.
    pub(crate) command: String,
    /// What it needs around that.
    pub(super) kind: PeerKind,
}

/// What a peer needs around its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// Nothing.
    Plain,
    /// A slot before the backlog is written, and a relay that drops it afterwards: this command line.
    WalReader(String),
    /// Table, slot and configuration, made for each run; and warming up.
    Debezium(Profile),
}

/// Reads `name=table=command`.
///
/// # Errors
/// When a part is missing.
pub(crate) fn parse_peer(text: &str) -> Result<Peer, String> {
    let mut parts = text.splitn(3, '=').map(str::to_owned);
    let (name, table, command) = (parts.next(), parts.next(), parts.next());
    match (name, table, command) {
        (Some(name), Some(table), Some(command)) if !command.is_empty() => {
            Ok(Peer { name, table, command, kind: PeerKind::Plain })
        }
        _ => Err("a peer is NAME=TABLE=COMMAND, as in other=public.outbox=/usr/bin/other".into()),
    }
}

/// How it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As it comes.
    Lab,
    /// Tuned.
    Tuned,
}

impl Profile {
    /// The name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lab => "Debezium Server as it comes",
            Self::Tuned => "Debezium Server tuned",
        }
    }
}

/// A folder's name for a peer.
pub(super) fn slug(name: &str) -> String {
    name.replace(", ", "-").replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_with_their_commands_whole() {
        let peer = parse_peer("other=public.outbox=run --a=b c").unwrap();
        assert_eq!((peer.name.as_str(), peer.table.as_str()), ("other", "public.outbox"));
        assert_eq!(peer.command, "run --a=b c");
        assert!(parse_peer("other=table").is_err() && parse_peer("a=b=").is_err());
    }
}
