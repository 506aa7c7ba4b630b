// mbarrier: a barrier in shared memory that counts arrivals and the bytes of bulk copies. A phase is over when all
// expected arrivals and bytes have come; the next begins at once. Waits ask by parity: that of the phase they wait for,
// which is the present one or the one before.
#pragma once

namespace isa {

struct Mbarrier {
    uint64_t opaque;
};

// For `count` arrivals a phase, 1 to 2^20 - 1. Then fence_mbarrier_init and a barrier, before others use it.
__device__ __forceinline__ void mbarrier_init(Mbarrier* at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(count) : "memory");
}

// Its 8 bytes are free again.
__device__ __forceinline__ void mbarrier_inval(Mbarrier* at) {
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(at)) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* at, int count) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(count) : "memory");
}

// Arrives, and all later phases expect one arrival less.
__device__ __forceinline__ void mbarrier_arrive_drop(Mbarrier* at) {
    asm volatile("mbarrier.arrive_drop.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}

// The present phase waits for `bytes` more of bulk copies.
__device__ __forceinline__ void mbarrier_expect_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

// What a bulk copy does when `bytes` of it have come.
__device__ __forceinline__ void mbarrier_complete_tx(Mbarrier* at, int bytes) {
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
                 : "memory");
}

// Whether the phase of that parity is over; never waits.
__device__ __forceinline__ bool mbarrier_test_wait(Mbarrier* at, uint32_t parity) {
    uint32_t over;
    asm volatile("{\n .reg .pred p;\n mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over) : "r"(shared_address(at)), "r"(parity) : "memory");
    return over != 0;
}

// The same, asleep for a while when it is not.
__device__ __forceinline__ bool mbarrier_try_wait(Mbarrier* at, uint32_t parity) {
    uint32_t over;
    asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over) : "r"(shared_address(at)), "r"(parity) : "memory");
    return over != 0;
}

// Until it is over. What was done before the arrivals of that phase is seen, and what its bulk copies brought.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* at, uint32_t parity) {
    while (!mbarrier_try_wait(at, parity)) {
    }
}

}  // namespace isa
