// Fences between the accesses of threads and those of asynchronous units (bulk copies, wgmma).
#pragma once

namespace isa {

// Makes this thread's earlier writes visible to asynchronous operations that are ordered after the fence, by a barrier
// or in this thread.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

// Makes this thread's mbarrier_init visible to bulk copies and to the other CTAs of the cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace isa
