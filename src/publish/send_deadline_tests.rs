//! Until when a permit lasts. Apart, as `tests/loom` reads the source of the permit.

use std::time::{Duration, Instant};

use crate::publish::send_deadline::Permit;

#[test]
fn it_covers_what_lies_before_its_end() {
    let (permit, now) = (Permit::ended(), Instant::now());
    assert!(!permit.covers(now));
    permit.extend(now + Duration::from_secs(5));
    assert!(permit.covers(now + Duration::from_secs(4)));
    assert!(!permit.covers(now + Duration::from_secs(5)));
    assert!(Permit::endless().covers(now + Duration::from_secs(1 << 30)));
}
