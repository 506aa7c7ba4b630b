// Clusters: CTAs that run at the same time and can access each other's shared memory.
#pragma once

namespace isa {

// Return the rank of this CTA in its cluster, and the number of CTAs of the cluster.
__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ uint32_t cluster_size() {
    uint32_t size;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
}

// The two halves of the barrier over all threads of a cluster. A CTA must not exit while another CTA may still access
// its shared memory.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// Arrives at the mbarrier at the same offset in the shared memory of CTA `rank`.
__device__ __forceinline__ void mbarrier_arrive_at(Mbarrier* at, uint32_t rank) {
    asm volatile("{\n .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n"
                 " mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}"
                 ::"r"(shared_address(at)), "r"(rank) : "memory");
}

// Loads a box to the same offset in every CTA whose bit is set in `ranks`. In each of them the bytes count at the
// mbarrier at the same offset.
__device__ __forceinline__ void tma_load_multicast(void* destination, const TensorMap* map, Mbarrier* at,
                                                   uint32_t ranks, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3, %4}], [%2], %5;"
                 ::"r"(shared_address(destination)), "l"(map), "r"(shared_address(at)), "r"(x), "r"(y),
                 "h"(uint16_t(ranks)) : "memory");
}

}  // namespace isa
