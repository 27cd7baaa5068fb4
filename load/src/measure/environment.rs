//! Where a run took place: machine, versions, settings.
//!
//! Promises: a figure can be read together with what it depends on. Must not: hold a password or the
//! machine's name. Fails: what cannot be learned is left empty; PostgreSQL's answer is required.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::measure::process;

/// The settings of PostgreSQL on which figures depend.
const SETTINGS: &str = "select name, current_setting(name) from pg_settings where name = any(array[
    'server_version', 'shared_buffers', 'max_wal_size', 'fsync', 'synchronous_commit',
    'full_page_writes', 'wal_level', 'wal_compression', 'synchronous_standby_names',
    'commit_delay', 'huge_pages', 'data_checksums'])";

/// Where a run took place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// This tool's version.
    pub(crate) tool_version: String,
    /// The processor's name.
    pub(crate) cpu: String,
    /// Processors that the operating system shows.
    pub(crate) cores: usize,
    /// Memory in megabytes (10^6 bytes).
    pub(crate) memory_megabytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// `unix socket` or `tcp`: how the writers reach PostgreSQL.
    pub(crate) postgres_transport: String,
    /// Settings of PostgreSQL.
    pub(crate) postgres: BTreeMap<String, String>,
    /// The relay's command line, when this tool started it.
    pub(crate) relay: Option<String>,
    /// Revision of the git work tree in which the tool was started.
    pub(crate) git_revision: Option<String>,
    /// What the user added with --note.
    pub(crate) notes: BTreeMap<String, String>,
}

impl Environment {
    /// Looks around.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub(crate) async fn look(
        client: &Client,
        relay: Option<&str>,
        notes: &[(String, String)],
    ) -> Result<Self> {
        let rows = client.query(SETTINGS, &[]).await.context("the settings cannot be read")?;
        let transport = client
            .query_one("select inet_client_addr() is null", &[])
            .await
            .context("PostgreSQL does not answer")?;
        let over_socket: bool = transport.get(0);
        Ok(Self {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: value_of_line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_megabytes: memory_kilobytes() * 1024 / 1_000_000,
            kernel: read("/proc/sys/kernel/osrelease"),
            postgres_transport: if over_socket { "unix socket" } else { "tcp" }.to_owned(),
            postgres: rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            relay: relay.map(process::without_passwords),
            git_revision: git_revision(),
            notes: notes.iter().cloned().collect(),
        })
    }
}

/// A small file of `/proc`; empty where the kernel has none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn value_of_line(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn memory_kilobytes() -> u64 {
    let value = value_of_line("/proc/meminfo", "MemTotal");
    value.split_ascii_whitespace().next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn git_revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}

/// Splits `key=value`.
///
/// # Errors
/// When there is no `=`.
pub(crate) fn parse_note(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a note is key=value, as in kafka=4.1.1")?;
    Ok((key.to_owned(), value.to_owned()))
}
