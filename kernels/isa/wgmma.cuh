// wgmma: computes d = a b (+ d) in a warpgroup, which is four warps starting at a multiple of four. All four must make
// every call below. Shape m64nNk16, bf16 operands, fp32 accumulators. a comes from shared memory or registers, b from
// shared memory.
//
// wgmma is asynchronous. No thread may touch the accumulators, the registers of a, or the operands in shared memory
// between the call and the wgmma_wait that covers it. Before the call, threads' writes to shared memory need
// fence_proxy_async and a barrier.
//
// Thread t of the warpgroup holds in accumulator i the element of row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2) and
// column 8 (i / 4) + 2 (t % 4) + i % 2. If a is in registers, each warp holds A of mma for its 16 rows.
#pragma once
#include "isa/descriptor.cuh"

namespace isa {

// Accumulators of m64nN, N / 2 per thread. Undefined until written, or until a wgmma that does not accumulate. The
// compiler keeps them in registers only if every index is a constant.
template <int N>
struct WgmmaAcc {
    float r[N / 2];
    __device__ __forceinline__ float& operator[](int i) { return r[i]; }
    __device__ __forceinline__ float operator[](int i) const { return r[i]; }
};

// Must be called before the first wgmma. It must also be called after an access to accumulators or to registers of a,
// before the next wgmma that uses them.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Commits the wgmmas since the last call as a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the N newest groups are incomplete.
template <int N>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

template <int N>
struct WgmmaShape;

#define WGMMA_TEN(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9"
#define WGMMA_NAMES_4 "%0,%1,%2,%3"
#define WGMMA_NAMES_8 WGMMA_NAMES_4 ",%4,%5,%6,%7"
#define WGMMA_NAMES_16 WGMMA_TEN() ",%10,%11,%12,%13,%14,%15"
#define WGMMA_NAMES_32 WGMMA_TEN() "," WGMMA_TEN(1) "," WGMMA_TEN(2) ",%30,%31"
#define WGMMA_NAMES_40 WGMMA_TEN() "," WGMMA_TEN(1) "," WGMMA_TEN(2) "," WGMMA_TEN(3)
#define WGMMA_NAMES_48 WGMMA_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_NAMES_60 WGMMA_NAMES_40 "," WGMMA_TEN(4) "," WGMMA_TEN(5)
#define WGMMA_NAMES_64 WGMMA_NAMES_60 ",%60,%61,%62,%63"
#define WGMMA_NAMES_90 WGMMA_NAMES_60 "," WGMMA_TEN(6) "," WGMMA_TEN(7) "," WGMMA_TEN(8)
#define WGMMA_NAMES_96 WGMMA_NAMES_90 ",%90,%91,%92,%93,%94,%95"
#define WGMMA_NAMES_120 WGMMA_NAMES_90 "," WGMMA_TEN(9) "," WGMMA_TEN(10) "," WGMMA_TEN(11)
#define WGMMA_NAMES_128 WGMMA_NAMES_120 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_SUMS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define WGMMA_SUMS_8(i) WGMMA_SUMS_4(i), WGMMA_SUMS_4((i) + 4)
#define WGMMA_SUMS_16(i) WGMMA_SUMS_8(i), WGMMA_SUMS_8((i) + 8)
#define WGMMA_SUMS_32(i) WGMMA_SUMS_16(i), WGMMA_SUMS_16((i) + 16)
#define WGMMA_SUMS_40(i) WGMMA_SUMS_32(i), WGMMA_SUMS_8((i) + 32)
#define WGMMA_SUMS_48(i) WGMMA_SUMS_32(i), WGMMA_SUMS_16((i) + 32)
#define WGMMA_SUMS_64(i) WGMMA_SUMS_32(i), WGMMA_SUMS_32((i) + 32)
#define WGMMA_SUMS_96(i) WGMMA_SUMS_64(i), WGMMA_SUMS_32((i) + 64)
#define WGMMA_SUMS_128(i) WGMMA_SUMS_64(i), WGMMA_SUMS_64((i) + 64)

// Arguments: columns, accumulators per thread, and the numbers of the seven operands that follow the accumulators.
#define WGMMA_SHAPE(N, COUNT, e, f, g, h, i, j, k)                                                                   \
    template <>                                                                                                      \
    struct WgmmaShape<N> {                                                                                           \
        template <Major A, Major B>                                                                                  \
        __device__ __forceinline__ static void shared(float (&d)[COUNT], uint64_t a, uint64_t b, int accumulate) {   \
            asm volatile("{.reg .pred p; setp.ne.b32 p, %" #g ", 0; wgmma.mma_async.sync.aligned.m64n" #N            \
                         "k16.f32.bf16.bf16 {" WGMMA_NAMES_##COUNT "}, %" #e ", %" #f ", p, 1, 1, %" #h ", %" #i     \
                         ";}"                                                                                        \
                         : WGMMA_SUMS_##COUNT(0)                                                                     \
                         : "l"(a), "l"(b), "r"(accumulate), "n"(int(A)), "n"(int(B)));                               \
        }                                                                                                            \
        template <Major B>                                                                                           \
        __device__ __forceinline__ static void registers(float (&d)[COUNT], const uint32_t (&a)[4], uint64_t b,      \
                                                         int accumulate) {                                           \
            asm volatile("{.reg .pred p; setp.ne.b32 p, %" #j ", 0; wgmma.mma_async.sync.aligned.m64n" #N            \
                         "k16.f32.bf16.bf16 {" WGMMA_NAMES_##COUNT "}, {%" #e ",%" #f ",%" #g ",%" #h "}, %" #i      \
                         ", p, 1, 1, %" #k ";}"                                                                      \
                         : WGMMA_SUMS_##COUNT(0)                                                                     \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(B)));        \
        }                                                                                                            \
    };

WGMMA_SHAPE(8, 4, 4, 5, 6, 7, 8, 9, 10)
WGMMA_SHAPE(16, 8, 8, 9, 10, 11, 12, 13, 14)
WGMMA_SHAPE(32, 16, 16, 17, 18, 19, 20, 21, 22)
WGMMA_SHAPE(64, 32, 32, 33, 34, 35, 36, 37, 38)
WGMMA_SHAPE(80, 40, 40, 41, 42, 43, 44, 45, 46)
WGMMA_SHAPE(96, 48, 48, 49, 50, 51, 52, 53, 54)
WGMMA_SHAPE(128, 64, 64, 65, 66, 67, 68, 69, 70)
WGMMA_SHAPE(192, 96, 96, 97, 98, 99, 100, 101, 102)
WGMMA_SHAPE(256, 128, 128, 129, 130, 131, 132, 133, 134)

// Computes d = a b, or d + a b if `accumulate`. a and b are descriptors of one k16 step of 64 and of N rows. a, b and
// `accumulate` must be the same in all threads.
template <Major A = Major::k, Major B = Major::k, int N>
__device__ __forceinline__ void wgmma(WgmmaAcc<N>& d, uint64_t a, uint64_t b, bool accumulate) {
    WgmmaShape<N>::template shared<A, B>(d.r, a, b, int(accumulate));
}

// Computes d = a b, or d + a b if `accumulate`, with a in registers.
template <Major B = Major::k, int N>
__device__ __forceinline__ void wgmma(WgmmaAcc<N>& d, const Frag<4>& a, uint64_t b, bool accumulate) {
    WgmmaShape<N>::template registers<B>(d.r, a.r, b, int(accumulate));
}

}  // namespace isa
