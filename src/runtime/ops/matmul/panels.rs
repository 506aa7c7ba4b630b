//! Memory layout of linear weights: panels of 32 output columns. Vectors run over outputs, and a product reads its
//! weight once, in order.
//!
//! A weight W [N, K] is stored as f32 `[ceil(N/32)][K][32]` or bf16 `[ceil(N/32)][ceil(K/2)][32][2]` (pairs over K, the
//! operand format of `vdpbf16ps`). Padding is zero and stays zero. Gradients and optimizer state are f32, in the
//! element order of their weight's dtype. On a GPU the same arrays are stored by rows ([`Order::Rows`]).

use crate::device::Device;
use crate::ops::quantized::{Layout, Quantized};
use crate::tensor::{DType, Tensor};
use omr_base::choice::BaseFormat;

/// Output columns of one panel.
pub const PANEL: usize = 32;

/// Multiple to which the rows of a weight on a GPU are padded, in elements. Rows then consist of complete k16 steps in
/// every pipeline stage and start at multiples of 128 bytes, as tensor maps and 16-byte copies require.
pub const ROW_PAD: usize = 64;

/// Element order of weights, their gradients and optimizer state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Order {
    /// Column panels, the order on the CPU.
    Panels,
    /// Rows of k elements, padded with zeros to a multiple of 64: the order on a GPU.
    Rows,
    /// Rows of k elements without padding: on a GPU, matrices that no product reads.
    Dense,
}

impl Order {
    /// Returns the order on `dev`. For a device that only counts memory, this is the order of the device it
    /// represents.
    pub fn of(dev: &Device) -> Order {
        if dev.kind().is_gpu() { Order::Rows } else { Order::Panels }
    }

    /// Returns the order of a matrix that no product reads, on a device with this order of weights.
    pub fn dense(self) -> Order {
        if self == Order::Rows { Order::Dense } else { self }
    }

    /// Returns the number of elements of a weight `[n, k]`, padding included.
    pub fn len(self, dtype: DType, n: usize, k: usize) -> usize {
        match self {
            Order::Panels => panel_len(dtype, n, k),
            Order::Rows => n * row_stride(k),
            Order::Dense => n * k,
        }
    }

    /// Returns the layout of a quantised weight `[n, k]`, and its number of units.
    pub fn quantized(self, format: BaseFormat, n: usize, k: usize) -> (Layout, usize) {
        match self {
            Order::Panels => (Layout { format, rows: PANEL, k: k.next_multiple_of(2) }, panel_count(n)),
            Order::Rows | Order::Dense => (Layout { format, rows: 1, k: row_stride(k) }, n),
        }
    }

    /// Returns the size of a storage unit as (rows, elements): a panel of [`PANEL`] rows, or a single row.
    pub fn piece(self, dtype: DType, k: usize) -> (usize, usize) {
        match self {
            Order::Panels => (PANEL, panel_stride(dtype, k)),
            Order::Rows => (1, row_stride(k)),
            Order::Dense => (1, k),
        }
    }

    /// Returns the position of the element in row `n` and column `i` of a weight with `k` columns.
    #[inline(always)]
    pub fn index(self, dtype: DType, k: usize, n: usize, i: usize) -> usize {
        match self {
            Order::Panels => index(dtype, k, n, i),
            Order::Rows => n * row_stride(k) + i,
            Order::Dense => n * k + i,
        }
    }

    /// Writes the elements of one row of a weight to `out`, which starts at the position of the row's first element.
    pub fn put_row<T: Copy>(self, dtype: DType, row: &[T], out: &mut [T]) {
        match (self, dtype) {
            (Order::Rows | Order::Dense, _) => out[..row.len()].copy_from_slice(row),
            (Order::Panels, DType::Bf16) => {
                let pairs = row.chunks_exact(2);
                if let [last] = pairs.remainder() {
                    out[(row.len() - 1) * PANEL] = *last;
                }
                pairs.zip(out.chunks_mut(2 * PANEL)).for_each(|(pair, out)| out[..2].copy_from_slice(pair));
            }
            (Order::Panels, _) => row.iter().zip(out.chunks_mut(PANEL)).for_each(|(x, out)| out[0] = *x),
        }
    }
}

/// Returns the distance between the starts of two rows on a GPU, in elements.
pub fn row_stride(k: usize) -> usize {
    k.next_multiple_of(ROW_PAD)
}

/// Weight W `[n, k]` of a linear layer. `data` is flat, in `order`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight {
    /// Tensor with [`Order::len`] elements of the compute dtype, or the codes if the weight is quantised.
    pub data: Tensor,
    /// Element order of the device that holds the weight.
    pub order: Order,
    /// Number of outputs.
    pub n: usize,
    /// Number of inputs.
    pub k: usize,
    /// Format and scales of a quantised weight.
    pub quantized: Option<Quantized>,
}

impl Weight {
    /// Returns a weight that is not quantised.
    pub fn new(data: Tensor, order: Order, n: usize, k: usize) -> Weight {
        Weight { data, order, n, k, quantized: None }
    }

    /// Returns the compute type.
    pub fn dtype(&self) -> DType {
        self.quantized.map_or(self.data.dtype, |quantized| quantized.dtype)
    }

    /// Returns the scales, or an empty slice of the data if the weight is not quantised.
    pub fn scales(&self) -> Tensor {
        self.quantized.map_or(self.data.slice(0, 0), |quantized| quantized.scales)
    }

    /// Returns the bytes of everything that a product reads of the weight.
    pub fn bytes(&self) -> f64 {
        (self.data.span().bytes + self.scales().span().bytes) as f64
    }
}

/// Returns the number of panels of `n` columns.
pub fn panel_count(n: usize) -> usize {
    n.div_ceil(PANEL)
}

/// Returns the number of elements of one panel over `k` inputs.
pub fn panel_stride(dtype: DType, k: usize) -> usize {
    match dtype {
        DType::Bf16 => k.next_multiple_of(2) * PANEL,
        _ => k * PANEL,
    }
}

/// Returns the number of elements of a weight `[n, k]` in panel order, padding included.
pub fn panel_len(dtype: DType, n: usize, k: usize) -> usize {
    panel_count(n) * panel_stride(dtype, k)
}

/// Returns the position of the element in row `n` and column `i` of a weight with `k` columns, in panel order.
#[inline(always)]
pub fn index(dtype: DType, k: usize, n: usize, i: usize) -> usize {
    let panel = n / PANEL * panel_stride(dtype, k);
    match dtype {
        DType::Bf16 => panel + (i / 2 * PANEL + n % PANEL) * 2 + i % 2,
        _ => panel + i * PANEL + n % PANEL,
    }
}
