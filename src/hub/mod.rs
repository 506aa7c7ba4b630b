//! The Hugging Face hub: names of repositories, listings, and verified downloads.
//!
//! [`Repo`] parses what a user types, `api` implements the protocol, [`download`] plans and fetches, and [`local`]
//! finds existing snapshots. A token is sent only to the hub's own address. Every file is verified against the listed
//! hash before it gets its final name.

#![forbid(unsafe_code)]

mod api;
mod check;
pub mod download;
mod fetch;
mod http;
pub mod local;
mod record;
mod repo;
mod settings;

pub use repo::{Kind, Repo};
pub use settings::Settings;
