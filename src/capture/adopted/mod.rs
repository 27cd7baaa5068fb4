//! Tables that postrider did not make: what is remembered of them, and their rows.

mod attached;
pub mod changed;
pub mod copy;
pub mod handover;
pub mod mapping;
mod query;
pub mod registry;
pub mod row;
