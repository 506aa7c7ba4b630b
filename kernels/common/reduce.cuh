// Reductions of one fixed shape each, so that a row's bits depend on nothing but the row.
#pragma once

#include "isa/isa.cuh"

namespace reduce {

constexpr int WARP = 32;

// The larger of the two, a when b is NaN.
__device__ __forceinline__ float larger(float a, float b) { return b > a ? b : a; }

// The sum over a warp, halves added to halves; every lane gets the same bits, because a + b = b + a.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) v += isa::shfl_xor(v, half);
    return v;
}

// The largest over a warp, for values that are not NaN.
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) v = larger(v, isa::shfl_xor(v, half));
    return v;
}

}  // namespace reduce
