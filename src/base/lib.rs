//! Parts that every other crate uses: errors, files, settings, clients of HTTP servers and the hub.

pub mod answers;
pub mod bounds;
pub mod choice;
pub mod client;
pub mod config;
pub mod error;
pub mod files;
pub mod frame;
pub mod hub;
pub mod identity;
pub mod math;
pub mod observe;
pub mod philox;
pub mod secrets;
pub mod signal;
