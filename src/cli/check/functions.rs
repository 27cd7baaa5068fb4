//! The functions that statements of `run` call. Everybody may call them by default; whoever hardens a server revokes that.
//!
//! Promises: each function that a statement of a relay calls is in one of the lists, which a test proves. Must not: list
//! what only people's commands call. Fails: as the connection.

use crate::capture::mode::Mode;
use crate::error::Result;
use crate::postgres::{Connection, Sql, classify};

static MISSING: Sql = Sql::of(include_str!("../../../sql/queries/missing_functions.sql"));

/// Whatever is read.
const ALWAYS: &[&str] = &[
    "aggregate_digest",
    "array_agg",
    "array_position",
    "bool_or",
    "cardinality",
    "clock_timestamp",
    "convert_from",
    "convert_to",
    "count",
    "current_database",
    "current_setting",
    "date_part",
    "date_trunc",
    "decode",
    "encode",
    "format",
    "format_type",
    "generate_series",
    "getdatabaseencoding",
    "has_database_privilege",
    "has_its_partitions",
    "has_sequence_privilege",
    "has_table_privilege",
    "hashtext",
    "hashtextextended",
    "is_saved_here",
    "isfinite",
    "lag",
    "lead",
    "left",
    "legible",
    "lpad",
    "max",
    "min",
    "now",
    "obj_description",
    "octet_length",
    "park_row",
    "pg_backend_pid",
    "pg_blocking_pids",
    "pg_column_size",
    "pg_control_system",
    "pg_current_snapshot",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_xact_id",
    "pg_get_expr",
    "pg_get_serial_sequence",
    "pg_has_role",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "pg_logical_emit_message",
    "pg_partition_root",
    "pg_partition_tree",
    "pg_relation_filenode",
    "pg_relation_size",
    "pg_sequence_last_value",
    "pg_sleep",
    "pg_snapshot_xmax",
    "pg_snapshot_xmin",
    "pg_stat_get_tuples_inserted",
    "pg_stat_get_tuples_updated",
    "pg_terminate_backend",
    "pg_try_advisory_lock",
    "pg_try_advisory_xact_lock",
    "pg_visible_in_snapshot",
    "pg_walfile_name",
    "quote_ident",
    "random",
    "read_row",
    "refuse_large_row",
    "right",
    "row_number",
    "rtrim",
    "satisfies_hash_partition",
    "set_config",
    "shortened",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "to_char",
    "to_regclass",
    "to_regnamespace",
    "to_regtype",
    "to_timestamp",
    "unnest",
    "version",
    "width_bucket",
];
/// And to read the log, or adopted tables by it.
const OF_THE_LOG: &[&str] = &[
    "acldefault",
    "aclexplode",
    "bool_and",
    "btrim",
    "concat_ws",
    "convert",
    "has_schema_privilege",
    "in_utf8",
    "md5",
    "pg_current_wal_lsn",
    "pg_drop_replication_slot",
    "pg_encoding_max_length",
    "pg_get_partkeydef",
    "pg_get_userbyid",
    "pg_logical_slot_peek_binary_changes",
    "pg_snapshot_xip",
    "pg_stat_force_next_flush",
    "pg_stat_get_tuples_deleted",
    "pg_wal_lsn_diff",
    "pg_xact_status",
    "regexp_replace",
    "set_byte",
    "starts_with",
    "string_to_table",
    "to_jsonb",
];

/// A function that the role may not call.
pub(super) struct MissingFunction {
    /// With its schema and its arguments.
    pub(super) name: String,
}

/// How many functions are called, and which of them the role may not call.
pub(super) async fn missing(
    connection: &Connection,
    mode: Mode,
) -> Result<(usize, Vec<MissingFunction>)> {
    let of_the_log = if mode == Mode::Poll { &[] } else { OF_THE_LOG };
    let called: Vec<&str> = ALWAYS.iter().chain(of_the_log).copied().collect();
    let missing = connection.client().query(MISSING.text(), &[&called]).await;
    let missing =
        missing.map_err(|cause| classify("look which functions the role may call", cause))?;
    let missing = missing.iter().map(|row| MissingFunction { name: row.get("name") });
    Ok((called.len(), missing.collect()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// What looks like a call in SQL and is none.
    const NO_FUNCTIONS: &[&str] =
        &["any", "array", "bit", "coalesce", "greatest", "in", "least", "nullif", "values"];
    /// Of modules that no relay has: what people's commands run.
    const NOT_OF_RUN: &[&str] = &[
        "src/cli",
        "src/demo",
        "src/inbox",
        "src/control/migrate/handover.rs",
        "src/control/migrate/inbox.rs",
        "src/control/migrate/mod.rs",
        "src/control/migrate/reanchor.rs",
        "src/control/migrate/status.rs",
        "src/control/moved.rs",
        "src/capture/mode_switch.rs",
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    /// The statements of `run`: those that its modules name.
    fn statements(root: &Path) -> BTreeMap<String, String> {
        let mut files = Vec::new();
        sources(&root.join("src"), &mut files);
        let is_of_run =
            |path: &&PathBuf| !NOT_OF_RUN.iter().any(|out| path.starts_with(root.join(out)));
        let mut statements = BTreeMap::new();
        for path in files.iter().filter(is_of_run) {
            let text = fs::read_to_string(path).unwrap_or_default();
            for named in text.split("sql/queries/").skip(1) {
                let Some((name, _)) = named.split_once(".sql\")") else { continue };
                let sql = fs::read_to_string(root.join(format!("sql/queries/{name}.sql"))).unwrap();
                statements.insert(name.to_owned(), sql);
            }
        }
        statements
    }

    /// The words that stand right before a bracket, without the schema.
    fn called(sql: &str) -> BTreeSet<&str> {
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let code = sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code));
        let calls = code.flat_map(|line| line.match_indices('(').map(move |(at, _)| &line[..at]));
        let words = calls.map(|before| &before[before.trim_end_matches(is_word).len()..]);
        words.filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase())).collect()
    }

    #[test]
    fn every_function_that_run_calls_is_listed() {
        let statements = statements(Path::new(env!("CARGO_MANIFEST_DIR")));
        assert!(statements.len() > 90, "{}", statements.len());
        assert!(called(&statements["tick"]).contains("pg_logical_emit_message"));
        let is_known = |word: &str| {
            let function = if word == "trim" { "btrim" } else { word };
            [ALWAYS, OF_THE_LOG, NO_FUNCTIONS].iter().any(|names| names.contains(&function))
        };
        for (name, sql) in &statements {
            for word in called(sql) {
                assert!(is_known(word), "{name}.sql calls {word}, which is in neither list");
            }
        }
    }

    #[test]
    fn the_relays_group_is_given_what_it_calls() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let roles = fs::read_to_string(root.join("sql/roles.sql")).unwrap();
        for name in ALWAYS.iter().chain(OF_THE_LOG) {
            assert!(roles.contains(&format!("'{name}'")), "sql/roles.sql does not grant {name}");
        }
    }
}
