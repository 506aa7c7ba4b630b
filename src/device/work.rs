//! What ops cost.

/// Arithmetic and memory traffic of an op, as a device that only counts notes them: what each operand and result costs
/// when it is moved once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// The op.
    pub op: &'static str,
    /// Additions and multiplications.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Of a product its rows, columns and the length of its sums.
    pub product: Option<[usize; 3]>,
}
