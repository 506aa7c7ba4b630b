mod parity;
mod scheduler;
mod speed;
