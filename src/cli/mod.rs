//! What people type.

pub mod demo;
