// Epilogues of the gradients of linear layers on common/gemm_sm90a.cuh, and the layouts of their operands.
#pragma once

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

// dw = sums, with chains that start at `from`. In the operands x is dy, W is x, rows = N, cols = K, depth is the tokens,
// and ld is that of dw.
struct Wgrad : InOrder {
    struct Args {
        const float* from;  // dw, or null: the chains start at zero
        float* dw;          // [N][ld]; columns from K on are not written
    };
    using Roles = gemm::Roles<isa::Major::mn, isa::Major::mn, true>;

    template <int N>
    __device__ __forceinline__ static void start(const Args& args, const Operands& in, isa::WgmmaAcc<N>& sums, int m,
                                                 int n) {
        resume(args.from, in, sums, m, n);
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

// dw += sums, over several micro-batches. In the operands x is dy and W is x.
struct WgradSum : StagedSums {
    using Roles = gemm::Roles<isa::Major::mn, isa::Major::mn, false>;
};

}  // namespace gemm
