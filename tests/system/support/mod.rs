//! What the system tests share.

pub(crate) mod consumer;
pub(crate) mod fixture;
pub(crate) mod relay;
pub(crate) mod servers;
pub(crate) mod traffic;
pub(crate) mod vectors;
pub(crate) mod writer;

pub(crate) use consumer::{Consumed, read_topic};
pub(crate) use fixture::Fixture;
pub(crate) use relay::RelayProcess;
pub(crate) use servers::{start_kafka, start_postgres};
pub(crate) use writer::{History, Writer};
