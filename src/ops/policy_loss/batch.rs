//! A mini-batch in the host's memory.

/// Storage of log-probs and gradients: f32 in training, f64 for reference.
pub trait Real: Copy + Into<f64> {
    /// Nearest value.
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

/// A mini-batch or a part of one. `T` tokens in `S` sequences, packed.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a, F> {
    /// Row borders, `[S+1]`, from 0 to T.
    pub cu_seqlens: &'a [u32],
    /// `[T]`, log-probs of the policy that acted.
    pub old_log_prob: &'a [F],
    /// `[T]`, the reference policy's; needed with a KL term.
    pub ref_log_prob: Option<&'a [F]>,
    /// `[S]`.
    pub advantages: &'a [f64],
}
