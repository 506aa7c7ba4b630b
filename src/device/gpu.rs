//! Launching kernels from ops: the addresses of tensors and the parameters of kernels.

use crate::device::driver::{Driver, Launch, Stream};
use crate::device::memory::Memory;
use crate::device::params::Params;
use crate::error::Result;

/// Parts of the GPU backend that an op uses.
pub struct Gpu<'a> {
    /// Memory regions.
    pub memory: &'a Memory,
    /// Driver.
    pub driver: &'a mut dyn Driver,
    /// Stream that ops run on.
    pub stream: Stream,
    /// True if matrix products use wgmma, see [`Device::use_variant`](crate::device::Device::use_variant).
    pub wgmma: bool,
    /// True if attention uses wgmma, see
    /// [`Device::refuse_wgmma_attention`](crate::device::Device::refuse_wgmma_attention).
    pub wgmma_attention: bool,
    /// True if the backward pass of attention uses wgmma, see
    /// [`Device::refuse_wgmma_attention_bwd`](crate::device::Device::refuse_wgmma_attention_bwd).
    pub wgmma_attention_bwd: bool,
}

impl Gpu<'_> {
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
