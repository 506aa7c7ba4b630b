//! The two kernel variants of matrix products on a GPU.

/// Kernel variant of matrix products. A run never changes it, so sampling, training and checkpoints use the same
/// arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// kernels/common/gemm.cuh, for every GPU.
    Mma,
    /// kernels/common/gemm_sm90a.cuh, for compute capability 9.0.
    Wgmma,
}

impl Body {
    /// Both variants.
    pub const ALL: [Body; 2] = [Body::Mma, Body::Wgmma];

    /// Returns the name of the variant.
    pub fn name(self) -> &'static str {
        match self {
            Body::Mma => "mma.sync",
            Body::Wgmma => "wgmma",
        }
    }

    /// Returns the text that checkpoints record: the name and a version. The version increases whenever the order of
    /// summation in products changes.
    pub fn recorded(self) -> &'static str {
        match self {
            // Version 1 summed dK and dV in steps of 64 rows, regardless of which tokens the rows belong to.
            Body::Mma => "mma.sync/2",
            // Version 1 computed gradients with mma.sync. Version 2 summed as mma.sync/1 does.
            Body::Wgmma => "wgmma/3",
        }
    }

    /// Returns the variant with this name. A version suffix is ignored.
    pub fn named(name: &str) -> Option<Body> {
        let name = name.split('/').next()?;
        Body::ALL.into_iter().find(|body| body.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_body() {
        for body in Body::ALL {
            assert_eq!(
                [body.name(), body.recorded(), "wgmma/9"].map(Body::named),
                [Some(body), Some(body), Some(Body::Wgmma)]
            );
        }
        assert_eq!(Body::named("avx2"), None);
    }
}
