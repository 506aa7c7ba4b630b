// Barriers of a CTA and of a warp.
#pragma once

namespace isa {

__device__ __forceinline__ void sync_cta() { __syncthreads(); }

// Waits at barrier `id` (1..15; sync_cta uses 0) for `threads` threads in total, a multiple of 32.
__device__ __forceinline__ void sync_named(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Arrives at barrier `id` without waiting. `threads` counts the threads that wait and those that only arrive.
__device__ __forceinline__ void arrive_named(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void sync_warp(uint32_t mask = 0xffffffffu) { __syncwarp(mask); }

}  // namespace isa
