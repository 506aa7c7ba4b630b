// Kernels that copy with mbarriers and bulk copies. Each kernel is right as written and wrong without one of its calls,
// or it is wrong in the one way that its name describes.
// Arguments: the maps `in` and `out` are of bf16 [rows][64], with boxes of 32 x 64 and a swizzle of 128 bytes; x and y
// are words.
// Grid: stated at each kernel, with the work of the threads.
// Bound: none.
// Reference: tests/runtime/kernels/tma.rs.
#include "isa/hopper.cuh"

namespace tma {
struct Args {
    isa::TensorMap in;
    isa::TensorMap out;
    const uint32_t* x;
    uint32_t* y;
    long long n;
};
constexpr int STAGES = 3, ROWS = 32, WORDS = 32, BYTES = ROWS * WORDS * 4;
struct Smem {
    isa::Shared<uint32_t> tiles[STAGES][ROWS * WORDS];
    isa::Shared<uint32_t> staged[ROWS * WORDS];
    isa::Mbarrier full[STAGES];
    isa::Mbarrier empty[STAGES];
    isa::Shared<uint32_t> note[STAGES];
};
struct Operands {
    isa::Shared<bf16> a[64 * 16];
    isa::Shared<bf16> b[8 * 16];
    isa::Mbarrier full;
};
// Returns the index of a word of a row, in a tile with a swizzle of 128 bytes.
__device__ __forceinline__ int word(int row, int column) { return row * WORDS + (column ^ (row % 8 * 4)); }
}  // namespace tma

// 160 threads: thread 0 loads one tile of `in` after the other. Four warps add the tile's number to each word and write
// the tile to `out`, with its rows upside down.
KERNEL_SM90A(pipelined, tma::Args, 160, 1) {
    auto& smem = isa::smem<tma::Smem>();
    int thread = threadIdx.x, tiles = int(args.n);
    if (thread == 0) {
        for (int i = 0; i < tma::STAGES; i++) {
            isa::mbarrier_init(&smem.full[i], 1);
            isa::mbarrier_init(&smem.empty[i], 4);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
    if (thread == 0) {
        isa::tma_prefetch(&args.in);
        for (int tile = 0; tile < tiles; tile++) {
            int stage = tile % tma::STAGES;
            uint32_t parity = uint32_t(tile / tma::STAGES & 1);
            isa::mbarrier_wait(&smem.empty[stage], parity ^ 1);
            smem.note[stage] = uint32_t(tile);
            isa::mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES);
            isa::tma_load(smem.tiles[stage], &args.in, &smem.full[stage], 0, tile * tma::ROWS);
        }
    }
    if (thread >= 32) {
        int row = (thread - 32) / 4, first = thread % 4 * 8;
        for (int tile = 0; tile < tiles; tile++) {
            int stage = tile % tma::STAGES;
            uint32_t words[8];
            isa::mbarrier_wait(&smem.full[stage], uint32_t(tile / tma::STAGES & 1));
            for (int i = 0; i < 8; i++) words[i] = smem.tiles[stage][tma::word(row, first + i)] + smem.note[stage];
            isa::sync_warp();
            if (thread % 32 == 0) {
                isa::mbarrier_arrive(&smem.empty[stage]);
            }
            if (thread == 32) {
                isa::bulk_wait_read<0>();
            }
            isa::sync_named(1, 128);
            for (int i = 0; i < 8; i++) smem.staged[tma::word(tma::ROWS - 1 - row, first + i)] = words[i];
            isa::fence_proxy_async();
            isa::sync_named(2, 128);
            if (thread == 32) {
                isa::tma_store(&args.out, smem.staged, 0, tile * tma::ROWS);
                isa::bulk_commit();
            }
        }
        if (thread == 32) {
            isa::bulk_wait_read<0>();
        }
    }
}

// 64 threads: plain bytes are loaded, each word is doubled in place, and the words are stored to y. When the store is
// complete, another thread reads y[0 ...] back and writes it to y[n ...].
KERNEL_SM90A(plain, tma::Args, 64, 1) {
    auto& smem = isa::smem<tma::Smem>();
    int thread = threadIdx.x, words = int(args.n);
    if (thread == 0) {
        isa::mbarrier_init(&smem.full[0], 1);
        isa::fence_mbarrier_init();
        isa::mbarrier_arrive_expect_tx(&smem.full[0], words * 4);
        isa::bulk_load(smem.staged, args.x, words * 4, &smem.full[0]);
    }
    isa::sync_cta();
    isa::mbarrier_wait(&smem.full[0], 0);
    for (int i = thread; i < words; i += 64) smem.staged[i] = smem.staged[i] * 2u;
    isa::fence_proxy_async();
    isa::sync_cta();
    if (thread == 63) {
        isa::bulk_store(args.y, smem.staged, words * 4);
        isa::bulk_commit();
        isa::bulk_wait<0>();
    }
    isa::sync_cta();
    args.y[words + thread] = isa::load<uint32_t>(args.y + thread);
}

// 32 threads: each writes n words of a row of a box that is wider than its tensor, and the box is stored. Nobody writes
// the padding.
KERNEL_SM90A(padded, tma::Args, 32, 1) {
    auto& smem = isa::smem<tma::Smem>();
    int row = threadIdx.x;
    for (int i = 0; i < int(args.n); i++) smem.staged[tma::word(row, i)] = args.x[row * tma::WORDS + i];
    isa::fence_proxy_async();
    isa::sync_warp();
    if (row == 0) {
        isa::tma_store(&args.out, smem.staged, 0, 0);
        isa::bulk_commit();
        isa::bulk_wait<0>();
    }
}

// Two warpgroups: each thread of the first writes ones, and the second multiplies them. y [128] receives one sum per
// thread.
KERNEL_SM90A(handed, tma::Args, 256, 1) {
    auto& smem = isa::smem<tma::Operands>();
    int thread = threadIdx.x;
    if (thread == 0) {
        isa::mbarrier_init(&smem.full, 128);
    }
    isa::sync_cta();
    if (thread < 128) {
        for (int i = 0; i < 8; i++) smem.a[thread * 8 + i] = bf16{0x3f80};
        smem.b[thread] = bf16{0x3f80};
        isa::fence_proxy_async();
        isa::mbarrier_arrive(&smem.full);
    } else {
        isa::WgmmaAcc<8> sums;
        uint64_t a = isa::matrix_descriptor(smem.a, 128, 256, isa::Swizzle::none);
        uint64_t b = isa::matrix_descriptor(smem.b, 128, 256, isa::Swizzle::none);
        isa::mbarrier_wait(&smem.full, 0);
        isa::wgmma_fence();
        isa::wgmma(sums, a, b, false);
        isa::wgmma_commit();
        isa::wgmma_wait<0>();
        args.y[thread - 128] = __float_as_uint(sums[3]);
    }
}

// 64 threads: each case is one wrong use of a call.
KERNEL_SM90A(misuse, tma::Args, 64, 1) {
    auto& smem = isa::smem<tma::Smem>();
    int thread = threadIdx.x, n = int(args.n);
    auto* full = &smem.full[0];
    if (thread == 0 && n != 1) {
        isa::mbarrier_init(full, n == 2 ? 0 : 2);
        if (n == 3) isa::mbarrier_init(full, 2);
        if (n != 4) isa::fence_mbarrier_init();
    }
    if (n != 5) isa::sync_cta();
    if (n == 5 && thread == 40) isa::mbarrier_arrive(full);
    if (n == 6 && thread == 33) isa::mbarrier_wait(full, 0);
    switch (thread == 0 ? n : 0) {
        case 1: isa::mbarrier_arrive(full); break;
        case 4: isa::tma_load(smem.tiles[0], &args.in, full, 0, 0); break;
        case 7: isa::mbarrier_arrive(full, 3); break;
        case 8:
            isa::mbarrier_arrive(full, 2);
            isa::mbarrier_arrive(full, 1);
            break;
        case 9: isa::mbarrier_expect_tx(full, 1 << 20); break;
        case 10:
            isa::mbarrier_expect_tx(full, 16);
            isa::mbarrier_arrive(full, 2);
            isa::mbarrier_inval(full);
            break;
        case 11: isa::tma_load(smem.tiles[0] + 4, &args.in, full, 0, 0); break;
        case 12: isa::tma_load(smem.tiles[0], &args.in, full, 0, 0, 0); break;
        case 13: isa::bulk_load(smem.staged, args.x + 1, 64, full); break;
        case 14: isa::bulk_load(smem.staged, args.x, 1 << 20, full); break;
        case 15: {
            isa::TensorMap copy = args.in;
            isa::tma_load(smem.tiles[0], &copy, full, 0, 0);
            break;
        }
        case 16: isa::bulk_load(smem.staged, args.x, 64, full); break;
        case 17:
            isa::bulk_load(smem.staged + tma::ROWS * tma::WORDS - 4, args.x, 32, full);
            break;
        case 18: isa::bulk_store(args.y, smem.staged, 64); break;
        case 19:
            for (int i = 0; i < 16; i++) smem.staged[i] = 1;
            isa::fence_proxy_async();
            isa::bulk_store(args.y, smem.staged, 64);
            isa::bulk_commit();
            break;
        case 20:
            isa::mbarrier_expect_tx(full, tma::BYTES);
            isa::tma_load(smem.tiles[0], &args.in, full, 0, 0);
            isa::mbarrier_arrive(full, 2);
            break;
        case 21:
            isa::mbarrier_complete_tx(full, 1 << 19);
            isa::mbarrier_complete_tx(full, 1 << 19);
            break;
        case 22: isa::mbarrier_wait(full, 2); break;
        case 23: isa::bulk_load(smem.staged, args.x + (1 << 16), 64, full); break;
        case 24:
            smem.staged[0] = 1;
            isa::bulk_load(smem.staged, args.x, 64, full);
            break;
        case 25:
            isa::mbarrier_arrive(full, 2);
            isa::mbarrier_wait(full, 0);
            isa::mbarrier_wait(full, 1);
            break;
        case 26:
            isa::mbarrier_complete_tx(full, 16);
            isa::mbarrier_arrive(full, 2);
            isa::mbarrier_expect_tx(full, 16);
            break;
        case 27:
            while (!isa::mbarrier_try_wait(full, 0)) {
            }
            break;
        default: break;
    }
    isa::sync_cta();
    // The load may or may not have landed; no thread has waited for it.
    if (n == 20 && thread == 40) args.y[0] = smem.tiles[0][0];
}
