// Bulk copies between global and shared memory, asked for by one thread and made by the copy engine (TMA). A load is
// there when the phase of its mbarrier is over that expected its bytes; a store when its issuer has waited for its
// group. A tensor map is a member of the kernel's Args. Shared memory: a multiple of 128 (with a swizzle of 128 bytes
// of 1024, or rows do not start its pattern), 16 for plain bytes.
#pragma once

namespace isa {

// What Driver::tensor_map encodes.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

// Loads the box whose first element has these coordinates, innermost first; what lies outside the tensor is zero, and
// counts as bytes all the same.
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

// Stores the part of the box that lies inside the tensor.
__device__ __forceinline__ void tma_store(const TensorMap* map, const void* source, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void tma_store(const TensorMap* map, const void* source, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y), "r"(z) : "memory");
}

// Adds it to what is there, in the tensor's type; each element in one piece, boxes in no order.
__device__ __forceinline__ void tma_reduce_add(const TensorMap* map, const void* source, int x, int y) {
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void tma_reduce_add(const TensorMap* map, const void* source, int x, int y, int z) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(shared_address(source)), "r"(x), "r"(y), "r"(z) : "memory");
}

// Fetches the map itself, ahead of its first use.
__device__ __forceinline__ void tma_prefetch(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies `bytes`, a multiple of 16, between multiples of 16.
__device__ __forceinline__ void bulk_load(void* destination, const void* source, int bytes, Mbarrier* at) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(shared_address(destination)), "l"(__cvta_generic_to_global(source)), "r"(bytes),
                 "r"(shared_address(at)) : "memory");
}
__device__ __forceinline__ void bulk_store(void* destination, const void* source, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                 ::"l"(__cvta_generic_to_global(destination)), "r"(shared_address(source)), "r"(bytes) : "memory");
}

// This thread's stores so far are a group.
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until at most N of its newest groups are incomplete: all is written.
template <int N>
__device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}

// The same for reading: shared memory may be overwritten.
template <int N>
__device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

}  // namespace isa
