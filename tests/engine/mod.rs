pub(crate) mod parity;
mod scheduler;
