//! The Hugging Face hub: names of repositories, listings, verified downloads, and uploads.
//!
//! [`Repo`] parses what a user types, `http` sends requests, `api` implements the protocol, [`download`] plans and fetches, [`upload`] sends
//! and commits, and [`local`] finds existing snapshots. A token is sent only to the hub's own address. Every downloaded
//! file is verified against the listed hash before it gets its final name.

#![forbid(unsafe_code)]

mod api;
mod check;
pub mod download;
mod fetch;
mod http;
pub mod local;
mod part;
mod record;
mod repo;
mod settings;
mod transfer;
pub mod upload;

pub use repo::{Kind, Repo};
pub use settings::Settings;
