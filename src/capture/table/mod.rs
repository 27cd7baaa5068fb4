//! Events from the outbox table: the ticks, and the pages that are claimed between two of them.

mod below;
pub mod claim;
pub mod past_ticks;
pub mod rest;
pub mod sample;
mod sequence;
mod tick_memory;
pub mod ticker;
