//! What the program and the instance are, as labels.
//!
//! Promises: the same as long as the process does the same. Must not: change with the load.

use crate::metrics::counters::Monitor;
use crate::publish::kafka::config::librdkafka_version;
use crate::schema;

/// The labels of a line.
type Labels = Vec<(&'static str, String)>;

pub(super) fn build_labels() -> Labels {
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("revision", option_env!("POSTRIDER_REVISION").unwrap_or("unknown").to_owned()),
        ("librdkafka", librdkafka_version()),
    ]
}

pub(super) fn instance_labels(monitor: &Monitor) -> Labels {
    let instance = monitor.instance();
    let timeline = instance.timeline.map(|timeline| timeline.to_string()).unwrap_or_default();
    let mut labels = vec![
        ("instance", instance.name),
        ("capture", instance.capture),
        ("delivery", instance.delivery),
        ("timeline", timeline),
    ];
    // An empty label and none are the same to Prometheus.
    labels.extend(schema::chosen().unusual().map(|name| ("schema", name.to_owned())));
    labels
}
