// The linear layers of gemm.cu on compute capability 9.0: by wgmma, their operands by TMA.
// As in gemm.cu; x's rows a multiple of 16 bytes, W by tensor maps whose boxes are rows of adjacent columns.
// CTA: persistent, tiles of common/gemm_sm90a.cuh in turn; one or two math warpgroups and one that copies.
// Bound: T >= 256 the tensor cores (2 T N K flops), below W's bytes.
// Reference: gemm.cu and src/ops/linear.rs; tests/kernels/gemm_sm90a.rs; bench: omr bench ops.
#include "common/staged.cuh"

#define GEMM_SM90A_KERNEL(name, Tile, E) \
    KERNEL_SM90A(name, gemm::WideArgs<gemm::E>, gemm::Tile::THREADS, 1) { gemm::run_wide<gemm::Tile, gemm::E>(args); }

#define GEMM_SM90A_KERNELS(name, E)                   \
    GEMM_SM90A_KERNEL(name##_wide, TileWide, E)       \
    GEMM_SM90A_KERNEL(name##_square, TileSquare, E)   \
    GEMM_SM90A_KERNEL(name##_short, TileShort, E)

// instructions linear_*: HGMMA UTMALDG
// main loop linear_*: 4 HGMMA
// instructions linear_[wshn]*: STSM UTMASTG
// without linear_[wshn]*: LDG STG STS
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
GEMM_SM90A_KERNELS(linear, StagedLinear)
GEMM_SM90A_KERNEL(linear_half, TileHalf, StagedLinear)
GEMM_SM90A_KERNEL(linear_narrow, TileNarrow, StagedLinear)
GEMM_SM90A_KERNEL(linear_slim, TileSlim, StagedLinear)
GEMM_SM90A_KERNELS(linear_f32, Logits)
GEMM_SM90A_KERNEL(linear_f32_half, TileHalf, Logits)
GEMM_SM90A_KERNEL(linear_f32_narrow, TileNarrow, Logits)
GEMM_SM90A_KERNEL(linear_f32_slim, TileSlim, Logits)
GEMM_SM90A_KERNELS(linear_gelu, Gelu)
GEMM_SM90A_KERNELS(linear_swiglu, StagedSwiGlu)
GEMM_SM90A_KERNELS(linear_qkv, Qkv)
GEMM_SM90A_KERNEL(linear_qkv_half, TileHalf, Qkv)
GEMM_SM90A_KERNEL(linear_qkv_narrow, TileNarrow, QkvIn<32>)
