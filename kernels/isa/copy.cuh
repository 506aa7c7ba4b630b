// cp.async: copies from global to shared memory without registers. A copy is complete for its own thread after
// cp_async_wait of its group. Other threads also need a barrier.
#pragma once

namespace isa {

// Copies the first `source_bytes` bytes of `source` to `destination`, and fills up to BYTES with zeros. With 0 source
// bytes, `source` is not read.
template <int BYTES, class T>
__device__ __forceinline__ void cp_async(Shared<T>* destination, const T* source, int source_bytes) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
    uint32_t to = shared_address(destination);
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(source), "r"(source_bytes) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(source), "n"(BYTES), "r"(source_bytes)
                     : "memory");
    }
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the N newest groups of this thread are incomplete.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace isa
