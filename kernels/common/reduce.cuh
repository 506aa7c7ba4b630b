// Reductions with one fixed order each, so that the bits of a row depend only on the row.
#pragma once

#include "isa/isa.cuh"

namespace reduce {

constexpr int WARP = 32;

// Returns the larger of the two, or a if b is NaN.
__device__ __forceinline__ float larger(float a, float b) { return b > a ? b : a; }

// Sums over a warp, adding one half to the other. Every lane gets the same bits, because a + b = b + a.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) v += isa::shfl_xor(v, half);
    return v;
}

// Returns the maximum over a warp, for values that are not NaN.
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) v = larger(v, isa::shfl_xor(v, half));
    return v;
}

}  // namespace reduce
