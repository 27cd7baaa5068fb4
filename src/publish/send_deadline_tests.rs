//! Until when a send deadline lasts. Apart, as `tests/loom` reads the source of the send deadline.

use std::time::{Duration, Instant};

use crate::publish::send_deadline::SendDeadline;

#[test]
fn it_covers_what_lies_before_its_end() {
    let (send_deadline, now) = (SendDeadline::ended(), Instant::now());
    assert!(!send_deadline.covers(now));
    send_deadline.extend(now + Duration::from_secs(5));
    assert!(send_deadline.covers(now + Duration::from_secs(4)));
    assert!(!send_deadline.covers(now + Duration::from_secs(5)));
    assert!(SendDeadline::endless().covers(now + Duration::from_secs(1 << 30)));
}
