//! What an instance tells of itself: counters, how well it is by them, their text form, and the server that answers
//! for all of it.

pub mod admin;
mod api;
pub mod beats;
mod catalogue;
pub mod counters;
pub mod describe;
mod door;
#[cfg(test)]
mod door_tests;
pub mod estimate;
mod family;
pub mod health;
mod health_check;
pub mod histogram;
mod host;
pub mod http;
mod infos;
pub mod openmetrics;
pub mod overlong;
mod page;
mod process;
pub mod progress;
pub mod recent;
#[cfg(test)]
pub(crate) mod sample;
pub mod seen;
pub mod sentence;
pub mod session_state;
pub mod shape;
pub mod steer;
mod still_count;
pub mod vitals;
