// Dynamic shared memory and vector accesses.
#pragma once

namespace isa {

template <class T>
using Shared = T;

// Returns the CTA's dynamic shared memory as one struct.
template <class S>
__device__ __forceinline__ S& smem() {
    extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
    return *reinterpret_cast<S*>(dynamic_shared_memory);
}

// Loads sizeof(V) bytes at `p`, which must be aligned to that size, in global or shared memory.
template <class V, class T>
__device__ __forceinline__ V load(const T* p) {
    return *reinterpret_cast<const V*>(p);
}

template <class V, class T>
__device__ __forceinline__ void store(T* p, V v) {
    *reinterpret_cast<V*>(p) = v;
}

// Computes 2^x with subnormals flushed to zero; relative error at most 2^-22.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace isa
