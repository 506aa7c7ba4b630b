//! The cost of ops: arithmetic and memory traffic.

/// Arithmetic and memory traffic of an op, as recorded by a device that only counts or by the recording driver. Each
/// operand and each result is counted as moved once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// Name of the op.
    pub op: &'static str,
    /// Number of additions and multiplications.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Rows, columns and length of the sums if the op is a matrix product.
    pub product: Option<[usize; 3]>,
    /// Sequences if the op is attention over packed sequences.
    pub sequences: Option<Sequences>,
}

/// Sequences of a pack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sequences {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of pairs of a token and a key that it sees.
    pub pairs: usize,
    /// True if a token sees no later keys.
    pub causal: bool,
    /// Number of key heads, and of query heads for each of them.
    pub heads: [usize; 2],
}
