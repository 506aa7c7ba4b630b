// Fences between the accesses of threads and those of asynchronous units (bulk copies, wgmma).
#pragma once

namespace isa {

// Makes this thread's earlier writes to the CTA's shared memory visible to asynchronous operations that are ordered
// after the fence, by a barrier or in this thread. Without `.shared::cta` ptxas adds a memory barrier of the whole GPU,
// because the fence would also cover global memory.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Makes this thread's mbarrier_init visible to bulk copies and to the other CTAs of the cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace isa
