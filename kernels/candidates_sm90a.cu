// Candidates: products of gemm_sm90a.cu and gemm_bwd_sm90a.cu with other tiles, and the same bits. They are compiled into the
// program only with the feature `candidates`. A GPU decides whether one of them replaces the kernel whose name it has:
// `omr bench --candidate`.
// - *_mid: a tile of 128 x 192 in five stages. For products whose tiles of 128 x 256 leave multiprocessors without work.
// - *_pair: two CTAs, whose tiles lie below one another, load halves of the W that they share into the shared memory of both,
//   so that W is read from the L2 cache half as often.
// Shapes, operands and bound: as in those files.
// Reference: the kernels of the same names; tests/runtime/kernels/candidates.rs.
// Benchmark: `omr bench ops --candidate`.
#include "common/gradients_sm90a.cuh"

namespace gemm {

using TileMid = WideTile<2, 192, 5>;
using TilePair = WideTile<2, 256, 4, GROUP, 1, 2>;

}  // namespace gemm

#define CANDIDATE_KERNEL(name, Tile, E, R) \
    KERNEL_SM90A(name, gemm::WideArgs<gemm::E>, gemm::Tile::THREADS, 1) { gemm::run_wide<gemm::Tile, gemm::E, gemm::R>(args); }

#define CANDIDATE_KERNELS(name, E, R)           \
    CANDIDATE_KERNEL(name##_mid, TileMid, E, R) \
    CANDIDATE_KERNEL(name##_pair, TilePair, E, R)

// instructions linear_*: HGMMA UTMALDG USETMAXREG
// main loop linear_*: 4 HGMMA
// registers linear_mid <= 168
// registers linear_pair <= 168
// registers linear_swiglu_mid <= 168
// registers linear_swiglu_pair <= 168
// registers linear_dgrad_mid <= 168
// registers linear_dgrad_pair <= 168
// registers linear_wgrad_mid <= 168
// registers linear_wgrad_pair <= 168
CANDIDATE_KERNELS(linear, StagedLinear, Forward)
CANDIDATE_KERNELS(linear_swiglu, StagedSwiGlu, Forward)
CANDIDATE_KERNELS(linear_dgrad, Dgrad, Dgrad::Roles)
CANDIDATE_KERNELS(linear_wgrad, Wgrad, Wgrad::Roles)
