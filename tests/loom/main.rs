//! What is told between threads without a lock, in every order that the language allows.
//!
//! Promises: the very source of `src/publish`, with loom's atomics in place of the standard ones; each rule holds in all
//! interleavings and with all reorderings of the memory model, of which a run on a machine shows a few. What a thread
//! leaves for another is a relaxed value here: only the rule's own order lets the other see it. Must not: need
//! anything else of the crate. Fails: with the interleaving that breaks a rule.

#[path = "../../src/publish"]
mod publish {
    /// In place of `src/publish/atomics.rs`.
    mod atomics {
        pub(super) use std::sync::PoisonError;

        pub(super) use loom::sync::Mutex;
        pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    }

    #[allow(dead_code, unreachable_pub, reason = "in the crate it is used and reached")]
    #[path = "send_deadline.rs"]
    mod send_deadline;
    #[path = "signals.rs"]
    mod signals;

    use std::time::{Duration, Instant};

    use loom::sync::Arc;
    use loom::thread;

    use atomics::Ordering::Relaxed;
    use atomics::{AtomicBool, AtomicU32};
    use send_deadline::SendDeadline;
    use signals::{Countdown, Latch, Letterbox};

    #[test]
    fn the_last_of_a_batch_sees_what_was_set_aside() {
        loom::model(|| {
            // One record is sent and acknowledged on the poll thread, one is set aside by the publishing thread.
            let batch = Arc::new((Countdown::new(2), AtomicU32::new(0), AtomicU32::new(0)));
            let acknowledge = |batch: &(Countdown, AtomicU32, AtomicU32)| {
                if batch.0.count() {
                    assert_eq!(
                        batch.1.load(Relaxed),
                        7,
                        "a batch is reported when all of it is there"
                    );
                    batch.2.fetch_add(1, Relaxed);
                }
            };
            let polled = Arc::clone(&batch);
            let poll = thread::spawn(move || acknowledge(&polled));
            batch.1.store(7, Relaxed);
            acknowledge(&batch);
            poll.join().expect("it ends");
            assert_eq!(batch.2.load(Relaxed), 1, "a batch is reported once");
            assert!(batch.0.is_over());
        });
    }

    #[test]
    fn who_finds_a_batch_done_sees_what_was_done() {
        loom::model(|| {
            let batch = Arc::new((Countdown::new(1), AtomicU32::new(0)));
            let polled = Arc::clone(&batch);
            let poll = thread::spawn(move || {
                polled.1.store(7, Relaxed);
                polled.0.count();
            });
            if batch.0.is_over() {
                assert_eq!(batch.1.load(Relaxed), 7);
            }
            poll.join().expect("it ends");
        });
    }

    #[test]
    fn one_of_two_failures_is_reported_and_its_lesson_is_seen() {
        loom::model(|| {
            let failed = Arc::new((Latch::new(), AtomicU32::new(0), AtomicU32::new(0)));
            let fail = |failed: &(Latch, AtomicU32, AtomicU32)| {
                failed.1.fetch_add(1, Relaxed);
                if failed.0.take() {
                    failed.2.fetch_add(1, Relaxed);
                }
            };
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let failed = Arc::clone(&failed);
                    thread::spawn(move || fail(&failed))
                })
                .collect();
            if failed.0.is_taken() {
                assert!(failed.1.load(Relaxed) > 0, "what is known of a failure is known with it");
            }
            for thread in threads {
                thread.join().expect("it ends");
            }
            assert_eq!(failed.2.load(Relaxed), 1, "a failure is reported once");
            failed.0.set();
            assert!(!failed.0.take() && failed.0.is_taken(), "who goes away reports nothing");
        });
    }

    #[test]
    fn no_letter_is_lost_to_whoever_is_woken() {
        loom::model(|| {
            let post = Arc::new((Letterbox::new(), AtomicBool::new(false)));
            let scouts: Vec<_> = ["one", "two"]
                .into_iter()
                .map(|topic| {
                    let post = Arc::clone(&post);
                    thread::spawn(move || {
                        post.0.put(topic);
                        post.1.store(true, Relaxed);
                    })
                })
                .collect();
            // The shard looks whenever it likes, and once more after it was woken.
            let mut found = post.0.take();
            for scout in scouts {
                scout.join().expect("it ends");
            }
            assert!(post.1.load(Relaxed));
            found.extend(post.0.take());
            found.sort_unstable();
            assert_eq!(found, ["one", "two"]);
            assert!(post.0.take().is_empty(), "and each comes once");
        });
    }

    #[test]
    fn who_may_send_sees_under_which_lease() {
        loom::model(|| {
            let now = Instant::now();
            let lease = Arc::new((SendDeadline::ended(), AtomicU32::new(0)));
            let kept = Arc::clone(&lease);
            let assigner = thread::spawn(move || {
                kept.1.store(7, Relaxed);
                kept.0.extend(now + Duration::from_secs(5));
            });
            if lease.0.covers(now + Duration::from_secs(1)) {
                assert_eq!(lease.1.load(Relaxed), 7, "the lease is older than the permit");
            }
            assigner.join().expect("it ends");
            assert!(!lease.0.covers(now + Duration::from_secs(6)));
        });
    }
}
