use std::fs;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::config::admin_hosts::AdminHosts;
use crate::metrics::counters::Monitor;
use crate::metrics::health::{LogRefusal, Readings, SessionEnd, SessionState};
use crate::metrics::http;
use crate::metrics::sample::{LARGE, SMALL, admin, look, monitor};
use crate::metrics::shape::{
    InstanceCondition, InstanceReport, ParkedReport, ShardCondition, TierReport,
};

async fn ask(admin: Admin, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("it is a request");
    let routes = TowerToHyperService::new(http::routes(admin));
    let answer = routes.call(request).await;
    let answer = answer.expect("routes answer");
    let status = answer.status();
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.expect("it is short");
    (status, String::from_utf8(bytes.to_vec()).expect("it is text"))
}

/// What differs from the shape that is kept: what to keep, where it has changed on purpose.
async fn difference(path: &str, name: &str) -> Option<String> {
    let (status, text) = ask(admin(&monitor(SMALL)), path).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    let written = serde_json::to_string_pretty(&rounded(value)).expect("it is JSON");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/shapes");
    let kept = fs::read_to_string(folder.join(name)).unwrap_or_default();
    (format!("{written}\n") != kept).then(|| format!("--- src/metrics/shapes/{name}\n{written}\n"))
}

/// Fractions that are the same on every machine, and the version in which this runs.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().expect("it is one");
            serde_json::json!((number * 1e6).round() / 1e6)
        }
        Value::String(text) if text == env!("CARGO_PKG_VERSION") => Value::String("…".to_owned()),
        Value::Array(values) => Value::Array(values.into_iter().map(rounded).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, rounded(value))).collect())
        }
        other => other,
    }
}

#[tokio::test]
async fn the_shapes_are_the_ones_that_are_kept() {
    let mut differences = String::new();
    for (path, name) in [
        ("/api/v1/status", "status.json"),
        ("/api/v1/tier", "tier.json"),
        ("/api/v1/parked?limit=2", "parked.json"),
        ("/api/v1/config", "config.json"),
    ] {
        differences.extend(difference(path, name).await);
    }
    assert!(
        differences.is_empty(),
        "shapes differ from those that are kept. Where that is meant, and no member lost its meaning, keep these, and \
         describe them in docs/api.md:\n{differences}--- end"
    );
}

/// Every member of a kept shape, by its name.
fn members(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| members(value, names)),
        Value::Object(found) => {
            names.extend(found.keys().cloned());
            found.values().for_each(|value| members(value, names));
        }
        _ => {}
    }
}

#[test]
fn the_page_tells_of_each_member() {
    let page = include_str!("../../docs/api.md");
    let (mut names, reasons) = (Vec::new(), ["too-large", "follows"]);
    for kept in [
        include_str!("shapes/status.json"),
        include_str!("shapes/tier.json"),
        include_str!("shapes/parked.json"),
        include_str!("shapes/config.json"),
    ] {
        members(&serde_json::from_str(kept).expect("it is JSON"), &mut names);
    }
    for name in names.iter().filter(|name| !reasons.contains(&name.as_str())) {
        assert!(page.contains(&format!("`{name}`")), "docs/api.md does not tell of {name}");
    }
}

#[tokio::test]
async fn what_is_not_known_is_null() {
    let nothing = || Admin::new(Arc::default(), Vec::new());
    let (status, text) = ask(nothing(), "/api/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    for pointer in [
        "/capture/mode",
        "/rate/in",
        "/rate/out",
        "/age/p99",
        "/backlog/events",
        "/backlog/time_to_empty_seconds",
        "/parked",
        "/time/claim_ms",
        "/kafka/topics_held",
        "/lease/left_seconds",
    ] {
        assert_eq!(value.pointer(pointer), Some(&Value::Null), "{pointer} in {text}");
    }
    assert_eq!((&value["state"], &value["buckets"]), (&"no-session".into(), &Value::Array(vec![])));
    for path in ["/api/v1/tier", "/api/v1/parked"] {
        let (status, text) = ask(nothing(), path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["schema"], "postrider/error/1");
        assert!(value["remedy"].as_str().is_some_and(|text| text.contains("readyz")), "{text}");
    }
}

#[tokio::test]
async fn of_what_is_parked_as_much_is_listed_as_is_asked_for() {
    let listed = |query: &'static str| async move {
        let (status, text) = ask(admin(&monitor(SMALL)), query).await;
        (status, serde_json::from_str::<ParkedReport>(&text).map(|parked| parked.listed.len()).ok())
    };
    assert_eq!(listed("/api/v1/parked").await, (StatusCode::OK, Some(3)));
    assert_eq!(listed("/api/v1/parked?limit=1").await, (StatusCode::OK, Some(1)));
    assert_eq!(listed("/api/v1/parked?limit=1&limit=0").await, (StatusCode::OK, Some(0)));
    assert_eq!(listed("/api/v1/parked?limit=99999").await, (StatusCode::OK, Some(3)));
    for bad in ["/api/v1/parked?limit=-1", "/api/v1/parked?limit=", "/api/v1/parked?limit=1e3"] {
        assert_eq!(listed(bad).await, (StatusCode::BAD_REQUEST, None), "{bad}");
    }
}

#[tokio::test]
async fn answers_stay_small_on_a_bad_day() {
    let longest = [("/api/v1/status", 32), ("/api/v1/tier", 32), ("/api/v1/parked?limit=500", 512)];
    for (path, kibibytes) in longest {
        let (status, text) = ask(admin(&monitor(LARGE)), path).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.len() < kibibytes * 1_024, "{path} has {} bytes", text.len());
    }
}

#[tokio::test]
async fn an_answer_is_read_back() {
    let (_, text) = ask(admin(&monitor(SMALL)), "/api/v1/status").await;
    let status: InstanceReport = serde_json::from_str(&text).expect("it is the shape");
    assert_eq!(status.state, InstanceCondition::Publishing);
    assert_eq!(status.rate.out, Some(98_204.0));
    let (_, text) = ask(admin(&monitor(SMALL)), "/api/v1/tier").await;
    let tier: TierReport = serde_json::from_str(&text).expect("it is the shape");
    assert_eq!((tier.alive(), tier.seen_seconds_ago), (1, 1.0));
}

/// Half a minute in which Kafka takes nothing of what is in flight.
fn silent_for_half_a_minute(monitor: &Monitor) {
    monitor.shard(0).has_work.store(true, std::sync::atomic::Ordering::Relaxed);
    monitor.shard(0).in_flight_bytes.store(6 << 20, std::sync::atomic::Ordering::Relaxed);
    monitor.shard(0).note_sent();
    monitor.figures().note_trouble("all brokers are down");
    for second in 12..=45_u64 {
        look(monitor, second);
    }
}

#[test]
fn who_does_not_get_on_says_why_and_what_helps() {
    let monitor = monitor(SMALL);
    silent_for_half_a_minute(&monitor);
    let status = describe::instance_status(&monitor);
    assert_eq!(status.state, InstanceCondition::Stalled);
    let cause = &status.causes[0];
    assert_eq!((cause.what.as_str(), cause.since_seconds), ("kafka", Some(34.0)));
    assert!(cause.words.starts_with("nothing acknowledged for 34s"), "{}", cause.words);
    assert!(cause.words.contains("all brokers are down"), "{}", cause.words);
    assert!(cause.fix.contains("check that the brokers run"), "{}", cause.fix);
    assert!(status.sentence.starts_with("it does not get on: kafka: "), "{}", status.sentence);
    let shard = &status.shards[0];
    assert_eq!(shard.state, ShardCondition::Stalled, "also by itself");
    assert_eq!(shard.words.as_deref(), Some("nothing acknowledged for 34s"));
    assert_eq!(status.kafka.unacknowledged_seconds, Some(34.0));
    assert_eq!(status.rate.out, Some(0.0));
}

#[test]
fn without_a_session_the_cause_is_told_once_and_what_it_knew_is_gone() {
    let monitor = monitor(SMALL);
    let remedy = Some("set the password".to_owned());
    let cause = Some(SessionEnd { remedy: remedy.clone(), ..SessionEnd::of("the server is away") });
    monitor.set_session(SessionState::Between(cause.clone()));
    monitor.health().look(Readings {
        now_millis: 12_000,
        session: SessionState::Between(cause),
        ..Readings::default()
    });
    // A look that was under way says nothing any more.
    monitor.set_seen(Some(crate::metrics::seen::SeenBacklog::default()));
    let status = describe::instance_status(&monitor);
    assert_eq!(status.state, InstanceCondition::NoSession);
    assert_eq!(status.causes.len(), 1, "{:?}", status.causes);
    // The first look takes it for new.
    assert_eq!(status.sentence, "no session with PostgreSQL for 0.0s: the server is away");
    assert_eq!(Some(&status.causes[0].fix), remedy.as_ref(), "what helps is what the error says");
    assert_eq!((status.parked, status.buckets.len(), status.rate.r#in), (None, 0, None));
    assert!(describe::tier_status(&monitor).is_some(), "the tier stays, with its age");
}

/// librdkafka says nothing of brokers that are frozen.
#[test]
fn a_silence_without_a_word_is_one_of_the_brokers() {
    let monitor = monitor(SMALL);
    monitor.shard(0).has_work.store(true, std::sync::atomic::Ordering::Relaxed);
    monitor.shard(0).in_flight_bytes.store(6 << 20, std::sync::atomic::Ordering::Relaxed);
    monitor.shard(0).note_sent();
    for second in 12..=20_u64 {
        look(&monitor, second);
    }
    let status = describe::instance_status(&monitor);
    assert_eq!(status.state, InstanceCondition::Stalled, "within ten seconds");
    assert!(
        status.sentence.ends_with("in flight: the brokers give no answer"),
        "{}",
        status.sentence
    );
}

/// A shard that begins again and again tells by which word of Kafka's side.
#[test]
fn a_shard_that_does_not_get_on_tells_why() {
    let monitor = monitor(SMALL);
    monitor.shard(0).has_work.store(true, std::sync::atomic::Ordering::Relaxed);
    monitor.figures().note_trouble("topic t was refused");
    for second in 12..=20_u64 {
        look(&monitor, second);
    }
    let status = describe::instance_status(&monitor);
    assert_eq!(status.causes[0].what, "shards", "{:?}", status.causes);
    assert!(status.sentence.ends_with(": topic t was refused"), "{}", status.sentence);
}

/// Nothing is lost meanwhile, and somebody has to do something about it.
#[test]
fn what_waits_for_somebody_where_the_log_is_to_be_read_is_told_of() {
    let monitor = monitor(SMALL);
    for (refusal, told) in [
        (
            LogRefusal::Log("no right".to_owned()),
            ", the table is polled, as the log cannot be read: no right",
        ),
        (
            LogRefusal::Copy("no right".to_owned()),
            ", rows of adopted tables wait to be copied: no right",
        ),
    ] {
        monitor.set_log_refusal(Some(refusal));
        let status = describe::instance_status(&monitor);
        assert!(status.sentence.ends_with(told), "{}", status.sentence);
    }
    monitor.set_log_refusal(None);
    let status = describe::instance_status(&monitor);
    assert!(!status.sentence.contains("polled"), "{}", status.sentence);
}

/// Just after the start nothing was looked at: it is not known when nothing waits.
#[test]
fn before_the_first_look_no_time_to_empty_is_told() {
    let monitor = Monitor::default();
    monitor.set_session(SessionState::Working);
    look(&monitor, 1);
    let backlog = describe::instance_status(&monitor).backlog;
    assert_eq!((backlog.events, backlog.time_to_empty_seconds), (None, None));
    let nothing = std::collections::BTreeMap::from([(0, 0.0)]);
    monitor.set_seen(Some(crate::metrics::seen::SeenBacklog {
        oldest_age_seconds: nothing,
        ..Default::default()
    }));
    let backlog = describe::instance_status(&monitor).backlog;
    assert_eq!(backlog.time_to_empty_seconds, Some(0.0));
}

/// What is told while an answer is made does not wait for itself.
#[tokio::test]
async fn answers_wait_for_nobody() {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let monitor = monitor(SMALL);
        let both = (describe::instance_status(&monitor), describe::parked_status(&monitor, 1));
        sender.send(both.0.shards.len()).expect("it is waited for");
    });
    let shards = tokio::time::timeout(std::time::Duration::from_secs(60), receiver).await;
    assert_eq!(shards.expect("a lock is taken twice").expect("it ends well"), 2);
}

/// GIVEN a page whose name was led to this instance, WHEN it asks as its own browser does, THEN it sees neither page nor
/// answers; whatever scrapes and probes asks by any name.
#[tokio::test]
async fn a_name_that_is_not_ours_sees_nothing() {
    let routes = || TowerToHyperService::new(http::routes(admin(&monitor(SMALL))));
    let status = |path: &'static str, host: &'static str| async move {
        let request = Request::get(path).header("host", host).body(Body::empty());
        let answer = routes().call(request.expect("it is a request")).await;
        answer.expect("routes answer").status()
    };
    let (ok, refused) = (StatusCode::OK, StatusCode::MISDIRECTED_REQUEST);
    for path in ["/", "/api/v1/status", "/api/v1/tier", "/api/v1/parked", "/api/v1/config"] {
        assert_eq!(status(path, "evil.example:9786").await, refused, "{path}");
        for host in ["localhost:9786", "10.0.0.7:9786", "[::1]", "relay-0.relays.shop.svc"] {
            assert_eq!(status(path, host).await, ok, "{path} {host}");
        }
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_ne!(status(path, "evil.example:9786").await, refused, "{path}");
    }
    let allowed = AdminHosts::new(&["evil.example".to_owned()], None).expect("it is a name");
    let routes =
        TowerToHyperService::new(http::routes(admin(&monitor(SMALL)).answering_by(allowed)));
    let request = Request::get("/api/v1/status").header("host", "evil.example:9786");
    let answer = routes.call(request.body(Body::empty()).expect("it is a request")).await;
    assert_eq!(answer.expect("routes answer").status(), ok);
}
