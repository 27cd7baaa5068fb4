//! The pages of docs/reference that are made from the code: settings, commands, exit codes.
//!
//! Promises: a page that differs from the code fails a test, which names the command that writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Args, Command, CommandFactory};

use crate::cli::{CommandLine, health, wait};
use crate::config::catalogue::{self, Setting, SettingForm};
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::error::{Disposition, ErrorKind};

/// Set, the pages are written instead of compared.
const WRITES: &str = "POSTRIDER_WRITE_REFERENCE";
/// What writes them.
const REMEDY: &str = "write it anew: just reference";
const SEEN_BY_ALL: &str = "config";

/// Compares a page of docs/reference with what the code says, or writes it.
#[track_caller]
fn keep(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os(WRITES).is_some() {
        std::fs::write(&path, text).expect("the page can be written");
        return;
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = |(line, (is, ought)): (usize, (&str, &str))| {
        (is != ought).then(|| format!("line {}:\n  is    {is}\n  ought {ought}", line + 1))
    };
    let both = page.lines().chain(std::iter::repeat("")).zip(text.lines());
    let first = both.enumerate().find_map(differs);
    assert!(page == text, "docs/reference/{name} is not what the code says; {REMEDY}\n{first:?}");
}

/// Text as a cell of a table takes it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The help without the default in brackets, which has a cell of its own; it ends with a full stop.
fn without_default(help: &str) -> String {
    let (before, behind) = match help.split_once("[default: ") {
        Some((before, rest)) => (before, rest.split_once(']').map_or("", |(_, behind)| behind)),
        None => (help, ""),
    };
    let whole = cell(&format!("{}{behind}", before.trim_end()));
    if whole.is_empty() || whole.ends_with('.') { whole } else { format!("{whole}.") }
}

/// `poll`: from the table; `wal`: …
fn choices(flag: &Arg) -> String {
    let shown = flag.get_possible_values().into_iter().filter(|choice| !choice.is_hide_set());
    let words = shown.map(|choice| {
        let help = choice.get_help().map(|help| cell(&help.to_string())).unwrap_or_default();
        let help = help.trim_end_matches('.');
        let text = format!("`{}`", choice.get_name());
        if help.is_empty() { text } else { format!("{text}: {help}") }
    });
    words.collect::<Vec<_>>().join("; ")
}

/// What a flag does, with its values.
fn meaning(flag: &Arg) -> String {
    let help = without_default(&flag.get_help().map(ToString::to_string).unwrap_or_default());
    match choices(flag) {
        values if values.is_empty() || values == "`true`; `false`" => help,
        values => format!("{help} {values}"),
    }
}

fn form(setting: &Setting) -> &'static str {
    match setting.form {
        SettingForm::Text => "text",
        SettingForm::Integer => "number",
        SettingForm::Boolean => "`true` or `false`",
        SettingForm::List => "list of texts",
    }
}

fn setting_row(setting: &Setting, flag: &Arg) -> String {
    let variable = setting.variable.as_deref().expect("each setting has a variable");
    let default = setting.default.as_deref().map(cell).unwrap_or_default();
    let form = form(setting);
    format!("| `--{}` | `{variable}` | {form} | {default} | {} |\n", setting.name, meaning(flag))
}

/// Marks a page as made, and says how.
const MADE: &str = "This page is made from the code (`just reference`), and a test compares it.\n";

fn settings_page() -> String {
    let command =
        RelaySettings::augment_args(CommonSettings::augment_args(Command::new("settings")));
    let flag = |id: &str| command.get_arguments().find(|flag| flag.get_id() == id);
    let mut page = format!(
        "# Settings\n\n{MADE}\n\
         A setting is a flag (`--page-rows 2000`), a variable (`POSTRIDER_PAGE_ROWS=2000`) and a key of `postrider.toml`, which \
         is\nthe flag without dashes (`page-rows = 2000`). A flag wins over the variable, the variable over the file. Times are \
         written\n`100ms`, `25s` or `30m`, sizes `8MiB`. [Configuration](../configuration.md) tells of secrets and of Kafka's \
         client.\n\n`--config` (`POSTRIDER_CONFIG`) names the file.\n"
    );
    let all = catalogue::settings();
    for heading in ["Source", "Kafka", "Tuning", "Observability", "Logging"] {
        write!(page, "\n## {heading}\n\n| flag | variable | form in the file | default | what it does |\n|---|---|---|---|---|\n")
            .expect("a text can be written");
        for setting in all.iter().filter(|setting| setting.heading == heading) {
            page.push_str(&setting_row(setting, flag(&setting.id).expect("it is a flag")));
        }
        if heading == "Kafka" {
            let property = meaning(flag("property").expect("it is there"));
            let row = format!("| `-X` | `POSTRIDER_X_…` | table `[librdkafka]` | | {property} |\n");
            page.push_str(&row);
        }
    }
    page
}

/// A flag or an argument of a command that is no setting.
fn argument_row(argument: &Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let takes_value = argument.get_action().takes_values();
    let value = value.filter(|_| takes_value);
    let name = match (argument.get_long(), &value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, Some(value)) => value.clone(),
        (None, None) => argument.get_id().to_string(),
    };
    let of_clap = argument.get_default_values().first().map(|value| value.to_string_lossy());
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let of_help = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    let default = of_clap
        .filter(|_| takes_value)
        .map(|value| value.into_owned())
        .or_else(|| of_help.map(|(default, _)| default.to_owned()));
    let default = default.map(|value| cell(&value)).unwrap_or_default();
    format!("| `{name}` | {default} | {} |\n", meaning(argument))
}

/// A command's own part of the page, then those of the commands below it.
fn command_part(command: &Command, settings: &[Setting], page: &mut String) {
    let name = command.get_bin_name().expect("it is built");
    let about = command.get_about().map(|about| cell(&about.to_string())).unwrap_or_default();
    let full_stop = if about.ends_with('.') { "" } else { "." };
    write!(page, "\n## {name}\n\n{about}{full_stop}\n").expect("a text can be written");
    let known = |argument: &&Arg| {
        let id = argument.get_id().as_str();
        settings.iter().any(|setting| setting.id == id)
            || [SEEN_BY_ALL, "property", "help", "version"].contains(&id)
    };
    let visible = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let (shared, own): (Vec<&Arg>, Vec<&Arg>) = visible.partition(known);
    if !own.is_empty() {
        page.push_str("\n| argument | default | what it does |\n|---|---|---|\n");
        own.into_iter().for_each(|argument| page.push_str(&argument_row(argument)));
    }
    let takes = |id: &str| shared.iter().any(|argument| argument.get_id() == id);
    match (takes("brokers"), takes("database_url")) {
        (true, _) => page.push_str("\nAlso: all [settings](settings.md).\n"),
        (false, true) => page.push_str(
            "\nAlso: the [settings](settings.md) of the database, the outbox and the log.\n",
        ),
        (false, false) => {}
    }
    for below in command.get_subcommands().filter(|command| command.get_name() != "help") {
        command_part(below, settings, page);
    }
}

fn commands_page() -> String {
    let mut command = CommandLine::command();
    command.build();
    let mut page = format!(
        "# Commands\n\n{MADE}\n`postrider COMMAND --help` says the same with examples, and `postrider man COMMAND` prints a manual \
         page.\nHow each ends: [exit codes](exit-codes.md).\n"
    );
    let settings = catalogue::settings();
    for below in command.get_subcommands().filter(|command| command.get_name() != "help") {
        command_part(below, &settings, &mut page);
    }
    page
}

/// The variants of [`ErrorKind`] in the source, each with what its comment says.
fn documented_kinds() -> Vec<(String, String)> {
    let source = include_str!("../error.rs");
    let (_, rest) = source.split_once("pub enum ErrorKind {").expect("it is there");
    let (body, _) = rest.split_once("\n}").expect("it ends");
    let mut comment = String::new();
    let mut kinds = Vec::new();
    for line in body.lines().map(str::trim) {
        match (line.strip_prefix("/// "), line.strip_suffix(',')) {
            (Some(words), _) => comment = format!("{comment} {words}").trim().to_owned(),
            (None, Some(variant)) => {
                kinds.push((variant.to_owned(), std::mem::take(&mut comment)));
            }
            (None, None) => {}
        }
    }
    kinds
}

fn disposition(kind: ErrorKind) -> &'static str {
    match kind.disposition() {
        Disposition::Retry => "goes back to the saved cursors and tries again after a pause",
        Disposition::StepDown => "lets go of its buckets; others have them",
        Disposition::Park => "sets the event aside, with its aggregate's later ones",
        Disposition::Stop => "ends",
    }
}

/// The codes, in their order, with what each says of all commands that end with it.
fn codes() -> Vec<(u8, String)> {
    vec![
        (0, "all is well; `run` was asked to stop, and stopped in order".to_owned()),
        (
            1,
            format!(
                "failed at runtime; `capture switch`: not switched; `demo`: a check of its own failed{}",
                if health::NOT_WELL == 1 { "; `health`: not well, or no answer" } else { "" }
            ),
        ),
        (2, "usage: a flag or a value that is none".to_owned()),
        (3, "configuration".to_owned()),
        (4, "PostgreSQL".to_owned()),
        (5, "Kafka".to_owned()),
        (6, "schema; `migrate status`: migrations are pending".to_owned()),
        (wait::NOT_IN_TIME, "`wait`: not published in time; it says whether a pause or a missing instance may be why".to_owned()),
        (wait::PARKED, "`wait`: all is published but what is parked".to_owned()),
    ]
}

fn exit_codes_page() -> String {
    let mut page = format!(
        "# Exit codes and kinds of error\n\n{MADE}\n\
         An error on stderr has its cause in the first line and a remedy in the second. What to do about each is in the\n\
         [runbook](../runbook.md).\n\n| code | what it says |\n|---|---|\n"
    );
    for (code, words) in codes() {
        writeln!(page, "| [{code}](../runbook.md#exit-code-{code}) | {words} |")
            .expect("a text can be written");
    }
    page.push_str(
        "\n## Kinds of error\n\n\
         The kind is the label of `postrider_sessions_ended_total{kind}` and `postrider_producer_replaced_total{reason}`. At the \
         start each kind ends\n`run` with its code; later the relay does what the third column says. Other commands end with the \
         code. `check` ends with the\ncode of the first finding that is an error.\n\n\
         | kind | code | while the relay runs, it | what went wrong |\n|---|---|---|---|\n",
    );
    for (kind, (_, words)) in ErrorKind::ALL.into_iter().zip(documented_kinds()) {
        let (name, code) = (kind.name(), kind.exit_code());
        writeln!(
            page,
            "| [`{name}`](../runbook.md#{name}) | {code} | {} | {} |",
            disposition(kind),
            cell(&words)
        )
        .expect("a text can be written");
    }
    page
}

#[test]
fn the_page_of_settings_is_what_the_flags_say() {
    let page = settings_page();
    for setting in catalogue::settings() {
        assert!(page.contains(&format!("| `--{}` |", setting.name)), "{} has no row", setting.name);
    }
    keep("settings.md", &page);
}

#[test]
fn the_page_of_commands_is_what_the_command_line_knows() {
    keep("commands.md", &commands_page());
}

#[test]
fn the_page_of_exit_codes_is_the_table_of_errors() {
    let variants: Vec<String> =
        documented_kinds().into_iter().map(|(variant, _)| variant).collect();
    let all: Vec<String> = ErrorKind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(all, variants, "ErrorKind::ALL has every kind");
    for kind in ErrorKind::ALL {
        let is_listed = codes().iter().any(|(code, _)| *code == kind.exit_code());
        assert!(is_listed, "{kind:?} ends with a code that the table lacks");
    }
    keep("exit-codes.md", &exit_codes_page());
}
