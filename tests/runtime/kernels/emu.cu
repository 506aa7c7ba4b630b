// Kernels that show what the emulator detects. Each kernel is right as written and wrong without one of its calls, or
// it is wrong in the one way that its name describes.
// Arguments: all have 8 bytes. x and y are buffers of 32-bit words; counters start at zero.
// Grid: stated at each kernel, with the work of the threads.
// Bound: none.
// Reference: tests/runtime/kernels/emu.rs.
#include "isa/isa.cuh"

namespace control {
struct Args {
    const uint32_t* x;
    uint32_t* y;
    uint32_t* counters;
    long long n;
};
struct Words {
    isa::Shared<uint32_t> v[256];
};
struct Tiles {
    isa::Shared<bf16> a[3][64][24];
    isa::Shared<bf16> b[3][64][24];
};
}  // namespace control

// 256 threads: y is x reversed. There is one barrier too many.
KERNEL(twice, control::Args, 256, 1) {
    auto& smem = isa::smem<control::Words>();
    smem.v[threadIdx.x] = args.x[threadIdx.x];
    isa::sync_cta();
    isa::sync_cta();
    args.y[threadIdx.x] = smem.v[255 - threadIdx.x];
}

// 96 threads: the second warp repeatedly writes the words that the first warp reads. In the fixed order the first warp
// is faster than the second even without barriers.
KERNEL(rare, control::Args, 96, 1) {
    auto& smem = isa::smem<control::Words>();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t sum = 0;
    for (uint32_t round = 0; round < 4; round++) {
        if (warp == 1) smem.v[lane] = args.x[lane] + round;
        isa::sync_cta();
        if (warp == 0) sum += smem.v[31 - lane];
        isa::sync_cta();
    }
    if (warp == 0) args.y[lane] = sum;
}

// 64 threads: each warp rotates its 32 words, four times.
KERNEL(turn, control::Args, 64, 1) {
    auto& smem = isa::smem<control::Words>();
    int base = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    uint32_t word = args.x[threadIdx.x];
    for (int round = 0; round < 4; round++) {
        smem.v[base + lane] = word + round;
        isa::sync_warp();
        word = smem.v[base + (lane + 1) % 32];
        isa::sync_warp();
    }
    args.y[threadIdx.x] = word;
}

// 32 threads: y is x doubled, through words that are n apart, then stored in pairs.
KERNEL(spread, control::Args, 32, 1) {
    auto& smem = isa::smem<control::Words>();
    int lane = threadIdx.x, apart = int(args.n);
    smem.v[lane * apart] = args.x[lane];
    isa::sync_warp();
    uint32_t word = smem.v[lane * apart];
    isa::sync_warp();
    isa::store(&smem.v[lane * 2], make_uint2(word, word));
    isa::sync_warp();
    args.y[lane] = smem.v[lane * 2] + smem.v[lane * 2 + 1];
}

// 64 threads: warp 0 produces into two slots, warp 1 consumes.
KERNEL(hand_over, control::Args, 64, 1) {
    auto& smem = isa::smem<control::Words>();
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

// 128 threads: y [64][64] float = A B^T. x holds A [64][n] and B [64][n] in bf16. Three pipeline stages of 16 columns.
KERNEL(pipeline, control::Args, 128, 1) {
    auto& smem = isa::smem<control::Tiles>();
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int k = int(args.n), steps = k / 16;
    auto a = reinterpret_cast<const bf16*>(args.x), b = a + 64 * k;
    int row = thread / 2, column = thread % 2 * 8;
    isa::Acc sums[2][4];
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) sums[i][j].zero();
    }
    for (int step = -2; step < steps; step++) {
        if (step + 2 < steps) {
            int stage = (step + 2) % 3, at = (step + 2) * 16 + column;
            isa::cp_async<16>(&smem.a[stage][row][column], a + row * k + at, 16);
            isa::cp_async<16>(&smem.b[stage][row][column], b + row * k + at, 16);
        }
        isa::cp_async_commit();
        if (step < 0) continue;
        isa::cp_async_wait<2>();
        isa::sync_cta();
        int stage = step % 3, m = warp / 2 * 32, n = warp % 2 * 32;
        isa::Frag<4> x[2];
        isa::Frag<4> w[2];
        for (int i = 0; i < 2; i++) {
            isa::ldmatrix(x[i], &smem.a[stage][m + 16 * i + lane % 16][lane / 16 * 8]);
            isa::ldmatrix(w[i], &smem.b[stage][n + 16 * i + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);
        }
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 2; j++) {
                isa::mma<0>(sums[i][2 * j], x[i], w[j]);
                isa::mma<1>(sums[i][2 * j + 1], x[i], w[j]);
            }
        }
        isa::sync_cta();
    }
    auto y = reinterpret_cast<float*>(args.y);
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
            float* at = y + (warp / 2 * 32 + 16 * i + lane / 4) * 64 + warp % 2 * 32 + 8 * j + lane % 4 * 2;
            isa::store(at, make_float2(sums[i][j][0], sums[i][j][1]));
            isa::store(at + 8 * 64, make_float2(sums[i][j][2], sums[i][j][3]));
        }
    }
}

// 64 threads per CTA: y[1 + CTA] is the sum of the CTA's part of x. y[0] is the sum of these, computed by the last CTA
// to arrive.
KERNEL(ticket, control::Args, 64, 1) {
    auto& smem = isa::smem<control::Words>();
    uint32_t word = args.x[blockIdx.x * 64 + threadIdx.x];
    for (int d = 16; d > 0; d /= 2) word += isa::shfl_xor(word, d);
    if (threadIdx.x % 32 == 0) smem.v[threadIdx.x / 32] = word;
    isa::sync_cta();
    if (threadIdx.x == 0) {
        isa::store(args.y + 1 + blockIdx.x, uint32_t(smem.v[0]) + uint32_t(smem.v[1]));
        isa::threadfence();
        smem.v[2] = isa::atomic_add(args.counters, 1u);
    }
    isa::sync_cta();
    if (smem.v[2] + 1 == gridDim.x && threadIdx.x == 0) {
        isa::threadfence();
        uint32_t sum = 0;
        for (int i = 0; i < int(gridDim.x); i++) sum += isa::load<uint32_t>(args.y + 1 + i);
        args.y[0] = sum;
    }
}

// 64 threads per CTA: CTA i adds to what CTA i - 1 left in y. A counter numbers the CTAs, and a flag passes the turn
// from one to the next.
KERNEL(chain, control::Args, 64, 1) {
    auto& smem = isa::smem<control::Words>();
    if (threadIdx.x == 0) smem.v[0] = isa::atomic_add(args.counters, 1u);
    isa::sync_cta();
    uint32_t turn = smem.v[0];
    isa::spin_until([&] { return isa::load_acquire(args.counters + 1) == turn; });
    uint32_t left = isa::load<uint32_t>(args.y + 63 - threadIdx.x);
    isa::sync_cta();
    isa::store(args.y + threadIdx.x, left + args.x[turn * 64 + threadIdx.x]);
    isa::sync_cta();
    if (threadIdx.x == 0) {
        isa::store_release(args.counters + 1, turn + 1);
    }
}

// Every CTA waits until all have arrived.
KERNEL(grid_barrier, control::Args, 32, 1) {
    if (threadIdx.x == 0) {
        isa::atomic_add(args.counters, 1u);
        isa::spin_until([&] { return isa::load_acquire(args.counters) == gridDim.x; });
    }
    isa::sync_cta();
    args.y[blockIdx.x * 32 + threadIdx.x] = args.counters[0];
}

// y[0] float += x, in any order of threads.
KERNEL_UNORDERED(racing_sum, control::Args, 64, 1) {
    auto x = reinterpret_cast<const float*>(args.x);
    isa::atomic_add(reinterpret_cast<float*>(args.y), x[blockIdx.x * 64 + threadIdx.x]);
}

// 64 threads: each case is one wrong use of an instruction.
KERNEL(misuse, control::Args, 64, 1) {
    auto& smem = isa::smem<control::Words>();
    int thread = threadIdx.x, lane = thread % 32;
    isa::Frag<4> fragment;
    auto rows = reinterpret_cast<isa::Shared<bf16>*>(smem.v);
    switch (int(args.n)) {
        case 0: args.y[thread] = smem.v[thread]; break;
        case 1:
            smem.v[thread] = 1;
            isa::sync_cta();
            smem.v[thread] = 2;
            args.y[thread] = smem.v[63 - thread];
            break;
        case 2: smem.v[thread * 128] = 1; break;
        case 3: args.y[thread] = isa::load<uint4>(args.x + thread).x; break;
        case 4: args.y[thread] = args.x[thread + 64]; break;
        case 5:
            if (lane % 2 == 0) {
                isa::shfl(1, 0);
            } else {
                isa::ballot(true);
            }
            break;
        case 6:
            if (thread < 40) {
                isa::sync_cta();
            } else {
                isa::spin_until([&] { return isa::load_acquire(args.counters) == 1; });
            }
            break;
        case 7: isa::sync_warp(0xffffu); break;
        case 8:
            if (lane < 16) isa::ldmatrix(fragment, rows + lane * 8);
            break;
        case 9: isa::ldmatrix(fragment, rows + lane * 8 + 4); break;
        case 10: isa::sync_named(1, 40); break;
        case 11: isa::arrive_named(1, thread < 32 ? 64 : 32); break;
        case 12: isa::store(args.y + thread % 32, 1u); break;
        case 13: isa::cp_async<16>(&smem.v[thread * 4 + 1], args.x, 16); break;
        case 14:
            isa::cp_async<4>(&smem.v[thread], args.x + thread, 4);
            isa::cp_async_commit();
            smem.v[thread] = 1;
            break;
        case 15: smem.v[thread % 32] = 1; break;
        case 16: args.y[thread] = uint32_t(int(args.x[thread]) / int(args.counters[0])); break;
        case 17: {
            isa::Acc sum;
            isa::Frag<4> a;
            isa::Frag<2> b;
            for (int i = 0; i < 4; i++) a[i] = 0;
            b[0] = b[1] = 0;
            isa::mma(sum, a, b);
            args.y[thread] = sum[0] == 0.0f;
            break;
        }
        case 18: args.y[thread] = uint32_t(int(args.x[thread] + 50000) * int(args.x[thread] + 50000)); break;
        default: break;
    }
}
