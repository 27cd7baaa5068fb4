use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::metrics::sample::{LARGE, admin, monitor, move_on};
use crate::metrics::{door, http};

/// Names the browser's program; without it what is shown is not looked at.
const BROWSER: &str = "POSTRIDER_BROWSER";
/// Where pictures of the page are left, if anywhere.
const PICTURES: &str = "POSTRIDER_PICTURES";

#[test]
fn the_page_is_one_file_that_asks_nobody_else() {
    for foreign in ["http:", "https:", "//cdn", "@import", "url(", " src=", "import(", "WebSocket"]
    {
        assert!(!PAGE.contains(foreign), "the page has {foreign}");
    }
    let links: Vec<&str> = PAGE.matches("<link").collect();
    assert_eq!(links.len(), 1, "the icon, which is empty");
    assert!(PAGE.contains("<link rel=\"icon\" href=\"data:,\">"));
    for tag in ["<script", "<style"] {
        assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
    }
    let script = between(PAGE, "<script>", "</script>");
    for (place, _) in script.match_indices("fetch(") {
        assert!(script[place..].starts_with("fetch(`api/v1/"), "{}", &script[place..place + 40]);
    }
}

/// An instance that is frozen takes a question and never answers: the page would show for ever what it saw last.
#[test]
fn no_answer_is_waited_for_without_an_end() {
    let script = between(PAGE, "<script>", "</script>");
    let asks = between(script, "async function load(", "\n}");
    assert!(asks.contains("signal: AbortSignal.timeout(PATIENCE_MILLIS)"), "{asks}");
    assert!(between(script, "async function look(", "\n}").contains("catch (cause)"));
}

#[test]
fn what_comes_from_rows_is_never_markup() {
    let script = between(PAGE, "<script>", "</script>");
    for way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "createContextualFragment",
        "DOMParser",
        "srcdoc",
        "javascript:",
        ".href",
    ] {
        assert!(!PAGE.contains(way), "the page has {way}");
    }
    // The policy lets no attribute act or style.
    let markup = PAGE.replace(script, "").replace(between(PAGE, "<style>", "</style>"), "");
    let attribute = |name: &str| markup.contains(&format!(" {name}="));
    for name in ["style", "onclick", "onload", "onerror", "onsubmit", "action"] {
        assert!(!attribute(name), "the markup has {name}");
    }
}

#[tokio::test]
async fn a_browser_is_told_what_it_may_do() {
    let answer = page().await;
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().expect("it is text");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    for part in
        ["style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(answer.headers()[X_FRAME_OPTIONS], "DENY");
    // Of a text whose digest is known to everybody.
    assert_eq!(digest(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

/// Serves a tier on a bad day, that goes on as time passes.
async fn serve_a_bad_day() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let monitor = monitor(LARGE);
    tokio::spawn(door::answer(listener, http::routes(admin(&monitor))));
    tokio::spawn(async move {
        for second in 12.. {
            move_on(&monitor, second);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    address
}

/// Runs the browser without a window; what it wrote on either side.
async fn browse(browser: &Path, arguments: Vec<String>) -> (String, String) {
    let profile = std::env::temp_dir().join(format!("postrider-page-{}", uuid::Uuid::new_v4()));
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--virtual-time-budget=6000")
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
    let output = output.expect("the browser runs");
    if let Err(cause) = std::fs::remove_dir_all(&profile) {
        assert_eq!(cause.kind(), std::io::ErrorKind::NotFound, "{cause}");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn browser() -> Option<PathBuf> {
    std::env::var_os(BROWSER).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_a_bad_day() {
    let Some(browser) = browser() else { return };
    let url = format!("http://{}/", serve_a_bad_day().await);
    let (shown, said) = browse(&browser, vec!["--dump-dom".to_owned(), url.clone()]).await;
    for complaint in ["Content Security Policy", "Uncaught", "SyntaxError"] {
        assert!(!said.contains(complaint), "{said}");
    }
    for text in [
        "publishing 98,204/s",
        "no living owner",
        "relay-4:7:abc124",
        "10,000 events of 401 aggregates",
        "raise the topic's max.message.bytes",
        "postrider_16401",
        "<td class=\"number\">63</td>",
        "&lt;img src=x onerror=alert(1)&gt;",
    ] {
        assert!(shown.contains(text), "{text:?} is not shown: {shown}");
    }
    assert!(!shown.contains("<img"), "a row's text became markup");
    let Some(folder) = std::env::var_os(PICTURES).map(PathBuf::from) else { return };
    for (name, size, is_dark) in [
        ("light", "1280,2400", false),
        ("dark", "1280,2400", true),
        ("phone", "390,3000", false),
        ("phone-dark", "390,3000", true),
    ] {
        let mut arguments = vec![
            format!("--screenshot={}", folder.join(format!("{name}.png")).display()),
            format!("--window-size={size}"),
        ];
        arguments.extend(is_dark.then(|| "--blink-settings=preferredColorScheme=0".to_owned()));
        arguments.push(url.clone());
        browse(&browser, arguments).await;
    }
}
