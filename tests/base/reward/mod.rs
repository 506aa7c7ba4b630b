//! A judge server on this machine.

pub mod judge_server;
