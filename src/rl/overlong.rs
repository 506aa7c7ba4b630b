//! DAPO's soft overlong punishment: responses whose length reaches the last part of the allowed length lose reward.

use crate::error::{Error, Result};

/// The penalised part at the end of the allowed length. Names are those of verl's `overlong_buffer_cfg`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OverlongBuffer {
    max_resp_len: usize,
    len: usize,
    penalty_factor: f64,
}

impl OverlongBuffer {
    /// Creates a buffer of the last `len` tokens before `max_resp_len`. Errors if `len` is 0. Errors also if `len`
    /// exceeds `max_resp_len`, because the buffer would then punish every response.
    pub fn new(max_resp_len: usize, len: usize, penalty_factor: f64) -> Result<OverlongBuffer> {
        if len == 0 || len > max_resp_len {
            let expected = format!("1 to max_resp_len ({max_resp_len}) tokens");
            return Err(Error::input("overlong_buffer.len", len.to_string(), expected));
        }
        Ok(OverlongBuffer { max_resp_len, len, penalty_factor })
    }

    /// Returns the penalty that is added to the reward of a response with `response_len` tokens. It is 0 before the
    /// buffer, falls linearly to `-penalty_factor` at `max_resp_len`, and continues to fall beyond.
    pub fn penalty(&self, response_len: usize) -> f64 {
        let exceed = response_len as f64 - (self.max_resp_len - self.len) as f64;
        (-exceed / self.len as f64 * self.penalty_factor).min(0.0)
    }
}
