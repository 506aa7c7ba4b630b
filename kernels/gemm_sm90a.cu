// The linear layers of gemm.cu for compute capability 9.0, with wgmma, and with operands loaded by TMA.
// Shapes: as in gemm.cu. Rows of x are multiples of 16 bytes. W is read through tensor maps whose boxes are rows of
// adjacent columns.
// Grid: persistent CTAs, which loop over the tiles of common/gemm_sm90a.cuh. One or two math warpgroups, and one
// producer warpgroup.
// Bound: from T = 256 on the tensor cores (2 T N K flops); for fewer tokens, reading W.
// Reference: gemm.cu and src/runtime/ops/linear.rs; tests/runtime/kernels/gemm_sm90a.rs.
// Benchmark: `omr bench ops`.
#include "common/staged.cuh"

#define GEMM_SM90A_KERNEL(name, Tile, E) \
    KERNEL_SM90A(name, gemm::WideArgs<gemm::E>, gemm::Tile::THREADS, 1) { gemm::run_wide<gemm::Tile, gemm::E>(args); }

#define GEMM_SM90A_KERNELS(name, E)                   \
    GEMM_SM90A_KERNEL(name##_wide, TileWide, E)       \
    GEMM_SM90A_KERNEL(name##_square, TileSquare, E)   \
    GEMM_SM90A_KERNEL(name##_short, TileShort, E)

// instructions linear_*: HGMMA UTMALDG
// main loop *_wide: 4 HGMMA
// main loop *_square: 4 HGMMA
// main loop *_half: 4 HGMMA
// main loop *_short: 8 HGMMA
// main loop *_narrow: 8 HGMMA
// main loop *_slim: 8 HGMMA
// instructions linear_[wshn]*: STSM UTMASTG
// without linear_[wshn]*: LDG STG STS.64
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
