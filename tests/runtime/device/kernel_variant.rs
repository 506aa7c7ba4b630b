//! Tests the names of kernel variants.

use omr_runtime::device::{KernelVariant, WgmmaKernels};

#[test]
fn a_record_names_its_variant() {
    for &(_, variant) in KernelVariant::ALL {
        assert_eq!(
            [variant.name(), variant.recorded(), "wgmma/9"].map(KernelVariant::named),
            [Some(variant), Some(variant), Some(KernelVariant::Wgmma)]
        );
    }
    assert_eq!(KernelVariant::named("avx2"), None);
}

#[test]
fn a_kernel_belongs_to_what_its_name_says() {
    for (name, kernels) in [
        ("linear_dgrad_wide", WgmmaKernels::Products),
        ("sample_logits_square", WgmmaKernels::Products),
        ("attention_fwd_wide_hd80", WgmmaKernels::Attention(80)),
        ("paged_attention_decode_wide_hd128", WgmmaKernels::Attention(128)),
        ("attention_bwd_dq_wide_hd80", WgmmaKernels::AttentionBwd(80)),
    ] {
        assert_eq!(WgmmaKernels::of(name), kernels);
    }
}
