// Code that training and sampling share, so that the log-prob of a sampled token equals the trainer's bit for bit: the
// logits z = scale * sums over the allowed ids, their partial sums per segment of 128 columns, and the fold of the
// segments. src/runtime/ops/linear_logprob/logits.rs has the same accumulation chains. The columns of a tile are one segment.
#pragma once

#include "common/gemm.cuh"
#include "common/gemm_sm90a.cuh"
#include "common/math.cuh"
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace logits {

constexpr int SEGMENT = 128;
// Lanes per row: half a warp, with the same chains as the CPU's sixteen lanes. Lane j has columns j, j + 16, ...
constexpr int LANES = 16;
constexpr int PER_LANE = SEGMENT / LANES;

using TileM16 = gemm::Tile<16, SEGMENT, 1, 4, 4>;
using TileM64 = gemm::Tile<64, SEGMENT, 2, 2, 3>;
using TileM128 = gemm::TileM128;
// Tiles of the kernels for compute capability 9.0, with slices as wide as a segment.
using TileWide = gemm::WideTile<2, 256, 4, SEGMENT>;
using TileSquare = gemm::WideTile<2, SEGMENT, 4, SEGMENT>;
using TileShort = gemm::WideTile<1, SEGMENT, 8, SEGMENT>;

// Allowed ids: below `vocab`, and set in the bitmap (bit v % 32 of word v / 32) if there is one.
struct Allowed {
    const uint32_t* bitmap;
    int vocab;
    int pad;

    // Returns the 32 bits that start at column `n`, a multiple of 32.
    __device__ __forceinline__ uint32_t word(int n) const {
        int inside = vocab - n;
        if (inside <= 0) return 0;
        uint32_t exists = inside >= 32 ? 0xffffffffu : (1u << inside) - 1u;
        return bitmap ? exists & bitmap[n / 32] : exists;
    }
};

// Allowed bits of a segment.
struct Mask {
    uint32_t word[SEGMENT / 32];

    __device__ __forceinline__ Mask(const Allowed& allowed, int n) {
#pragma unroll
        for (int i = 0; i < SEGMENT / 32; i++) word[i] = allowed.word(n + 32 * i);
    }
};

__device__ __forceinline__ float logit(float sum, float scale, bool on) {
    return on ? sum * scale : -math::infinity();
}

// Logits of lane j of a row: columns j + 16 i.
struct Logits {
    float z[PER_LANE];

    template <class T>
    __device__ __forceinline__ Logits(const gemm::Sums<T>& tile, int row, int j, float scale, const Mask& mask) {
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            bool on = mask.word[i / 2] >> (j + i % 2 * LANES) & 1u;
            z[i] = logit(tile.at[row][j + i * LANES], scale, on);
        }
    }
};

// Partial results of one segment: the largest logit m, the sum of e^(z - m), and the sum of e^(z - m) (z - m).
struct alignas(16) Partial {
    float max, sum, weighted, pad;
};

// Returns the maximum over sixteen lanes by the CPU's tree. The value of the lower lane is the first operand, which
// matters for NaN.
__device__ __forceinline__ float largest(float v, int j) {
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {
        float other = isa::shfl_xor(v, half);
        bool lower = (j & half) == 0;
        v = reduce::larger(lower ? v : other, lower ? other : v);
    }
    return v;
}

__device__ __forceinline__ float sum(float v) {
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) v += isa::shfl_xor(v, half);
    return v;
}

// Returns the partial sums of a row's segment, identical in its sixteen lanes. All lanes of the warp must call it.
__device__ __forceinline__ Partial partial(const Logits& row, int j) {
    float m = -math::infinity();
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) m = reduce::larger(m, row.z[i]);
    m = largest(m, j);
    float total = 0.0f, weighted = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        // An id that is not allowed adds nothing, also in a segment without any allowed id (m is then minus infinity
        // too).
        bool off = row.z[i] == -math::infinity();
        float d = off ? 0.0f : row.z[i] - m;
        float e = off ? 0.0f : math::exp(d);
        total += e;
        weighted = fmaf(e, d, weighted);
    }
    return Partial{m, sum(total), sum(weighted), 0.0f};
}

// Iterates over the rows of a tile, two per warp at a time. The two rows of a warp are two apart: rows of the tile lie
// 8 banks apart, so its lanes then read 32 distinct banks.
template <class T>
struct Rows {
    int pair;
    int side, j;

    __device__ __forceinline__ Rows() : pair(T::thread() / 32), side(T::thread() % 32 / LANES), j(T::thread() % LANES) {}
    __device__ __forceinline__ bool more() const { return pair < T::BLOCK_M / 2; }
    __device__ __forceinline__ void next() { pair += T::THREADS / 32; }
    __device__ __forceinline__ int row() const { return pair / 2 * 4 + pair % 2 + 2 * side; }
};

// Result of folding a row's segments in ascending order.
struct Fold {
    float max, sum, weighted;

    __device__ __forceinline__ float logsumexp() const { return max + math::ln(sum); }
    __device__ __forceinline__ float entropy() const { return math::ln(sum) - weighted / sum; }
};

// Folds the partial sums of a row with one warp; every lane gets the same result. The factors of the chain's steps
// depend only on the maxima. The lanes compute the factors of 32 segments in parallel, then the chain runs.
template <bool ENTROPY>
__device__ __forceinline__ Fold fold(const Partial* partials, int segments, int lane) {
    Fold f{-math::infinity(), 0.0f, 0.0f};
    uint32_t seen = 0;
    for (int from = 0; from < segments; from += reduce::WARP) {
        int count = min(segments - from, reduce::WARP);
        float4 p = make_float4(-math::infinity(), 0.0f, 0.0f, 0.0f);
        if (lane < count) p = isa::load<float4>(partials + from + lane);
        // A segment without an allowed id does not change the fold. The first segment with one is copied as it is.
        bool used = p.y != 0.0f;
        uint32_t mask = isa::ballot(used);
        bool first = used && seen == 0 && (mask & ((1u << lane) - 1u)) == 0;
        float upto = used ? p.x : -math::infinity();
#pragma unroll
        for (int step = 1; step < reduce::WARP; step *= 2) {
            float left = isa::shfl_up(upto, step);
            upto = lane >= step ? reduce::larger(left, upto) : upto;
        }
        float left = isa::shfl_up(upto, 1);
        float before = lane == 0 ? f.max : reduce::larger(f.max, left);
        float now = reduce::larger(f.max, upto);
        float da = used && !first ? before - now : 0.0f;
        float db = used ? p.x - now : 0.0f;
        float a = first ? 0.0f : math::exp(da);
        float b = used ? math::exp(db) : 0.0f;
        float added = b * p.y;
        float added_weighted = b * fmaf(p.y, db, p.z);
        for (int i = 0; i < count; i++) {
            float ai = isa::shfl(a, i);
            float si = isa::shfl(added, i);
            if constexpr (ENTROPY) {
                float di = isa::shfl(da, i);
                float wi = isa::shfl(added_weighted, i);
                f.weighted = ai * fmaf(f.sum, di, f.weighted) + wi;
            }
            f.sum = fmaf(ai, f.sum, si);
        }
        f.max = isa::shfl(now, reduce::WARP - 1);
        seen |= mask;
    }
    return f;
}

}  // namespace logits
