//! A hub server on this machine.

pub mod receive;
pub mod server;
