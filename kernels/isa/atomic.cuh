// Atomics, memory fences, and acquire/release accesses to global memory. The atomics also work on shared memory.
#pragma once

namespace isa {

__device__ __forceinline__ void threadfence() { __threadfence(); }

// uint64_t is `unsigned long` here, but CUDA's atomics take `unsigned long long`.
__device__ __forceinline__ unsigned long long* wide(uint64_t* p) { return reinterpret_cast<unsigned long long*>(p); }

__device__ __forceinline__ int atomic_add(int* p, int v) { return atomicAdd(p, v); }
__device__ __forceinline__ uint32_t atomic_add(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
__device__ __forceinline__ float atomic_add(float* p, float v) { return atomicAdd(p, v); }
__device__ __forceinline__ uint64_t atomic_add(uint64_t* p, uint64_t v) { return atomicAdd(wide(p), v); }

__device__ __forceinline__ int atomic_max(int* p, int v) { return atomicMax(p, v); }
__device__ __forceinline__ uint32_t atomic_max(uint32_t* p, uint32_t v) { return atomicMax(p, v); }
__device__ __forceinline__ uint64_t atomic_max(uint64_t* p, uint64_t v) { return atomicMax(wide(p), v); }

__device__ __forceinline__ int atomic_min(int* p, int v) { return atomicMin(p, v); }
__device__ __forceinline__ uint32_t atomic_min(uint32_t* p, uint32_t v) { return atomicMin(p, v); }
__device__ __forceinline__ uint64_t atomic_min(uint64_t* p, uint64_t v) { return atomicMin(wide(p), v); }

__device__ __forceinline__ int atomic_exch(int* p, int v) { return atomicExch(p, v); }
__device__ __forceinline__ uint32_t atomic_exch(uint32_t* p, uint32_t v) { return atomicExch(p, v); }
__device__ __forceinline__ uint64_t atomic_exch(uint64_t* p, uint64_t v) { return atomicExch(wide(p), v); }

// Stores `desired` if the value at p equals `expected`. Returns the value that was at p.
__device__ __forceinline__ int atomic_cas(int* p, int expected, int desired) { return atomicCAS(p, expected, desired); }
__device__ __forceinline__ uint32_t atomic_cas(uint32_t* p, uint32_t expected, uint32_t desired) {
    return atomicCAS(p, expected, desired);
}
__device__ __forceinline__ uint64_t atomic_cas(uint64_t* p, uint64_t expected, uint64_t desired) {
    return atomicCAS(wide(p), expected, desired);
}

template <class T>
__device__ __forceinline__ T load_volatile(const T* p) {
    return *static_cast<const volatile T*>(p);
}

// Release store and acquire load at GPU scope, for 4- or 8-byte integers in global memory.
template <class T>
__device__ __forceinline__ void store_release(T* p, T v) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "store_release of 4 or 8 bytes");
    if constexpr (sizeof(T) == 4) {
        asm volatile("st.release.gpu.global.b32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
    } else {
        asm volatile("st.release.gpu.global.b64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
    }
}

template <class T>
__device__ __forceinline__ T load_acquire(const T* p) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "load_acquire of 4 or 8 bytes");
    T v;
    if constexpr (sizeof(T) == 4) {
        asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    } else {
        asm volatile("ld.acquire.gpu.global.b64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
    }
    return v;
}

// Loops until pred() is true. pred must read with load_acquire or load_volatile.
template <class F>
__device__ __forceinline__ void spin_until(F pred) {
    while (!pred()) {
    }
}

}  // namespace isa
