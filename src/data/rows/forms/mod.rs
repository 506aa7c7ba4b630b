//! Forms of rows: which columns hold the question, the answer and the images, and how they become a row.

pub mod answer;
pub(crate) mod choices;
pub(crate) mod extra;
pub mod fields;
pub mod form;
pub mod names;
pub(crate) mod table;
pub(crate) mod templates;
pub(crate) mod unread;
