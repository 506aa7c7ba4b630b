//! Tests of training on rows of every layout.

pub mod formats;
pub mod streaming;
pub mod turns;
pub mod unread;
pub mod video;
