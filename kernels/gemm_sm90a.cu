// The linear layers of gemm.cu on compute capability 9.0: by wgmma, their operands by TMA.
// As in gemm.cu; x's rows a multiple of 16 bytes, W by tensor maps whose boxes are rows of adjacent columns.
// CTA: persistent, tiles of common/gemm_sm90a.cuh in turn; one or two math warpgroups and one that copies.
// Bound: T >= 256 the tensor cores (2 T N K flops), below W's bytes.
// Reference: gemm.cu and src/ops/linear.rs; tests/kernels/gemm_sm90a.rs; bench: omr bench ops.
#include "common/gemm_sm90a.cuh"
#include "common/linear.cuh"

#define GEMM_SM90A_KERNELS(name, E)                                                       \
    KERNEL_SM90A(name##_wide, gemm::WideArgs<gemm::E>, gemm::TileWide::THREADS, 1) {     \
        gemm::run_wide<gemm::TileWide, gemm::E>(args);                                   \
    }                                                                                    \
    KERNEL_SM90A(name##_square, gemm::WideArgs<gemm::E>, gemm::TileSquare::THREADS, 1) { \
        gemm::run_wide<gemm::TileSquare, gemm::E>(args);                                 \
    }                                                                                    \
    KERNEL_SM90A(name##_short, gemm::WideArgs<gemm::E>, gemm::TileShort::THREADS, 1) {   \
        gemm::run_wide<gemm::TileShort, gemm::E>(args);                                  \
    }

// instructions linear_*: HGMMA UTMALDG
// instructions *_wide: USETMAXREG
// instructions *_square: USETMAXREG
// registers linear_wide <= 168
// registers linear_square <= 168
// registers linear_f32_wide <= 168
// registers linear_f32_square <= 168
// registers linear_gelu_wide <= 168
// registers linear_gelu_square <= 168
// registers linear_swiglu_wide <= 168
// registers linear_swiglu_square <= 168
// registers linear_qkv_wide <= 168
// registers linear_qkv_square <= 168
GEMM_SM90A_KERNELS(linear, Linear)
GEMM_SM90A_KERNELS(linear_f32, Logits)
GEMM_SM90A_KERNELS(linear_gelu, Gelu)
GEMM_SM90A_KERNELS(linear_swiglu, SwiGlu)
GEMM_SM90A_KERNELS(linear_qkv, Qkv)
