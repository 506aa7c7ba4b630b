// Shuffles and votes among the 32 lanes of a warp. All lanes must take part. T is an arithmetic type of 4 or 8 bytes.
#pragma once

namespace isa {

template <class T>
__device__ __forceinline__ T shfl(T v, int source) {
    return __shfl_sync(0xffffffffu, v, source);
}

template <class T>
__device__ __forceinline__ T shfl_xor(T v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

// Returns the value of lane + delta. The top `delta` lanes keep their own value.
template <class T>
__device__ __forceinline__ T shfl_down(T v, int delta) {
    return __shfl_down_sync(0xffffffffu, v, delta);
}

// Returns the value of lane - delta. The bottom `delta` lanes keep their own value.
template <class T>
__device__ __forceinline__ T shfl_up(T v, int delta) {
    return __shfl_up_sync(0xffffffffu, v, delta);
}

__device__ __forceinline__ uint32_t ballot(bool v) { return __ballot_sync(0xffffffffu, v); }
__device__ __forceinline__ bool any(bool v) { return __any_sync(0xffffffffu, v); }
__device__ __forceinline__ bool all(bool v) { return __all_sync(0xffffffffu, v); }

}  // namespace isa
