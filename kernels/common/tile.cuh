// Result of a matrix product for the sixteen rows of a warp, in registers: from mma (isa::Acc[TILES]) or from wgmma
// (isa::WgmmaAcc). A quad of lanes holds a row. Element i of a lane is in row lane / 4 + 8 row(i) and in column(i).
#pragma once

#include "common/math.cuh"
#include "isa/isa.cuh"

namespace isa {
template <int COLUMNS>
struct WgmmaAcc;
}

namespace tile {

// Number of elements that a lane holds.
template <class F>
constexpr int COUNT = 0;
template <int TILES>
constexpr int COUNT<isa::Acc[TILES]> = 4 * TILES;
template <int COLUMNS>
constexpr int COUNT<isa::WgmmaAcc<COLUMNS>> = COLUMNS / 2;

template <int TILES>
__device__ __forceinline__ float& at(isa::Acc (&f)[TILES], int i) {
    return f[i / 4][i % 4];
}
template <int COLUMNS>
__device__ __forceinline__ float& at(isa::WgmmaAcc<COLUMNS>& f, int i) {
    return f[i];
}

__device__ __forceinline__ constexpr int row(int i) { return i / 2 % 2; }
__device__ __forceinline__ int column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

template <class F>
__device__ __forceinline__ void clear(F& f) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(f, i) = 0.0f;
    }
}

// Sets the elements in columns from seen[row] on to `other`.
template <class F>
__device__ __forceinline__ void mask(F& f, const int (&seen)[2], float other) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(f, i) = column(i) < seen[row(i)] ? at(f, i) : other;
    }
}

// Sets the elements in columns before first[row] to `other`.
template <class F>
__device__ __forceinline__ void mask_before(F& f, const int (&first)[2], float other) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(f, i) = column(i) >= first[row(i)] ? at(f, i) : other;
    }
}

// Computes the maximum of each row. NaN is ignored, as on the CPU; it shows up in sums.
template <class F>
__device__ __forceinline__ void row_max(F& f, float (&most)[2]) {
    most[0] = most[1] = -math::infinity();
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        most[row(i)] = fmaxf(most[row(i)], at(f, i));
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = fmaxf(most[i], isa::shfl_xor(most[i], 1));
        most[i] = fmaxf(most[i], isa::shfl_xor(most[i], 2));
    }
}

// Sums a lane's elements of each row: within groups of 32 columns in ascending order, then the groups in ascending
// order.
template <class F>
__device__ __forceinline__ void row_sum(F& f, float (&sum)[2]) {
    constexpr int GROUP = 16;
#pragma unroll
    for (int group = 0; group < COUNT<F>; group += GROUP) {
        float part[2] = {0.0f, 0.0f};
#pragma unroll
        for (int i = group; i < group + GROUP; i++) {
            part[row(i)] += at(f, i);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i] = group == 0 ? part[i] : sum[i] + part[i];
        }
    }
}

// Returns the sum over the lanes of a quad.
__device__ __forceinline__ float quad_sum(float x) {
    x += isa::shfl_xor(x, 1);
    return x + isa::shfl_xor(x, 2);
}

// Computes 2^(f scale - base), with one base per row.
template <class F>
__device__ __forceinline__ void row_exp2(F& f, float scale, const float (&base)[2]) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(f, i) = isa::exp2_approx(fmaf(at(f, i), scale, -base[row(i)]));
    }
}

// Computes 2^(f scale - base), with one base per column. The base is the element of `bases` times `unit`.
template <class F>
__device__ __forceinline__ void column_exp2(F& f, float scale, const isa::Shared<float>* bases, float unit) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i += 4) {
        float2 pair = isa::load<float2>(bases + column(i));
        float base[2] = {pair.x * unit, pair.y * unit};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            at(f, i + e) = isa::exp2_approx(fmaf(at(f, i + e), scale, -base[e % 2]));
        }
    }
}

template <class F>
__device__ __forceinline__ void row_scale(F& f, const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(f, i) *= factor[row(i)];
    }
}

// Turns dp (gradients of probabilities) into gradients of scores, in place: p (dp - delta), with one delta per row.
template <class F>
__device__ __forceinline__ void row_grads(F& dp, F& p, const float (&delta)[2]) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i++) {
        at(dp, i) = at(p, i) * (at(dp, i) - delta[row(i)]);
    }
}

// Turns dp into gradients of scores as row_grads does, but with one delta per column.
template <class F>
__device__ __forceinline__ void column_grads(F& dp, F& p, const isa::Shared<float>* deltas) {
#pragma unroll
    for (int i = 0; i < COUNT<F>; i += 4) {
        float2 pair = isa::load<float2>(deltas + column(i));
        float delta[2] = {pair.x, pair.y};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            at(dp, i + e) = at(p, i + e) * (at(dp, i + e) - delta[e % 2]);
        }
    }
}

// Rounds the elements to bf16 and arranges them as the left operand of a product over their columns, sixteen columns
// per step.
template <class F, int STEPS>
__device__ __forceinline__ void round(isa::Frag<4> (&to)[STEPS], F& f) {
    static_assert(COUNT<F> == 8 * STEPS, "a step has sixteen columns");
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            to[step][r] = pack(at(f, 8 * step + 2 * r), at(f, 8 * step + 2 * r + 1));
        }
    }
}

}  // namespace tile
