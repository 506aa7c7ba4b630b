//! A mini-batch in host memory.

/// Storage type of log-probs and gradients: f32 in training, f64 for reference values.
pub trait Real: Copy + Into<f64> {
    /// Converts an f64 to the nearest value of this type.
    fn from_f64(x: f64) -> Self;
}
impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
}
impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
}

/// A mini-batch or a part of one: `T` tokens in `S` packed sequences.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a, F> {
    /// Cumulative sequence lengths `[S+1]`, from 0 to T.
    pub cu_seqlens: &'a [u32],
    /// Log-probs `[T]` under the policy that sampled the tokens.
    pub old_log_prob: &'a [F],
    /// Log-probs `[T]` under the reference policy; required with a KL term.
    pub ref_log_prob: Option<&'a [F]>,
    /// Log-probs `[T]` under the teacher; required with distillation.
    pub teacher_log_prob: Option<&'a [F]>,
    /// Advantage of each sequence, `[S]`.
    pub advantages: &'a [f64],
}
