//! What the system tests share.

pub(crate) mod acl;
pub(crate) mod bulk;
pub(crate) mod capture;
pub(crate) mod consumer;
pub(crate) mod fixture;
pub(crate) mod logins;
pub(crate) mod patience;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod refuser;
pub(crate) mod relay;
pub(crate) mod seats;
pub(crate) mod servers;
pub(crate) mod traffic;
pub(crate) mod vectors;
pub(crate) mod writer;

pub(crate) use bulk::Bulk;
pub(crate) use capture::{Capture, Delivery};
pub(crate) use consumer::{Consumed, read_topic};
pub(crate) use fixture::Fixture;
pub(crate) use patience::Patience;
pub(crate) use proxy::{Ending, Mode, Proxy};
pub(crate) use random::Random;
pub(crate) use relay::RelayProcess;
pub(crate) use seats::mostly_waits;
pub(crate) use servers::{class_archive, start_kafka, start_postgres, start_proxied_kafka};
pub(crate) use traffic::{Load, Traffic};
pub(crate) use writer::{History, Writer};
