//! Tests of the exchange of gradients between ranks that run as threads of one process.

pub mod one_card;
pub mod update;
