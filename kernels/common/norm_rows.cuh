// Rows of norms: one warp per row, with 16-byte accesses, and sums over a row in one fixed order.
#pragma once

#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace norm_rows {

constexpr int THREADS = 128;
constexpr int ROWS = THREADS / 32;
// Elements of one 16-byte access, and of one round of a warp.
constexpr int VECTOR = 8;
constexpr int ROUND = 32 * VECTOR;
// Rows of one partial sum of a weight's gradient, as in the reference; columns of a CTA that computes partial sums.
constexpr int CHUNK = 64;
constexpr int STRIPE = THREADS * VECTOR;

// Calls f(operands of a round, first column of the lane) for the rounds of a row. The operands of BATCH rounds are loaded
// together: a load behind a store would wait for it, because they may overlap.
template <int BATCH, int OPERANDS, class F>
__device__ __forceinline__ void rounds(const bf16* const (&rows)[OPERANDS], int cols, int lane, const F& f) {
    for (int from = lane * VECTOR; from < cols; from += BATCH * ROUND) {
        uint4 loaded[BATCH][OPERANDS];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = from + i * ROUND;
#pragma unroll
            for (int j = 0; j < OPERANDS; j++) {
                loaded[i][j] = make_uint4(0, 0, 0, 0);
                if (at < cols && rows[j] != nullptr) loaded[i][j] = isa::load<uint4>(rows[j] + at);
            }
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            if (from + i * ROUND < cols) f(loaded[i], from + i * ROUND);
        }
    }
}

// Eight elements, converted to fp32.
struct Eight {
    float v[VECTOR];

    __device__ __forceinline__ explicit Eight(uint4 p) {
        uint32_t pair[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = lo(pair[i]);
            v[2 * i + 1] = hi(pair[i]);
        }
    }

    __device__ __forceinline__ explicit Eight(const bf16* p) : Eight(isa::load<uint4>(p)) {}

    __device__ __forceinline__ uint4 packed() const {
        return make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    }
};

// Adds up the chains of a row, where element j belongs to chain j % 256: halves of the 256 chains are added, first
// within a lane (8 chains), then across the 32 lanes.
__device__ __forceinline__ float sum(const float (&chain)[VECTOR]) {
    float a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = chain[i] + chain[i + 4];
    return reduce::warp_sum((a[0] + a[2]) + (a[1] + a[3]));
}

}  // namespace norm_rows
