// mbarrier: a barrier in shared memory that counts arrivals and the bytes of bulk copies. A phase completes when all
// expected arrivals and bytes have arrived; the next phase begins at once. A wait names a phase by its parity. That
// phase must be the current one or the previous one.
#pragma once

namespace isa {

struct Mbarrier {
    uint64_t opaque;
};

// Initialises an mbarrier for `count` arrivals per phase, 1 to 2^20 - 1. Before other threads use it,
// fence_mbarrier_init and a barrier are needed.
__device__ __forceinline__ void mbarrier_init(Mbarrier* at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(count) : "memory");
}

// Invalidates the mbarrier, so that its 8 bytes can be reused.
__device__ __forceinline__ void mbarrier_inval(Mbarrier* at) {
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(at)) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* at, int count) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(count) : "memory");
}

// Arrives, and reduces the arrivals that all later phases expect by one.
__device__ __forceinline__ void mbarrier_arrive_drop(Mbarrier* at) {
    asm volatile("mbarrier.arrive_drop.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}

// Makes the current phase also wait for `bytes` bytes of bulk copies.
__device__ __forceinline__ void mbarrier_expect_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

// Signals the arrival of `bytes` bytes, as a bulk copy does.
__device__ __forceinline__ void mbarrier_complete_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

// Returns true if the phase of that parity has completed. Never waits.
__device__ __forceinline__ bool mbarrier_test_wait(Mbarrier* at, uint32_t parity) {
    uint32_t over;
    asm volatile("{\n .reg .pred p;\n mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over) : "r"(shared_address(at)), "r"(parity) : "memory");
    return over != 0;
}

// Returns true if the phase of that parity has completed. May sleep for a while if it has not.
__device__ __forceinline__ bool mbarrier_try_wait(Mbarrier* at, uint32_t parity) {
    uint32_t over;
    asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over) : "r"(shared_address(at)), "r"(parity) : "memory");
    return over != 0;
}

// Waits until the phase has completed. Writes before the arrivals of that phase, and the data of its bulk copies, are
// then visible.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* at, uint32_t parity) {
    while (!mbarrier_try_wait(at, parity)) {
    }
}

}  // namespace isa
