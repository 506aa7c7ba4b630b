//! DAPO's soft overlong punishment: responses whose length reaches the last part of the allowed length lose reward.

use omr_base::config::rl::OverlongBufferConfig;

/// Returns the penalty that is added to the reward of a response with `response_len` tokens. The buffer is the last
/// `len` tokens before `max_resp_len`. The penalty is 0 before the buffer, falls linearly to `-penalty_factor` at
/// `max_resp_len`, and continues to fall beyond.
pub fn penalty(buffer: &OverlongBufferConfig, max_resp_len: usize, response_len: usize) -> f64 {
    let exceed = response_len as f64 - (max_resp_len - buffer.len) as f64;
    (-exceed / buffer.len as f64 * buffer.penalty_factor).min(0.0)
}
