//! Kafka: the one folder that knows librdkafka.

mod apart;
pub mod ask;
mod callbacks;
mod clients;
pub mod config;
mod doubt;
mod errors;
mod in_flight;
pub mod learned_limits;
mod login;
mod meeting;
pub mod passwords;
mod poll_thread;
pub mod producer;
mod quota;
mod roll;
mod sizes;
mod stall;
mod suspicion;
pub mod tokens;
mod topic_cache;
pub mod topic_check;
mod topic_config;
mod topic_list;
mod topic_survey;
mod topic_watcher;
mod verdict;
