//! The soft overlong punishment of DAPO: responses that use up the last part of the allowed length lose reward.

use crate::error::{Error, Result};

/// A buffer at the end of the allowed length; names are verl's `overlong_buffer_cfg`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OverlongBuffer {
    max_resp_len: usize,
    len: usize,
    penalty_factor: f64,
}

impl OverlongBuffer {
    /// A buffer of `len` tokens before `max_resp_len`. Refuses an empty one and one longer than the response,
    /// which would punish every response.
    pub fn new(max_resp_len: usize, len: usize, penalty_factor: f64) -> Result<OverlongBuffer> {
        if len == 0 || len > max_resp_len {
            let expected = format!("1 to max_resp_len ({max_resp_len}) tokens");
            return Err(Error::input("overlong_buffer.len", len.to_string(), expected));
        }
        Ok(OverlongBuffer { max_resp_len, len, penalty_factor })
    }

    /// What a response of `response_len` tokens adds to its reward: 0 before the buffer, falling to
    /// `-penalty_factor` at `max_resp_len`, and on below it beyond.
    pub fn penalty(&self, response_len: usize) -> f64 {
        let exceed = response_len as f64 - (self.max_resp_len - self.len) as f64;
        (-exceed / self.len as f64 * self.penalty_factor).min(0.0)
    }
}
