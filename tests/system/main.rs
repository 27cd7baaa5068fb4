//! System tests: the real binary against a real PostgreSQL and a real Kafka.
//!
//! Both servers are started once per run, by the project itself; each test has a database and topics
//! of its own, so that all run in parallel. Tests that stop or kill a server start one of their own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may talk")]

mod support;

mod admin;
mod adopt;
mod adopt_copy;
mod adopt_encodings;
mod adopt_forms;
mod adopt_giants;
mod adopt_parts;
mod adopt_savepoints;
mod adopt_stuck;
mod backlog;
mod bad_rows;
mod capture;
mod changed;
mod cloud_events;
mod command_line;
mod connection;
mod copied;
mod crash;
mod credentials;
mod debezium;
mod debezium_switch;
mod doctor;
mod emit;
mod encodings;
mod encryption;
mod event_places;
mod exactly;
mod exactly_cluster;
mod exactly_deaths;
mod exactly_switch;
mod exactly_topic;
mod faults;
mod handover;
mod health;
mod holds;
mod idle;
mod inbox;
mod law;
mod log;
mod log_access;
mod log_faults;
mod log_forms;
mod log_stream;
mod log_tables;
mod logins;
mod message;
mod migrate;
mod migrations;
mod numbers;
mod open_transactions;
mod order;
mod parked_store;
mod parking;
mod partitions;
mod patterns;
mod pause;
mod pg_upgrade;
mod plan;
mod printed;
mod proof;
mod quota;
mod records;
mod reference;
mod refusals;
mod replay;
mod retention;
mod rotation;
mod schemas;
mod sequence;
mod service;
mod settings;
mod strangers;
mod switching;
mod tap;
mod tier;
mod told;
mod topics;
mod topics_made;
mod upgrade;
