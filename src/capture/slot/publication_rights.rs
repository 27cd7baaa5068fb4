//! Whether this session's role may make the publications that are missing.
//!
//! Promises: what would stop it is known before anything is changed. Must not: make one. Fails: with
//! [`ErrorKind::PostgresRefused`], cause and remedy; with the connection's error.

use tokio_postgres::types::ToSql;

use crate::capture::slot::SlotKeeper;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::classify;

const RIGHTS: &str = include_str!("../../../sql/queries/publication_rights.sql");

/// What a role lacks to make one publication.
#[derive(Debug, Default)]
struct LackingRights {
    role: String,
    database: String,
    may_create: bool,
    /// Tables that others own.
    foreign_tables: Option<String>,
    /// One of this name is there, is not as it should be, and belongs to another role.
    is_foreign: bool,
}

impl LackingRights {
    fn check(&self, publication: &str) -> Result<()> {
        let Self { role, database, .. } = self;
        let (cause, remedy) = if let Some(tables) = &self.foreign_tables {
            let cause = format!("{role} does not own {tables}");
            (cause, "run it as the owner of the outbox".to_owned())
        } else if self.is_foreign {
            let cause = format!("another role owns the publication {publication}");
            (cause, format!("run as its owner: drop publication {publication}"))
        } else if !self.may_create {
            let cause = format!("{role} may not create in the database {database}");
            (cause, format!("grant create on database {database} to {role}"))
        } else {
            return Ok(());
        };
        let cause = format!("cannot make the publication {publication}: {cause}");
        Err(Error::new(ErrorKind::PostgresRefused, cause).with_remedy(remedy))
    }
}

impl SlotKeeper {
    /// Whether what is missing of the publications can be made by this session's role.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] with what is missing; the connection's error.
    pub async fn check_publication_rights(&self) -> Result<()> {
        for (publication, tables) in self.missing_publications().await? {
            let parameters: [&(dyn ToSql + Sync); 2] = [&publication, &tables];
            let row = self.connection().client().query_one(RIGHTS, &parameters).await;
            let row = row.map_err(|cause| classify("look who may make the publication", cause))?;
            let lacking = LackingRights {
                role: row.get("role"),
                database: row.get("database"),
                may_create: row.get("may_create"),
                foreign_tables: row.get("foreign_tables"),
                is_foreign: row.get("is_foreign"),
            };
            lacking.check(&publication)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_its_remedy() {
        let well = || LackingRights {
            role: "relay".to_owned(),
            database: "shop".to_owned(),
            may_create: true,
            ..LackingRights::default()
        };
        assert!(well().check("postrider").is_ok());
        for (lacking, cause, remedy) in [
            (
                LackingRights { foreign_tables: Some("outbox".to_owned()), ..well() },
                "relay does not own outbox",
                "as the owner",
            ),
            (
                LackingRights { is_foreign: true, ..well() },
                "another role owns",
                "drop publication postrider",
            ),
            (
                LackingRights { may_create: false, ..well() },
                "may not create in the database shop",
                "grant create on database shop to relay",
            ),
        ] {
            let error = lacking.check("postrider").expect_err("it is refused");
            assert!(error.message().contains(cause), "{error}");
            assert!(error.remedy().is_some_and(|said| said.contains(remedy)), "{error}");
        }
    }
}
