//! The OpenAI-compatible server. Request handlers parse and check; one thread owns device and engine; requests and
//! tokens pass through channels. An answer depends only on weights, arithmetic, request and seed.

#![forbid(unsafe_code)]

mod answer;
mod app;
mod batch;
mod batch_line;
mod body;
mod engine_client;
mod engine_thread;
mod errors;
mod fields;
mod format;
mod http;
mod media;
mod messages;
mod metrics;
mod page;
mod patient;
mod record;
mod replay;
mod requests;
mod routes;
mod sampling;
mod server;
mod sizes;
mod stream;
mod terminal;
mod text;

pub use app::Options;
pub use batch::Batch;
pub use http::{is_of_loopback, serve_beside};
pub use server::{Server, listen};
pub use terminal::HELP;
