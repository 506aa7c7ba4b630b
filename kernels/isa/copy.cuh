// cp.async: global to shared memory without registers. A copy is complete for its thread after cp_async_wait of its
// group, and for others after a barrier on top.
#pragma once

namespace isa {

// BYTES at `destination` become the first `source_bytes` of `source` and zeros; 0 source bytes read nothing.
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

// Until at most N of this thread's newest groups are incomplete.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace isa
