mod parity;
mod scheduler;
