//! Launching from ops: addresses of tensors' memory and kernels' parameters.

use crate::device::driver::{Driver, Launch, Stream};
use crate::device::memory::Memory;
use crate::device::params::Params;
use crate::error::Result;

/// The GPU backend's parts, as an op sees them.
pub struct Gpu<'a> {
    /// The regions.
    pub memory: &'a Memory,
    /// The driver.
    pub driver: &'a mut dyn Driver,
    /// The stream ops run on.
    pub stream: Stream,
    /// Whether products run by wgmma, see [`Device::use_body`](crate::device::Device::use_body).
    pub wgmma: bool,
    /// Whether attention does, see [`Device::refuse_wgmma_attention`](crate::device::Device::refuse_wgmma_attention).
    pub wgmma_attention: bool,
    /// Whether its backward does, see [`Device::refuse_wgmma_attention_bwd`](crate::device::Device::refuse_wgmma_attention_bwd).
    pub wgmma_attention_bwd: bool,
}

impl Gpu<'_> {
    /// Launches kernel `name` of `kernels/FILE.cu` on the stream, in a range of its name. An empty grid
    /// launches nothing.
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
