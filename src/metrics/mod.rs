//! What an instance tells of itself: counters, their text form, and the server that answers for both.

pub mod counters;
mod door;
#[cfg(test)]
mod door_tests;
pub mod http;
mod openmetrics;
