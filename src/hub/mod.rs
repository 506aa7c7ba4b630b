//! The Hugging Face hub: what a repository is called, what is in it, and its files, whole and checked.
//!
//! [`Repo`] reads what a user types, `api` speaks the protocol, [`download`] plans and fetches, [`local`] finds what is
//! already there. A token goes to the hub's own address and nowhere else; every file is checked against the hash the
//! hub lists before it gets its name.

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
