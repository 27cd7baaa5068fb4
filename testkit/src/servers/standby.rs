//! A second PostgreSQL server that streams from the first.
//!
//! Promises: it accepts read-only connections when `standby_of` returns, and writes after `promote`.
//! Must not: change the primary. Fails: when `pg_basebackup` is missing or the primary refuses.

use crate::servers::error::EmbeddedError;
use crate::servers::postgres::{Postgres, PostgresOptions, check_settings, data_folder, tool};
use crate::servers::server::Workspace;
use std::ffi::OsString;
use std::time::{Duration, Instant};

const COPY_DEADLINE: Duration = Duration::from_secs(600);
const PROMOTE_DEADLINE: Duration = Duration::from_secs(90);

impl Postgres {
    /// Copies the running primary and starts the copy as its standby. Programs and password are the
    /// primary's; `options` gives the settings that differ.
    ///
    /// # Errors
    /// When `pg_basebackup` is missing or fails, or the standby does not start.
    pub fn standby_of(
        primary: &Self,
        options: PostgresOptions,
        progress: &dyn Fn(&str),
    ) -> Result<Self, EmbeddedError> {
        let begin = Instant::now();
        check_settings(&options.settings)?;
        let options = PostgresOptions { password: primary.password().to_owned(), ..options };
        let workspace = Workspace::create(&options.host, "pg")?;
        copy(primary, &workspace)?;
        Self::launch(workspace, primary.binaries.clone(), options, begin, progress)
    }

    /// Makes the standby a primary, and waits until it is one.
    ///
    /// # Errors
    /// When the server is not a running standby.
    pub fn promote(&self) -> Result<(), EmbeddedError> {
        let mut arguments: Vec<OsString> =
            ["promote", "--wait", "--timeout=60", "--pgdata"].into_iter().map(Into::into).collect();
        arguments.push(self.data_folder().into());
        let workspace = &self.server.workspace;
        let launch = tool(workspace, self.binaries.program("pg_ctl")?, "pg_ctl promote", arguments);
        workspace.run(&launch, PROMOTE_DEADLINE)
    }
}

fn copy(primary: &Postgres, workspace: &Workspace) -> Result<(), EmbeddedError> {
    let mut arguments: Vec<OsString> = ["--write-recovery-conf", "--wal-method=stream"]
        .into_iter()
        .chain(["--checkpoint=fast", "--no-sync", "--no-password"])
        .map(Into::into)
        .collect();
    arguments.push(format!("--host={}", primary.host()).into());
    arguments.push(format!("--port={}", primary.port()).into());
    arguments.push(format!("--username={}", primary.superuser()).into());
    arguments.extend(["--pgdata".into(), data_folder(workspace.folder()).into()]);
    let program = primary.binaries.program("pg_basebackup")?;
    let mut launch = tool(workspace, program, "pg_basebackup", arguments);
    launch.environment.push(("PGPASSWORD", primary.password().into()));
    workspace.run(&launch, COPY_DEADLINE)
}
