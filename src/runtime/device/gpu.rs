//! Launching kernels from ops: the addresses of tensors and the parameters of kernels.

use crate::device::kernel_variant::Variants;
use crate::device::{Driver, Launch, Memory, Params, Span, Stream, WgmmaKernels};
use omr_base::error::Result;

/// Parts of the GPU backend that an op uses.
pub struct Gpu<'a> {
    /// Name of the op that runs, in errors.
    pub op: &'static str,
    /// Memory regions.
    pub memory: &'a Memory,
    /// Driver.
    pub driver: &'a mut dyn Driver,
    /// Stream that ops run on.
    pub stream: Stream,
    /// Kernel variants.
    pub(super) variants: &'a Variants,
    /// Maximum CTAs of a kernel that processes its tiles in turn: the multiprocessors, or fewer if
    /// [`Device::limit_ctas`](crate::device::Device::limit_ctas) limits them.
    pub max_ctas: usize,
    /// A u32 that is zero between launches. The launches of the compute stream may count with it.
    pub counter: Span,
}

impl Gpu<'_> {
    /// Returns true if `kernels` use wgmma.
    pub fn uses_wgmma(&self, kernels: WgmmaKernels) -> bool {
        self.variants.use_wgmma(kernels)
    }

    /// Returns the name of the kernel that replaces one of a product, as [`Device::use_candidate`] has set it.
    ///
    /// [`Device::use_candidate`]: crate::device::Device::use_candidate
    pub fn candidate(&self) -> Option<&'static str> {
        self.variants.candidate
    }

    /// Launches kernel `name` of `kernels/FILE.cu` on the stream, in a profiler range of that name. Does nothing if the
    /// grid is empty.
    pub fn launch(&mut self, file: &'static str, name: &'static str, launch: Launch, params: Params) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let kernel = self.driver.kernel(file, name)?;
        let recorded = self.driver.records_ranges();
        if recorded {
            self.driver.range_push(name);
        }
        let queued = self.driver.launch(self.stream, kernel, &launch, &params.into_bytes(self.memory));
        if recorded {
            self.driver.range_pop();
        }
        queued
    }
}
