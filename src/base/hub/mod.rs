//! The Hugging Face hub: names of repositories, listings, verified downloads, and uploads.
//!
//! [`Repo`] parses what a user types, `http` sends requests, `api` implements the protocol, [`download`] plans and
//! fetches, [`upload`] sends and commits, [`local`] finds existing snapshots, and [`base_model`] finds the base of an
//! adapter. A token is sent only to the hub's own address. Every downloaded
//! file is verified against the listed hash before it gets its final name.

#![forbid(unsafe_code)]

mod api;
pub mod base_model;
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
