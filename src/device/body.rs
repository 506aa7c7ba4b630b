//! The two bodies of matrix products on a GPU.

/// How matrix products run. A run keeps to one: sampling, training and its checkpoints have one arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// kernels/common/gemm.cuh, on every card.
    Mma,
    /// kernels/common/gemm_sm90a.cuh, on compute capability 9.0.
    Wgmma,
}

impl Body {
    /// Both.
    pub const ALL: [Body; 2] = [Body::Mma, Body::Wgmma];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Body::Mma => "mma.sync",
            Body::Wgmma => "wgmma",
        }
    }

    /// What checkpoints record: the name, and a version that goes up when chains of products are made otherwise.
    pub fn recorded(self) -> &'static str {
        match self {
            // 1: steps of dK's and dV's chains over 64 rows whatever tokens they are of.
            Body::Mma => "mma.sync/2",
            // 1: gradients by mma.sync. 2: as mma.sync/1.
            Body::Wgmma => "wgmma/3",
        }
    }

    /// The body of a name, also of one with a version.
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
