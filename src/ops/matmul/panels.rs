//! How linear weights lie in memory: panels of 32 output columns, so that vectors run over outputs and a
//! product streams its weight once, in order.
//!
//! A weight W [N, K] is stored as f32 `[ceil(N/32)][K][32]` or bf16 `[ceil(N/32)][ceil(K/2)][32][2]` (pairs over
//! K, as `vdpbf16ps` takes them). Padding is zero and stays zero. Gradients and optimizer state are f32 in the
//! element order of their weight's dtype. On a GPU the same arrays are in rows ([`Order::Rows`]).

use crate::device::Device;
use crate::tensor::{DType, Tensor};

/// Output columns of one panel.
pub const PANEL: usize = 32;

/// Columns of a weight's rows on a GPU are padded to a multiple of this: whole k16 steps of any stage, and rows that
/// start on 128 bytes, as tensor maps and 16-byte copies want them.
pub const ROW_PAD: usize = 64;

/// The element order of weights, their gradients and optimizer state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Order {
    /// Column panels: the CPU's.
    Panels,
    /// Rows of k elements, padded with zeros to a multiple of 64: a GPU's.
    Rows,
}

impl Order {
    /// The order on `dev` (on a device that only counts, that of the device it stands for).
    pub fn of(dev: &Device) -> Order {
        if dev.kind().is_gpu() { Order::Rows } else { Order::Panels }
    }

    /// Elements of a weight [n, k], padding included.
    pub fn len(self, dtype: DType, n: usize, k: usize) -> usize {
        match self {
            Order::Panels => panel_len(dtype, n, k),
            Order::Rows => n * row_stride(k),
        }
    }

    /// Elements of the pieces that rows are stored in: a panel of [`PANEL`] rows, or one row.
    pub fn piece(self, dtype: DType, k: usize) -> (usize, usize) {
        match self {
            Order::Panels => (PANEL, panel_stride(dtype, k)),
            Order::Rows => (1, row_stride(k)),
        }
    }

    /// Where element (row `n`, column `i`) of a weight with `k` columns lies.
    #[inline(always)]
    pub fn index(self, dtype: DType, k: usize, n: usize, i: usize) -> usize {
        match self {
            Order::Panels => index(dtype, k, n, i),
            Order::Rows => n * row_stride(k) + i,
        }
    }
}

/// Elements from one row to the next on a GPU.
pub fn row_stride(k: usize) -> usize {
    k.next_multiple_of(ROW_PAD)
}

/// A linear layer's weight W [n, k]; `data` is flat, in `order`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight {
    /// [`Order::len`] elements of the compute dtype.
    pub data: Tensor,
    /// Element order: that of the device it lies on.
    pub order: Order,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// Panels of `n` columns.
pub fn panel_count(n: usize) -> usize {
    n.div_ceil(PANEL)
}

/// Elements of one panel over `k` inputs.
pub fn panel_stride(dtype: DType, k: usize) -> usize {
    match dtype {
        DType::Bf16 => k.next_multiple_of(2) * PANEL,
        _ => k * PANEL,
    }
}

/// Elements of a weight [n, k] in panel order, padding included.
pub fn panel_len(dtype: DType, n: usize, k: usize) -> usize {
    panel_count(n) * panel_stride(dtype, k)
}

/// Where element (row `n`, column `i`) of a weight with `k` columns lies.
#[inline(always)]
pub fn index(dtype: DType, k: usize, n: usize, i: usize) -> usize {
    let panel = n / PANEL * panel_stride(dtype, k);
    match dtype {
        DType::Bf16 => panel + (i / 2 * PANEL + n % PANEL) * 2 + i % 2,
        _ => panel + i * PANEL + n % PANEL,
    }
}
