//! What `deploy/` sets is what the program knows.
//!
//! Promises: each variable that it sets stands in the reference of settings, which is made from the code; each command that it runs
//! stands in the reference of commands; whoever stops an instance waits for longer than the instance does. Must not: start anything;
//! the recipes `service`, `image` and `chart` do. Fails: with file and word.

use crate::report;
use crate::sources::{Source, exists, files};

/// Files that set variables of the program.
const SETTING: &[&str] = &[".service", ".yaml", ".tpl", "Dockerfile", "deploy/image/build"];
/// What is no setting: it tells the build which commit it is of.
const OF_THE_BUILD: &str = "POSTRIDER_REVISION";
/// What stands before a command of the program.
const CALLS: &[&str] = &["/usr/bin/postrider ", "/usr/bin/postrider, ", "args: ["];

const SETTINGS: &str = "docs/reference/settings.md";
const COMMANDS: &str = "docs/reference/commands.md";

fn page(path: &str) -> String {
    assert!(exists(path), "{path} is not there; `just reference` writes it");
    files("docs", &[path]).remove(0).text
}

/// The words of a text that begin so.
fn words<'text>(text: &'text str, beginning: &str) -> Vec<&'text str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices(beginning).map(|(at, _)| at);
    starts.map(|at| text[at..].split(|c| !is_part(c)).next().unwrap_or_default()).collect()
}

fn unknown_variables(source: &Source, settings: &str) -> Vec<String> {
    let known = |name: &&str| *name == OF_THE_BUILD || settings.contains(&format!("`{name}`"));
    let unknown = words(&source.text, "POSTRIDER_").into_iter().filter(|name| !known(name));
    unknown.map(|name| format!("{}: {SETTINGS} does not know {name}", source.path)).collect()
}

fn unknown_commands(source: &Source, commands: &str) -> Vec<String> {
    let called = |call: &&str| -> Vec<String> {
        let after = source.text.split(*call).skip(1);
        let word =
            |rest: &str| rest.split(|c: char| !c.is_ascii_lowercase()).next().map(str::to_owned);
        after.filter_map(word).filter(|word| !word.is_empty()).collect()
    };
    let heading = |word: &str| format!("## postrider {word}");
    let known = |word: &String| commands.lines().any(|line| line == heading(word));
    let unknown = CALLS.iter().flat_map(called).filter(|word| !known(word));
    unknown.map(|word| format!("{}: {COMMANDS} has no command {word}", source.path)).collect()
}

#[test]
fn what_is_deployed_uses_settings_and_commands_that_there_are() {
    let (settings, commands) = (page(SETTINGS), page(COMMANDS));
    let sources = files("deploy", SETTING);
    assert!(sources.len() > 10, "deploy/ was not found");
    let findings = sources.iter().flat_map(|source| {
        [unknown_variables(source, &settings), unknown_commands(source, &commands)].concat()
    });
    report(&findings.collect::<Vec<_>>());
}

#[test]
fn unknown_settings_and_commands_are_found() {
    let unit = |text: &str| Source { path: "deploy/a.service".to_owned(), text: text.to_owned() };
    let (settings, commands) = ("| `POSTRIDER_BROKERS` |", "# A\n\n## postrider run\n");
    let known = unit(
        "Environment=POSTRIDER_BROKERS=a\nExecStart=/usr/bin/postrider run --x\nargs: [run]\n",
    );
    assert_eq!(unknown_variables(&known, settings), Vec::<String>::new());
    assert_eq!(unknown_commands(&known, commands), Vec::<String>::new());
    assert_eq!(unknown_variables(&unit("POSTRIDER_BROKER=a"), settings).len(), 1);
    for call in ["/usr/bin/postrider runs", "[/usr/bin/postrider, health]", "args: [check]"] {
        assert_eq!(unknown_commands(&unit(call), commands).len(), 1, "{call}");
    }
}

/// The number behind a word, at the first line that begins with it.
fn seconds(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(key));
    let number = line.unwrap_or_else(|| panic!("there is no {key}"));
    number.trim().parse().unwrap_or_else(|_| panic!("{key}{number} is no number"))
}

#[test]
fn whoever_stops_an_instance_waits_for_longer_than_it_does() {
    let row = page(SETTINGS);
    let row =
        row.lines().find(|line| line.contains("`--shutdown-timeout`")).expect("it is a setting");
    let default =
        row.split('|').map(str::trim).find_map(|cell| cell.strip_suffix('s')?.parse().ok());
    let default: u64 = default.expect("its default is told in seconds");
    let of = |path: &str| files("deploy", &[path]).remove(0).text;
    let unit = of("deploy/systemd/postrider@.service");
    let chart = of("deploy/helm/postrider/values.yaml");
    assert!(seconds(&unit, "TimeoutStopSec=") > default, "the unit kills it before");
    assert!(
        seconds(&chart, "terminationGracePeriodSeconds:") > default,
        "the chart kills it before"
    );
    assert!(unit.contains("\nType=notify\n") && seconds(&unit, "WatchdogSec=") >= 10);
}
