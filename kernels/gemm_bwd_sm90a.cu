// The dx and dw of gemm_bwd.cu for compute capability 9.0, with wgmma, and with operands loaded by TMA. dbias has no
// variant here.
// Shapes: as in gemm_bwd.cu. Rows of dy, x and W start at multiples of 16 bytes. Operands whose rows are the terms of a
// chain are loaded as panels.
// Grid: persistent CTAs, as in gemm_sm90a.cu. dx: tokens x K, dy is K-major and W MN-major. dw: N x K, dy and x are
// MN-major.
// Bound: the tensor cores (2 T N K flops each). dw is also written once, and read once unless it is new: 4 or 8 bytes per
// element.
// Reference: gemm_bwd.cu and src/runtime/ops/linear.rs; tests/runtime/kernels/gemm_bwd_sm90a.rs.
// Benchmark: `omr bench ops`.
#include "common/gradients_sm90a.cuh"

#define GRADIENT_KERNEL(name, Tile, E)                                    \
    KERNEL_SM90A(name, gemm::WideArgs<gemm::E>, gemm::Tile::THREADS, 1) { \
        gemm::run_wide<gemm::Tile, gemm::E, gemm::E::Roles>(args);        \
    }

#define GRADIENT_KERNELS(name, E)                 \
    GRADIENT_KERNEL(name##_wide, TileWide, E)     \
    GRADIENT_KERNEL(name##_square, TileSquare, E) \
    GRADIENT_KERNEL(name##_short, TileShort, E)

// instructions linear_*: HGMMA UTMALDG
// main loop *_wide: 4 HGMMA
// main loop *_square: 4 HGMMA
// main loop *_short: 8 HGMMA
// instructions linear_dgrad_[ws]*: STSM UTMASTG
// without linear_dgrad_[ws]*: LDG STG STS.64
// instructions *_wide: USETMAXREG
// instructions *_square: USETMAXREG
// registers linear_dgrad_wide <= 168
// registers linear_dgrad_square <= 168
// registers linear_dgrad_chain_wide <= 168
// registers linear_dgrad_chain_square <= 168
// registers linear_wgrad_wide <= 168
// registers linear_wgrad_square <= 168
// instructions linear_wgrad_sum_*: UTMASTG
// without linear_wgrad_sum_*: LDG STG
// registers linear_wgrad_sum_wide <= 168
// registers linear_wgrad_sum_square <= 168
GRADIENT_KERNELS(linear_dgrad, Dgrad)
GRADIENT_KERNELS(linear_dgrad_chain, DgradChain)
GRADIENT_KERNELS(linear_wgrad, Wgrad)
GRADIENT_KERNELS(linear_wgrad_sum, WgradSum)
