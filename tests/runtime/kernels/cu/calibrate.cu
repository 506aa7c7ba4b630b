// Every instruction wrapper of isa/ separately, and the elementary functions, to compare a GPU with the values in the
// tests.
// Arguments: x and y are buffers of 32-bit words, laid out as stated at each kernel; n and mode select among its cases.
// Grid: a CTA has one to four warps; the work of the threads is stated at each kernel.
// Bound: none. The kernels run once on each new kind of GPU, before its results are trusted.
// Reference: tests/runtime/kernels/calibrate.rs, calibrate_sums.rs and math.rs, tests/runtime/golden/isa.rs.
#include "common/math.cuh"
#include "common/math_f64.cuh"
#include "common/philox.cuh"
#include "isa/isa.cuh"

namespace calibrate {
struct Args {
    const uint32_t* x;
    uint32_t* y;
    long long n;
    long long mode;
};
struct Words {
    isa::Shared<uint32_t> v[1024];
};
// 16, 8 and 4 bytes per lane, and words behind them that a copy must not change.
struct Copies {
    isa::Shared<uint4> wide[32];
    isa::Shared<uint2> half[32];
    isa::Shared<uint32_t> word[32];
    isa::Shared<uint32_t> behind[4];
};
constexpr uint32_t SENTINEL = 0xabcdef01u;
}  // namespace calibrate

// One warp executes one matrix instruction, selected by `mode`: the number of registers, plus 10 for .trans, plus 20
// for stmatrix; 0 is mma.
// x: memory [1024] (the first n words are used), byte offsets of rows [32], a [32][4], b [32][4], d [32][4].
// y: memory, a, d.
KERNEL(calibrate_matrix, calibrate::Args, 32, 1) {
    auto& smem = isa::smem<calibrate::Words>();
    int lane = threadIdx.x, words = int(args.n);
    const uint32_t *rows = args.x + 1024, *a = rows + 32, *b = a + 128, *d = b + 128;
    for (int i = lane; i < words; i += 32) smem.v[i] = args.x[i];
    isa::sync_cta();
    auto row = reinterpret_cast<isa::Shared<bf16>*>(smem.v) + rows[lane] / 2;
    isa::Frag<4> four;
    isa::Frag<2> two;
    isa::Frag<1> one;
    isa::Acc acc;
    for (int i = 0; i < 4; i++) {
        four[i] = a[lane * 4 + i];
        acc[i] = __uint_as_float(d[lane * 4 + i]);
    }
    for (int i = 0; i < 2; i++) two[i] = b[lane * 4 + i];
    one[0] = four[0];
    switch (int(args.mode)) {
        case 1: isa::ldmatrix(one, row); break;
        case 2: isa::ldmatrix(two, row); break;
        case 4: isa::ldmatrix(four, row); break;
        case 11: isa::ldmatrix_trans(one, row); break;
        case 12: isa::ldmatrix_trans(two, row); break;
        case 14: isa::ldmatrix_trans(four, row); break;
        case 21: isa::stmatrix(row, one); break;
        case 22: isa::stmatrix(row, two); break;
        case 24: isa::stmatrix(row, four); break;
        case 31: isa::stmatrix_trans(row, one); break;
        case 32: isa::stmatrix_trans(row, two); break;
        case 34: isa::stmatrix_trans(row, four); break;
        default: isa::mma(acc, four, two); break;
    }
    isa::sync_cta();
    for (int i = lane; i < words; i += 32) args.y[i] = smem.v[i];
    int registers = int(args.mode) % 10;
    for (int i = 0; i < 4; i++) {
        args.y[1024 + lane * 4 + i] = registers == 1 ? one[0] : registers == 2 ? two[i % 2] : four[i];
        args.y[1152 + lane * 4 + i] = __float_as_uint(acc[i]);
    }
}

// One warp per tile computes a chain of n matrix products from zero. x is a [tile][step][32][4], then b
// [tile][step][32][2]; y is d [tile][32][4]. With mode 1, B is one half of a fragment that two products share. With
// mode 2, d starts with the content of y.
KERNEL(calibrate_mma, calibrate::Args, 32, 1) {
    int lane = threadIdx.x, steps = int(args.n), tile = blockIdx.x;
    const uint32_t* a = args.x + tile * steps * 128;
    const uint32_t* b = args.x + gridDim.x * steps * 128 + tile * steps * 64;
    isa::Acc acc;
    acc.zero();
    if (args.mode == 2) {
        for (int i = 0; i < 4; i++) acc[i] = __uint_as_float(args.y[(tile * 32 + lane) * 4 + i]);
    }
    for (int step = 0; step < steps; step++) {
        isa::Frag<4> left, both;
        isa::Frag<2> right;
        for (int i = 0; i < 4; i++) left[i] = a[(step * 32 + lane) * 4 + i];
        for (int i = 0; i < 2; i++) both[2 + i] = right[i] = b[(step * 32 + lane) * 2 + i];
        both[0] = both[1] = 0;
        if (args.mode == 1) {
            isa::mma<1>(acc, left, both);
        } else {
            isa::mma(acc, left, right);
        }
    }
    for (int i = 0; i < 4; i++) args.y[(tile * 32 + lane) * 4 + i] = __float_as_uint(acc[i]);
}

// One warp: lane l copies m % 17, m % 9 and m % 5 bytes with m = n + l; the rest of 16, 8 and 4 bytes is filled with
// zeros. x is [32] of 16 bytes, [32] of 8, [32] of 4; y is the content of shared memory afterwards. With mode 1 no byte
// is copied, and the source address cannot be read.
KERNEL(calibrate_copy, calibrate::Args, 32, 1) {
    auto& smem = isa::smem<calibrate::Copies>();
    int lane = threadIdx.x, bytes = int(args.n) + lane;
    uint32_t fill = calibrate::SENTINEL;
    smem.wide[lane] = make_uint4(fill, fill, fill, fill);
    smem.half[lane] = make_uint2(fill, fill);
    smem.word[lane] = fill;
    if (lane < 4) smem.behind[lane] = fill;
    auto wide = reinterpret_cast<const uint4*>(args.x) + lane;
    auto half = reinterpret_cast<const uint2*>(args.x + 128) + lane;
    auto word = args.x + 192 + lane;
    if (args.mode == 1) {
        bytes = 0;
        wide = nullptr;
        half = nullptr;
        word = nullptr;
    }
    isa::cp_async<16>(&smem.wide[lane], wide, bytes % 17);
    isa::cp_async_commit();
    isa::cp_async<8>(&smem.half[lane], half, bytes % 9);
    isa::cp_async<4>(&smem.word[lane], word, bytes % 5);
    isa::cp_async_commit();
    isa::cp_async_wait<1>();
    uint4 first = smem.wide[lane];
    isa::cp_async_wait<0>();
    isa::sync_cta();
    isa::store(args.y + 4 * lane, first);
    uint2 second = smem.half[31 - lane];
    isa::store(args.y + 128 + 2 * (31 - lane), second);
    args.y[192 + lane] = smem.word[lane];
    if (lane < 4) args.y[224 + lane] = smem.behind[lane];
}

// One warp: shuffles and votes. x is [32] words. y [64][32] is: shfl from (l * n + mode) % 32; xor with 1 to 31; up and
// down by 1, 5 and 31; the same with 8 bytes (both halves); ballot, any and all of the bit `mode`.
KERNEL(calibrate_warp, calibrate::Args, 32, 1) {
    int lane = threadIdx.x, row = 0;
    uint32_t v = args.x[lane];
    uint64_t wide = uint64_t(v) << 32 | uint64_t(~v);
    int source = (lane * int(args.n) + int(args.mode)) % 32;
    uint32_t* y = args.y + lane;
    y[32 * row++] = isa::shfl(v, source);
#pragma unroll
    for (int mask = 1; mask < 32; mask++) y[32 * row++] = isa::shfl_xor(v, mask);
#pragma unroll
    for (int i = 0; i < 3; i++) {
        int delta = i == 0 ? 1 : i == 1 ? 5 : 31;
        y[32 * row++] = isa::shfl_up(v, delta);
        y[32 * row++] = isa::shfl_down(v, delta);
    }
    uint64_t moved = isa::shfl(wide, source);
    y[32 * row++] = uint32_t(moved >> 32);
    y[32 * row++] = uint32_t(moved);
    moved = isa::shfl_xor(wide, 9);
    y[32 * row++] = uint32_t(moved >> 32);
    y[32 * row++] = uint32_t(moved);
    moved = isa::shfl_up(wide, 3);
    y[32 * row++] = uint32_t(moved >> 32);
    moved = isa::shfl_down(wide, 3);
    y[32 * row++] = uint32_t(moved);
    y[32 * row++] = __float_as_uint(isa::shfl_xor(__uint_as_float(v), 16));
    bool bit = v >> int(args.mode) & 1;
    y[32 * row++] = isa::ballot(bit);
    y[32 * row++] = uint32_t(isa::any(bit)) | uint32_t(isa::all(bit)) << 1;
}

// One thread per word of x [n]: y [n][4] is the word as bf16, packed with the next word, and its low and high half as
// floats.
KERNEL(calibrate_bf16, calibrate::Args, 128, 1) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= args.n) return;
    uint32_t bits = args.x[i];
    float x = __uint_as_float(bits), next = __uint_as_float(args.x[(i + 1) % int(args.n)]);
    args.y[4 * i] = to_bf16(x).bits;
    args.y[4 * i + 1] = pack(x, next);
    args.y[4 * i + 2] = __float_as_uint(lo(bits));
    args.y[4 * i + 3] = __float_as_uint(hi(bits)) ^ __float_as_uint(to_float(bf16{uint16_t(bits)}));
}

// One thread per word of x [n]: y [n][17] is the functions of common/math.cuh, noise, a Philox block, and exp2_approx.
KERNEL(calibrate_math, calibrate::Args, 128, 1) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= args.n) return;
    float x = __uint_as_float(args.x[i]);
    uint32_t* y = args.y + 17 * i;
    y[0] = __float_as_uint(math::exp2(x));
    y[1] = __float_as_uint(math::exp(x));
    y[2] = __float_as_uint(math::ln(x));
    y[3] = __float_as_uint(math::log1p(x));
    y[4] = __float_as_uint(math::tanh(x));
    y[5] = __float_as_uint(math::erf(x));
    y[6] = __float_as_uint(math::sigmoid(x));
    y[7] = __float_as_uint(math::silu(x));
    y[8] = __float_as_uint(math::silu_grad(x));
    y[9] = __float_as_uint(math::gelu(x));
    y[10] = __float_as_uint(math::gelu_grad(x));
    y[11] = __float_as_uint(philox::gumbel(args.x[i]));
    philox::Words w = philox::philox4x32_10(args.x[i], 7, i, 3, args.x[i] ^ 5, 9);
    y[12] = w.x;
    y[13] = w.y;
    y[14] = w.z;
    y[15] = w.w;
    y[16] = __float_as_uint(isa::exp2_approx(x));
}

// One thread per number of x [n] in f64: y [n] is e^x.
KERNEL(calibrate_math_f64, calibrate::Args, 128, 1) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= args.n) return;
    reinterpret_cast<double*>(args.y)[i] = math::exp_f64(reinterpret_cast<const double*>(args.x)[i]);
}

// 64 threads: warp 0 produces into two slots, warp 1 consumes, n times; x [n][32], y [32].
KERNEL(calibrate_named, calibrate::Args, 64, 1) {
    auto& smem = isa::smem<calibrate::Words>();
    int lane = threadIdx.x % 32;
    uint32_t sum = 0;
    for (int i = 0; i < int(args.n); i++) {
        int slot = i % 2;
        if (threadIdx.x < 32) {
            if (i >= 2) {
                isa::sync_named(3 + slot, 64);
            }
            smem.v[slot * 32 + lane] = args.x[i * 32 + lane];
            isa::arrive_named(1 + slot, 64);
        } else {
            isa::sync_named(1 + slot, 64);
            sum += smem.v[slot * 32 + 31 - lane] * uint32_t(i + 1);
            if (i + 2 < int(args.n)) {
                isa::arrive_named(3 + slot, 64);
            }
        }
    }
    if (threadIdx.x >= 32) args.y[lane] = sum;
}

// 64 threads: each warp rotates its 32 words n times, without a barrier of the CTA; x [64], y [64].
KERNEL(calibrate_turn, calibrate::Args, 64, 1) {
    auto& smem = isa::smem<calibrate::Words>();
    int base = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    uint32_t word = args.x[threadIdx.x];
    for (int round = 0; round < int(args.n); round++) {
        smem.v[base + lane] = word;
        isa::sync_warp();
        word = smem.v[base + (lane + 1) % 32];
        isa::sync_warp();
    }
    args.y[threadIdx.x] = word;
}

// All threads of all CTAs access the same words. x [CTA][128]. y [20] starts with zeros, except y[4] and y[5], which
// start with the largest number. Results: sums, maxima and minima of int, uint32 and uint64, a float sum of small
// integers, and the sum of the old values of exchanges and swaps.
KERNEL(calibrate_atomic, calibrate::Args, 128, 1) {
    uint32_t v = args.x[blockIdx.x * 128 + threadIdx.x];
    auto ints = reinterpret_cast<int*>(args.y);
    auto longs = reinterpret_cast<uint64_t*>(args.y + 6);
    uint64_t wide = uint64_t(v) << 20;
    isa::atomic_add(ints, int(v));
    isa::atomic_add(args.y + 1, v);
    isa::atomic_max(ints + 2, int(v));
    isa::atomic_max(args.y + 3, v);
    isa::atomic_min(ints + 4, int(v & 0x7fffffffu));
    isa::atomic_min(args.y + 5, v);
    isa::atomic_add(longs, wide);
    isa::atomic_max(longs + 1, wide);
    isa::atomic_max(longs + 2, ~wide);
    isa::atomic_add(reinterpret_cast<float*>(args.y + 12), float(v % 64));
    // The sum of all values that were exchanged out, plus the value left at the end, equals the sum of all values that
    // were put in.
    isa::atomic_add(args.y + 13, isa::atomic_exch(args.y + 14, v));
    // An addition made of compare-and-swap.
    uint32_t seen = isa::load_volatile(args.y + 15);
    uint32_t found = isa::atomic_cas(args.y + 15, seen, seen + 1);
    while (found != seen) {
        seen = found;
        found = isa::atomic_cas(args.y + 15, seen, seen + 1);
    }
}

// 64 threads per CTA: CTA i adds to what CTA i - 1 left in y [64]. The counter y[64] numbers the CTAs, and the flag
// y[65] passes the turn from one to the next.
KERNEL(calibrate_chain, calibrate::Args, 64, 1) {
    auto& smem = isa::smem<calibrate::Words>();
    if (threadIdx.x == 0) smem.v[0] = isa::atomic_add(args.y + 64, 1u);
    isa::sync_cta();
    uint32_t turn = smem.v[0];
    isa::spin_until([&] {
        return isa::load_acquire(args.y + 65) == turn;
    });
    uint32_t left = isa::load<uint32_t>(args.y + 63 - threadIdx.x);
    isa::sync_cta();
    isa::store(args.y + threadIdx.x, left + args.x[turn * 64 + threadIdx.x]);
    isa::sync_cta();
    if (threadIdx.x == 0) {
        isa::store_release(args.y + 65, turn + 1);
    }
}

// 64 threads per CTA: y[1 + CTA] is the sum of the CTA's part of x. y[0] is the sum of these, computed by the last CTA
// to arrive. y[n] counts arrivals.
KERNEL(calibrate_ticket, calibrate::Args, 64, 1) {
    auto& smem = isa::smem<calibrate::Words>();
    uint32_t word = args.x[blockIdx.x * 64 + threadIdx.x];
    for (int d = 16; d > 0; d /= 2) word += isa::shfl_xor(word, d);
    if (threadIdx.x % 32 == 0) smem.v[threadIdx.x / 32] = word;
    isa::sync_cta();
    if (threadIdx.x == 0) {
        isa::store(args.y + 1 + blockIdx.x, uint32_t(smem.v[0]) + uint32_t(smem.v[1]));
        isa::threadfence();
        smem.v[2] = isa::atomic_add(args.y + args.n, 1u);
    }
    isa::sync_cta();
    if (smem.v[2] + 1 == gridDim.x && threadIdx.x == 0) {
        isa::threadfence();
        uint32_t sum = 0;
        for (int i = 0; i < int(gridDim.x); i++) sum += isa::load<uint32_t>(args.y + 1 + i);
        args.y[0] = sum;
    }
}
