//! The gradient of a parameter as the ops of a backward pass receive it.

use crate::device::Device;
use crate::ops::check;
use crate::ops::matmul::row_stride;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Memory for the gradient of a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    /// The memory, f32.
    pub tensor: Tensor,
    /// State of the memory.
    pub holds: Holds,
}

/// State of the memory of a gradient, which decides what an op does with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Nothing: the content is not read, and every element is written.
    Nothing,
    /// Gradients of the same micro-batch: each sum continues from its element.
    Gradient,
    /// The sum over earlier micro-batches: the gradient is computed from zero, and then added.
    Sum,
}

impl Gradient {
    /// Returns the memory for an op that continues from its content. Memory that holds nothing is set to zero. Returns an
    /// error if it holds a sum, to which only products add.
    pub fn zeroed(self, dev: &mut Device) -> Result<Tensor> {
        match self.holds {
            Holds::Nothing => dev.fill_zero(self.tensor)?,
            Holds::Gradient => {}
            Holds::Sum => check::fail("gradient", "memory for a gradient", "the sum of an update")?,
        }
        Ok(self.tensor)
    }

    /// Returns the gradient for a product over `tokens` with rows of `k` elements. Memory that holds nothing is set to
    /// zero if the product would not write all of it: on a CPU, without tokens, and if the rows are padded.
    pub(super) fn of_product(self, dev: &mut Device, tokens: usize, k: usize) -> Result<Gradient> {
        let (gpu, empty) = (dev.kind().is_gpu(), self.holds == Holds::Nothing);
        if gpu && (!empty || tokens > 0 && row_stride(k) == k) {
            return Ok(self);
        }
        self.zeroed(dev).map(Gradient::from)
    }

    /// Returns the bytes that a product moves.
    pub(super) fn moved(self) -> f64 {
        check::moved(&[self.tensor]) + check::added(self.tensor, self.holds != Holds::Nothing)
    }
}

impl From<Tensor> for Gradient {
    /// Returns a gradient to which ops add.
    fn from(tensor: Tensor) -> Gradient {
        Gradient { tensor, holds: Holds::Gradient }
    }
}
