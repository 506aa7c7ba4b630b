//! The two kernel variants of matrix products on a GPU.

/// Kernel variant of matrix products. A run never changes it, so sampling, training and checkpoints use the same
/// arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelVariant {
    /// kernels/common/gemm.cuh, for every GPU.
    Mma,
    /// kernels/common/gemm_sm90a.cuh, for compute capability 9.0.
    Wgmma,
}

impl KernelVariant {
    /// Both variants.
    pub const ALL: [KernelVariant; 2] = [KernelVariant::Mma, KernelVariant::Wgmma];

    /// Returns the name of the variant.
    pub fn name(self) -> &'static str {
        match self {
            KernelVariant::Mma => "mma.sync",
            KernelVariant::Wgmma => "wgmma",
        }
    }

    /// Returns the text that checkpoints record: the name and a version. The version increases whenever the order of
    /// summation in products changes.
    pub fn recorded(self) -> &'static str {
        match self {
            // Version 1 summed dK and dV in steps of 64 rows, regardless of which tokens the rows belong to.
            KernelVariant::Mma => "mma.sync/2",
            // Version 1 computed gradients with mma.sync. Version 2 summed as mma.sync/1 does.
            KernelVariant::Wgmma => "wgmma/3",
        }
    }

    /// Returns the variant with this name. A version suffix is ignored.
    pub fn named(name: &str) -> Option<KernelVariant> {
        let name = name.split('/').next()?;
        KernelVariant::ALL.into_iter().find(|variant| variant.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_variant() {
        for variant in KernelVariant::ALL {
            assert_eq!(
                [variant.name(), variant.recorded(), "wgmma/9"].map(KernelVariant::named),
                [Some(variant), Some(variant), Some(KernelVariant::Wgmma)]
            );
        }
        assert_eq!(KernelVariant::named("avx2"), None);
    }
}
