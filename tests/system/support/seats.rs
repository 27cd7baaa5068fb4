//! How many tests work at once.
//!
//! A test that waits for most of its time, for a lease or a time-out, costs the machine next to nothing: it runs beside
//! the others. All others have a seat each, and there are two more of those than cores: with more, a slow machine is
//! late for what they wait for. So there may be more test threads than seats.

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

/// Seats beyond the cores.
const SPARE: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

thread_local! {
    /// That of the test whose thread this is; it goes with the thread.
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Where a test is.
enum Place {
    Seated(Seat),
    /// It waits for most of its time.
    Standing,
}

struct Seat;

impl Seat {
    fn wait() -> Self {
        let seats = available_parallelism().map_or(1, usize::from) + SPARE;
        let mut taken = FREED
            .wait_while(count(), |taken| *taken >= seats)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *count() -= 1;
        FREED.notify_one();
    }
}

fn count() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until this thread's test may work. Before its first patience begins, and once.
pub(crate) fn take() {
    PLACE.with_borrow_mut(|place| {
        place.get_or_insert_with(|| Place::Seated(Seat::wait()));
    });
}

/// The first words of a test that waits for most of its time: it needs no seat.
pub(crate) fn mostly_waits() {
    PLACE.with_borrow_mut(|place| {
        place.get_or_insert(Place::Standing);
    });
}
