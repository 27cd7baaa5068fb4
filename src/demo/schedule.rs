//! When the next transaction is due, and what it is about.
//!
//! Promises: the rate is that of an open loop: a slow database makes the shop late, and the shop then
//! tries to catch up. Must not: sleep itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One transaction in this many is rolled back.
const ROLL_BACK_EVERY: u64 = 20;
/// One order in this many is a new customer's.
const NEW_CUSTOMER_EVERY: i64 = 10;
/// With this many orders on their way, two of three transactions are about one of them.
const OPEN_ORDERS: usize = 100;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShopWork {
    /// Place a new order.
    Place {
        /// The order's number.
        order: i64,
        /// Whose it is.
        customer: Customer,
    },
    /// Take an order one step further.
    Advance {
        /// The order's number.
        order: i64,
    },
}

/// Who places an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Customer {
    /// Registered in the same transaction.
    New(i64),
    /// Known to the shop.
    Known(i64),
}

/// How a transaction is meant to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShopIntent {
    Commit,
    RollBack,
}

/// One transaction to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) work: ShopWork,
    pub(super) intent: ShopIntent,
    pub(super) due: Instant,
}

/// The shop's plan; its connections take jobs from it.
#[derive(Debug)]
pub(super) struct ShopSchedule {
    begin: Instant,
    events_per_second: u32,
    events: u64,
    jobs: u64,
    orders: i64,
    customers: i64,
    /// Orders with steps to go, once per step.
    open: VecDeque<i64>,
}

impl ShopSchedule {
    pub(super) fn new(begin: Instant, events_per_second: u32) -> Self {
        Self {
            begin,
            events_per_second,
            events: 0,
            jobs: 0,
            orders: 1000,
            customers: 0,
            open: VecDeque::new(),
        }
    }

    /// The next job.
    pub(super) fn next(&mut self) -> Job {
        self.jobs += 1;
        let due = self.begin + self.offset();
        let advances = self.open.len() >= OPEN_ORDERS && !self.jobs.is_multiple_of(3);
        let work = match advances.then(|| self.open.pop_front()).flatten() {
            Some(order) => ShopWork::Advance { order },
            None => self.place(),
        };
        self.events += work.events();
        let rolls_back = self.jobs.is_multiple_of(ROLL_BACK_EVERY);
        let intent = if rolls_back { ShopIntent::RollBack } else { ShopIntent::Commit };
        Job { work, intent, due }
    }

    /// An order was placed: it will be paid, then shipped. Both steps stand one after the other, so
    /// that two connections often want the same order at the same time.
    pub(super) fn placed(&mut self, order: i64) {
        self.open.extend([order, order]);
    }

    /// A step was rolled back: it is still to be done.
    pub(super) fn not_advanced(&mut self, order: i64) {
        self.open.push_back(order);
    }

    fn offset(&self) -> Duration {
        Duration::from_secs_f64(self.events as f64 / f64::from(self.events_per_second))
    }

    fn place(&mut self) -> ShopWork {
        self.orders += 1;
        let is_new = self.customers == 0 || self.orders % NEW_CUSTOMER_EVERY == 0;
        let customer = if is_new {
            self.customers += 1;
            Customer::New(self.customers)
        } else {
            Customer::Known(1 + self.orders % self.customers)
        };
        ShopWork::Place { order: self.orders, customer }
    }
}

impl ShopWork {
    fn events(self) -> u64 {
        match self {
            Self::Place { customer: Customer::New(_), .. } => 2,
            Self::Place { .. } | Self::Advance { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_the_mix() {
        let begin = Instant::now();
        let mut schedule = ShopSchedule::new(begin, 1000);
        let (mut events, mut rolled_back, mut advanced) = (0, 0, 0);
        for _ in 0..10_000 {
            let job = schedule.next();
            assert_eq!(job.due, begin + Duration::from_secs_f64(events as f64 / 1000.0));
            events += job.work.events();
            rolled_back += u64::from(job.intent == ShopIntent::RollBack);
            match job.work {
                ShopWork::Place { order, .. } => schedule.placed(order),
                ShopWork::Advance { .. } => advanced += 1,
            }
        }
        assert_eq!(rolled_back, 500);
        assert!((6000..7000).contains(&advanced), "{advanced}");
    }
}
