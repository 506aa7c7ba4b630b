//! Kernels that only tests run: each wrapper of kernels/isa/ alone, and questions about the arithmetic of a GPU.

use omr::device::images::Images;

/// Defines one image as [`Images`] names it.
macro_rules! image {
    ($name:literal) => {
        ($name, include_bytes!(concat!("ptx/", $name, ".ptx.gz")))
    };
}

/// The kernel files of this folder, which `tools/build-ptx` compiles in addition to omr's own.
pub static CALIBRATION: Images = Images {
    sources: &[
        ("calibrate.cu", include_str!("calibrate.cu")),
        ("calibrate_tma.cu", include_str!("calibrate_tma.cu")),
        ("calibrate_wgmma.cu", include_str!("calibrate_wgmma.cu")),
        ("faults.cu", include_str!("faults.cu")),
    ],
    ptx: &[
        image!("calibrate.sm_80"),
        image!("calibrate.sm_90a"),
        image!("calibrate_tma.sm_80"),
        image!("calibrate_tma.sm_90a"),
        image!("calibrate_wgmma.sm_80"),
        image!("calibrate_wgmma.sm_90a"),
        image!("faults.sm_80"),
    ],
    cubins: &[],
    manifest: include_str!("ptx/MANIFEST"),
};
