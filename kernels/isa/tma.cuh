// Bulk copies between global and shared memory, which one thread issues and the Tensor Memory Accelerator (TMA)
// performs. A load is complete when the mbarrier phase that expected its bytes has completed. A store is complete when
// its issuer has waited for its group. A tensor map must be a member of the kernel's Args. Alignment in shared memory:
// 128 bytes for boxes (1024 with a 128-byte swizzle, otherwise rows do not start at the beginning of the swizzle
// pattern), 16 for plain bytes.
#pragma once

namespace isa {

// Tensor map in the encoding of Driver::tensor_map.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

// Loads the box whose first element has these coordinates, innermost first. Elements outside the tensor become zero,
// and their bytes count for the mbarrier too.
__device__ __forceinline__ void tma_load(void* destination, const TensorMap* map, Mbarrier* at, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(shared_address(destination)), "l"(map), "r"(shared_address(at)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void tma_load(void* destination, const TensorMap* map, Mbarrier* at, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(shared_address(destination)), "l"(map), "r"(shared_address(at)), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void tma_load(void* destination, const TensorMap* map, Mbarrier* at, int x, int y, int z,
                                         int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(shared_address(destination)), "l"(map), "r"(shared_address(at)), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

// Stores the part of the box that is inside the tensor.
__device__ __forceinline__ void tma_store(const TensorMap* map, const void* source, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void tma_store(const TensorMap* map, const void* source, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y), "r"(z) : "memory");
}

// Prefetches the tensor map itself before its first use.
__device__ __forceinline__ void tma_prefetch(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies `bytes` bytes (a multiple of 16) between addresses that are multiples of 16.
__device__ __forceinline__ void bulk_load(void* destination, const void* source, int bytes, Mbarrier* at) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(shared_address(destination)), "l"(__cvta_generic_to_global(source)), "r"(bytes),
                 "r"(shared_address(at)) : "memory");
}
__device__ __forceinline__ void bulk_store(void* destination, const void* source, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                 ::"l"(__cvta_generic_to_global(destination)), "r"(shared_address(source)), "r"(bytes) : "memory");
}

// Commits this thread's stores since the last commit as a group.
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most the N newest groups are incomplete; older groups are then fully written.
template <int N>
__device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}

// Waits until all but the N newest groups have read their source in shared memory, which may then be overwritten.
template <int N>
__device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

}  // namespace isa
