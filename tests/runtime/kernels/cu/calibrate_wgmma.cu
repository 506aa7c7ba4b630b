// wgmma separately: shapes, operand layouts, groups; and the descriptors of its operands.
// Arguments: x and y are buffers of 32-bit words, laid out as stated at each kernel; n and mode select among its cases.
// Grid: one warpgroup per CTA; the work of the threads is stated at each kernel.
// Bound: none. The kernels run once on each new kind of GPU, before its results are trusted.
// Reference: tests/runtime/golden/isa_wgmma.rs and tests/runtime/kernels/calibrate_wgmma.rs.
#include "isa/hopper.cuh"

namespace calibrate {
struct Args {
    const uint32_t* x;
    uint32_t* y;
    long long n;
    long long mode;
};
struct Image {
    isa::Shared<uint32_t> v[12288];
};
struct Tiles {
    isa::Shared<bf16> a[2][64 * 16];
    isa::Shared<bf16> b[2][64 * 16];
};

// Bits of `mode`:
// - 1: a is MN-major. 2: b is MN-major.
// - 4: a is in registers.
// - 8: each product starts from zero; otherwise they form one chain.
// - 16: only the sums of the first warp are stored.
// - bits 8 and up: products per CTA.
struct Mode {
    static constexpr int FROM_ZERO = 8, FIRST_WARP = 16;
};

__device__ __forceinline__ uint64_t word64(const uint32_t* p) { return uint64_t(p[1]) << 32 | p[0]; }

// x is shared memory [n], then the products of each CTA: descriptors a and b [product][2] of 64 bits, where address 0
// is the first word of the memory; then, again for all CTAs, a's registers [product][128][4]. y is
// [CTA][product][thread][N / 2].
template <int N, isa::Major A, isa::Major B, bool REGISTERS>
__device__ __forceinline__ void products(const Args& args) {
    auto& smem = isa::smem<Image>();
    int thread = threadIdx.x, words = int(args.n), mode = int(args.mode), count = mode >> 8;
    int storing = mode & Mode::FIRST_WARP ? 32 : 128;
    for (int i = thread; i < words; i += 128) smem.v[i] = args.x[i];
    isa::fence_proxy_async();
    isa::sync_cta();
    const uint32_t* descriptors = args.x + words + blockIdx.x * count * 4;
    const uint32_t* registers = args.x + words + gridDim.x * count * 4 + blockIdx.x * count * 512;
    int base = int(isa::shared_address(smem.v));
    isa::WgmmaAcc<N> sums;
    for (int i = 0; i < count; i++) {
        uint64_t a = isa::advance(word64(descriptors + 4 * i), base);
        uint64_t b = isa::advance(word64(descriptors + 4 * i + 2), base);
        bool accumulate = i > 0 && (mode & Mode::FROM_ZERO) == 0;
        isa::Frag<4> left;
        if constexpr (REGISTERS) {
#pragma unroll
            for (int j = 0; j < 4; j++) left[j] = registers[(i * 128 + thread) * 4 + j];
        }
        isa::wgmma_fence();
        if constexpr (REGISTERS) {
            isa::wgmma<B>(sums, left, b, accumulate);
        } else {
            isa::wgmma<A, B>(sums, a, b, accumulate);
        }
        isa::wgmma_commit();
        isa::wgmma_wait<0>();
        if (thread < storing) {
            uint32_t* y = args.y + ((size_t)(blockIdx.x * count + i) * storing + thread) * (N / 2);
#pragma unroll
            for (int j = 0; j < N / 2; j++) y[j] = __float_as_uint(sums[j]);
        }
    }
}

template <int N>
__device__ __forceinline__ void choose(const Args& args) {
    using isa::Major;
    switch (int(args.mode) & 7) {
        case 0: products<N, Major::k, Major::k, false>(args); break;
        case 1: products<N, Major::mn, Major::k, false>(args); break;
        case 2: products<N, Major::k, Major::mn, false>(args); break;
        case 3: products<N, Major::mn, Major::mn, false>(args); break;
        case 4: products<N, Major::k, Major::k, true>(args); break;
        default: products<N, Major::k, Major::mn, true>(args); break;
    }
}
}  // namespace calibrate

// instructions calibrate_wgmma_*: HGMMA
#define CALIBRATE_WGMMA(N) \
    KERNEL_SM90A(calibrate_wgmma_n##N, calibrate::Args, 128, 1) { calibrate::choose<N>(args); }
CALIBRATE_WGMMA(8)
CALIBRATE_WGMMA(16)
CALIBRATE_WGMMA(32)
CALIBRATE_WGMMA(64)
CALIBRATE_WGMMA(80)
CALIBRATE_WGMMA(96)
CALIBRATE_WGMMA(128)
CALIBRATE_WGMMA(192)
CALIBRATE_WGMMA(256)

// A chain of n products, m64n64k16: x is a [n][64][16], then b [n][64][16] in bf16; y is the sums [128][32]. Threads
// write one of two slots while the product of the other slot may still read it.
KERNEL_SM90A(calibrate_wgmma_slots, calibrate::Args, 128, 1) {
    auto& smem = isa::smem<calibrate::Tiles>();
    int thread = threadIdx.x, count = int(args.n);
    auto a = reinterpret_cast<const bf16*>(args.x), b = a + count * 1024;
    isa::WgmmaAcc<64> sums;
    for (int step = 0; step < count; step++) {
        int slot = step % 2;
        // Not swizzled: blocks of 8 rows of 8 elements, the two blocks along k first.
        for (int i = thread; i < 1024; i += 128) {
            int at = i / 128 * 128 + i % 16 / 8 * 64 + i / 16 % 8 * 8 + i % 8;
            smem.a[slot][at] = a[step * 1024 + i];
            smem.b[slot][at] = b[step * 1024 + i];
        }
        isa::fence_proxy_async();
        isa::sync_cta();
        isa::wgmma_fence();
        isa::wgmma(sums, isa::matrix_descriptor(smem.a[slot], 128, 256, isa::Swizzle::none),
                   isa::matrix_descriptor(smem.b[slot], 128, 256, isa::Swizzle::none), step > 0);
        isa::wgmma_commit();
        isa::wgmma_wait<1>();
        isa::sync_cta();
    }
    isa::wgmma_wait<0>();
#pragma unroll
    for (int j = 0; j < 32; j++) args.y[thread * 32 + j] = __float_as_uint(sums[j]);
}

// One thread per descriptor: x [n][5] is start, leading, stride, base offset and swizzle; y [n][2] is its low and high
// word.
KERNEL_SM90A(calibrate_descriptor, calibrate::Args, 128, 1) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= args.n) return;
    const uint32_t* x = args.x + 5 * i;
    uint64_t bits = isa::descriptor(x[0], x[1], x[2], x[3], isa::Swizzle(x[4]));
    args.y[2 * i] = uint32_t(bits);
    args.y[2 * i + 1] = uint32_t(bits >> 32);
}
