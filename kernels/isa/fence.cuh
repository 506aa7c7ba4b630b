// Fences between the threads' own accesses and those of asynchronous units (bulk copies, wgmma).
#pragma once

namespace isa {

// What this thread wrote before is seen by asynchronous operations that are ordered after it (a barrier, or its own).
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

// This thread's mbarrier_init is seen by bulk copies and by the other CTAs of its cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace isa
