//! Selects the kernel variants of matrix products and attention on a GPU.

use super::backend::{Backend, Device};
use super::kernel_variant::KernelVariant;
use crate::error::{Error, Result};

impl Device {
    /// Selects the kernel variant of linear layers, their gradients and logits. A run selects it once. Errors if the
    /// device does not support it.
    pub fn use_variant(&mut self, wanted: KernelVariant) -> Result<()> {
        let supported = wanted == KernelVariant::Mma || self.has_wgmma();
        match &mut self.backend {
            Backend::Gpu { variant, .. } if supported => {
                *variant = wanted;
                Ok(())
            }
            Backend::Gpu { refused: true, .. } => {
                Err(Error::Failed("wgmma on a GPU whose matrix products failed the start check".into()))
            }
            Backend::Gpu { driver, .. } => {
                let (major, minor) = driver.properties().compute_capability;
                Err(Error::Failed(format!("wgmma on compute capability {major}.{minor}: only 9.0 supports it")))
            }
            _ => Err(Error::Failed(format!("{} on a device that is not a GPU", wanted.name()))),
        }
    }

    /// Returns true if matrix products can use wgmma.
    pub fn has_wgmma(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, refused: false, .. } if driver.properties().compute_capability == (9, 0))
    }

    /// Disables wgmma for all products. Called if the start check finds that its results differ from the expected ones.
    pub fn refuse_wgmma(&mut self) {
        if let Backend::Gpu { variant, refused, .. } = &mut self.backend {
            (*variant, *refused) = (KernelVariant::Mma, true);
        }
    }

    /// Disables wgmma for attention, which then uses mma.sync. Called if the start check finds that the results differ.
    pub fn refuse_wgmma_attention(&mut self) {
        if let Backend::Gpu { attention_refused, .. } = &mut self.backend {
            *attention_refused = true;
        }
    }

    /// Disables wgmma for the backward pass of attention only.
    pub fn refuse_wgmma_attention_bwd(&mut self) {
        if let Backend::Gpu { attention_bwd_refused, .. } = &mut self.backend {
            *attention_bwd_refused = true;
        }
    }

    /// Returns the kernel variant of matrix products on a GPU, or `None` on other devices.
    pub fn variant(&self) -> Option<KernelVariant> {
        match self.backend {
            Backend::Gpu { variant, .. } => Some(variant),
            _ => None,
        }
    }
}
