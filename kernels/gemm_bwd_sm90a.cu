// The dx and dw of gemm_bwd.cu for compute capability 9.0, with wgmma, and with operands loaded by TMA. dbias has no
// variant here.
// Shapes: as in gemm_bwd.cu. Rows of dy, x and W start at multiples of 16 bytes. Operands whose rows are the terms of a
// chain are loaded as panels.
// Grid: persistent CTAs, as in gemm_sm90a.cu. dx: tokens x K, dy is K-major and W MN-major. dw: N x K, dy and x are
// MN-major.
// Bound: the tensor cores (2 T N K flops each). dw is also read and written once, 8 bytes per element.
// Reference: gemm_bwd.cu and src/runtime/ops/linear.rs; tests/runtime/kernels/gemm_bwd_sm90a.rs.
// Benchmark: `omr bench ops`.
#include "common/staged.cuh"

namespace gemm {

// dx = sums, or dx + sums rounded once, where dx is the residual. In the operands x is dy and cols = K.
struct Dgrad : StagedLinear {
    using Roles = gemm::Roles<isa::Major::k, isa::Major::mn, false>;
};

// dx = sums, or fp32 sums if their chain continues in a later call.
struct DgradChain : InOrder {
    struct Args {
        bf16* dx;
        const float* from;  // [T][ld], or null: the chains start at zero
        float* to;          // [T][ld], or null
    };
    using Roles = gemm::Roles<isa::Major::k, isa::Major::mn, true>;

    template <int N>
    __device__ __forceinline__ static void start(const Args& args, const Operands& in, isa::WgmmaAcc<N>& sums, int m,
                                                 int n) {
        resume(args.from, in, sums, m, n);
    }

    template <class T>
    __device__ __forceinline__ static void finish(const Args& args, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        bool whole = in.cols % 4 == 0;
        each_quad<T>(in, m, n, [&](int row, int column, int count, size_t place) {
            Quad sum = sums_at<T>(tile, row, column);
            if (args.to) {
                store_quad(args.to + (size_t)(m + row) * in.ld + n + column, sum, whole, count);
            } else {
                store_quad(args.dx + place, sum, whole, count);
            }
        });
    }
};

// dw += sums. In the operands x is dy, W is x, rows = N, cols = K, depth is the tokens, and ld is that of dw.
struct Wgrad : InOrder {
    struct Args {
        float* dw;  // [N][ld], zero from column K on
    };
    using Roles = gemm::Roles<isa::Major::mn, isa::Major::mn, true>;

    template <int N>
    __device__ __forceinline__ static void start(const Args& args, const Operands& in, isa::WgmmaAcc<N>& sums, int m,
                                                 int n) {
        resume(args.dw, in, sums, m, n);
    }

    template <class T>
    __device__ __forceinline__ static void finish(const Args& args, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        // K is a multiple of 8, so every quad is complete.
        each_quad<T>(in, m, n, [&](int row, int column, int, size_t) {
            store_quad(args.dw + (size_t)(m + row) * in.ld + n + column, sums_at<T>(tile, row, column), true, 4);
        });
    }
};

}  // namespace gemm

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
GRADIENT_KERNELS(linear_dgrad, Dgrad)
GRADIENT_KERNELS(linear_dgrad_chain, DgradChain)
GRADIENT_KERNELS(linear_wgrad, Wgrad)
