//! Selects the kernel variants of matrix products and attention on a GPU.

use super::backend::{Backend, Device};
use super::kernel_variant::{KernelVariant, Variants, WgmmaKernels};
use omr_base::error::{Error, Result};

impl Device {
    fn variants(&self) -> Option<&Variants> {
        if let Backend::Gpu { variants, .. } = &self.backend { Some(variants) } else { None }
    }

    fn variants_mut(&mut self) -> Option<&mut Variants> {
        if let Backend::Gpu { variants, .. } = &mut self.backend { Some(variants) } else { None }
    }

    /// Selects the kernel variant of linear layers, their gradients, logits and attention. A run selects it once. Errors
    /// if the device does not support it.
    pub fn use_variant(&mut self, wanted: KernelVariant) -> Result<()> {
        let supported = wanted == KernelVariant::Mma || self.has_wgmma();
        match &mut self.backend {
            Backend::Gpu { variants, .. } if supported => {
                variants.selected = wanted;
                Ok(())
            }
            Backend::Gpu { variants, .. } if variants.refused.contains(&WgmmaKernels::Products) => {
                Err(Error::Failed("wgmma on a GPU whose matrix products failed the start check".into()))
            }
            Backend::Gpu { driver, .. } => {
                let (major, minor) = driver.properties().compute_capability;
                Err(Error::Failed(format!("wgmma on compute capability {major}.{minor}: only 9.0 supports it")))
            }
            _ => Err(Error::Failed(format!("{} on a device that is not a GPU", wanted.name()))),
        }
    }

    /// Records that the user has selected the variant in use, so that [`Device::follow_record`] keeps it.
    pub fn keep_variant(&mut self) {
        self.variants_mut().into_iter().for_each(|variants| variants.is_requested = true);
    }

    /// Switches to `mma.sync` if a checkpoint records it, and returns true if this changes the variant. The user's choice
    /// has priority over the record. The device never switches to wgmma here, because the start check has not run then.
    pub fn follow_record(&mut self, recorded: KernelVariant) -> bool {
        let Some(variants) = self.variants_mut() else { return false };
        let follows = !variants.is_requested && recorded == KernelVariant::Mma && variants.selected != recorded;
        if follows {
            variants.selected = recorded;
        }
        follows
    }

    /// Returns true if `kernels` use wgmma.
    pub fn uses_wgmma(&self, kernels: WgmmaKernels) -> bool {
        self.variants().is_some_and(|variants| variants.use_wgmma(kernels))
    }

    /// Returns true if matrix products can use wgmma.
    pub fn has_wgmma(&self) -> bool {
        match &self.backend {
            Backend::Gpu { driver, variants, .. } => {
                driver.properties().compute_capability == (9, 0) && !variants.refused.contains(&WgmmaKernels::Products)
            }
            _ => false,
        }
    }

    /// Returns the kernels that use `mma.sync` because their start check found a fault.
    pub fn refused_kernels(&self) -> Vec<WgmmaKernels> {
        self.variants().into_iter().flat_map(|variants| variants.refused.iter().copied()).collect()
    }

    /// Makes `kernels` use `mma.sync`. Called if the start check finds that their results differ from the expected ones.
    pub fn refuse_wgmma(&mut self, kernels: WgmmaKernels) {
        let Some(variants) = self.variants_mut() else { return };
        variants.refused.insert(kernels);
        if kernels == WgmmaKernels::Products {
            variants.selected = KernelVariant::Mma;
        }
    }

    /// Returns the kernel variant of matrix products on a GPU, or `None` on other devices.
    pub fn variant(&self) -> Option<KernelVariant> {
        self.variants().map(|variants| variants.selected)
    }

    /// Returns the arithmetic of a GPU as checkpoints record it: the variant of matrix products, the compute capability
    /// (8.x adds the products of a k16 step in two sums of 8, 9.0 in one sum of 16), and the kernels that use `mma.sync`
    /// although wgmma is selected. `None` on other devices.
    pub fn recorded_variant(&self) -> Option<String> {
        let Backend::Gpu { driver, variants, .. } = &self.backend else { return None };
        let (major, minor) = driver.properties().compute_capability;
        let mut text = format!("{} on compute capability {major}.{minor}", variants.selected.recorded());
        if variants.selected == KernelVariant::Wgmma {
            variants.refused.iter().for_each(|kernels| text.push_str(&format!(", {kernels} with mma.sync")));
        }
        Some(text)
    }

    /// Returns the arithmetic of this device: its kind, and its kernel variants as checkpoints record them. Bf16 results
    /// are reproducible only with the same arithmetic.
    pub fn arithmetic(&self) -> String {
        let variants = self.recorded_variant().unwrap_or_else(|| self.isa().chains().to_owned());
        format!("{} {variants}", self.kind().name())
    }

    /// Makes the candidate with this name (`ops::gemm::candidates`) replace the kernel of its product; `None` ends this.
    pub fn use_candidate(&mut self, name: Option<&'static str>) {
        self.variants_mut().into_iter().for_each(|variants| variants.candidate = name);
    }

    /// Limits the CTAs of the wgmma kernels, which process their tiles in turn, to `ctas`; `None` removes the limit.
    /// Under a small limit, a small product has several tiles per CTA, as a large product has on the whole GPU.
    pub fn limit_ctas(&mut self, ctas: Option<usize>) {
        if let Backend::Gpu { max_ctas, .. } = &mut self.backend {
            *max_ctas = ctas;
        }
    }
}
