// The mbarrier and bulk-copy wrappers of isa/, each separately, to compare a GPU of compute capability 9.0 with the
// values in the tests.
// Arguments: x and y are buffers of 32-bit words, and map is a tensor in global memory; n, mode and at are described at
// each kernel.
// Grid: a CTA has one to twelve warps, and one thread issues the copies; the work of the threads is stated at each
// kernel.
// Bound: none. The kernels run once on each new kind of GPU, before its results are trusted.
// Reference: tests/runtime/kernels/calibrate_tma.rs, tests/runtime/golden/isa_tma.rs.
#include "isa/hopper.cuh"

namespace calibrate_tma {
struct Args {
    isa::TensorMap map;
    const uint32_t* x;
    uint32_t* y;
    long long n;
    long long mode;
    int at[4];
    int rank;
    int offset;
    int reserved[2];
};
// The largest box has 32 KiB.
struct Memory {
    static constexpr int WORDS = 9 * 1024;
    static constexpr uint32_t SENTINEL = 0xabcdef01u;
    isa::Shared<uint32_t> v[WORDS];
    isa::Mbarrier full;
};
struct Pipeline {
    static constexpr int STAGES = 4, ROWS = 64, WORDS = 32, CONSUMERS = 256;
    isa::Shared<uint32_t> tiles[STAGES][ROWS * WORDS];
    isa::Mbarrier full[STAGES];
    isa::Mbarrier empty[STAGES];
};
}  // namespace calibrate_tma

// One warp: shared memory is filled with sentinels. Then the box of n bytes at coordinates `at` (`rank` of them) is
// loaded to byte offset `offset`. y is all of shared memory.
KERNEL_SM90A(calibrate_box_load, calibrate_tma::Args, 32, 1) {
    auto& smem = isa::smem<calibrate_tma::Memory>();
    constexpr int WORDS = calibrate_tma::Memory::WORDS;
    int lane = threadIdx.x;
    for (int i = lane; i < WORDS; i += 32) smem.v[i] = calibrate_tma::Memory::SENTINEL;
    isa::fence_proxy_async();
    if (lane == 0) {
        isa::mbarrier_init(&smem.full, 1);
        isa::fence_mbarrier_init();
    }
    isa::sync_warp();
    auto to = smem.v + args.offset / 4;
    if (lane == 0) {
        isa::tma_prefetch(&args.map);
        isa::mbarrier_arrive_expect_tx(&smem.full, int(args.n));
        const int* at = args.at;
        if (args.rank == 2) isa::tma_load(to, &args.map, &smem.full, at[0], at[1]);
        if (args.rank == 3) isa::tma_load(to, &args.map, &smem.full, at[0], at[1], at[2]);
        if (args.rank == 4) isa::tma_load(to, &args.map, &smem.full, at[0], at[1], at[2], at[3]);
    }
    isa::mbarrier_wait(&smem.full, 0);
    for (int i = lane; i < WORDS; i += 32) args.y[i] = smem.v[i];
}

// One warp: shared memory is filled with x [9216]. The box at `at` is stored from byte offset `offset`.
KERNEL_SM90A(calibrate_box_store, calibrate_tma::Args, 32, 1) {
    auto& smem = isa::smem<calibrate_tma::Memory>();
    int lane = threadIdx.x;
    for (int i = lane; i < calibrate_tma::Memory::WORDS; i += 32) smem.v[i] = args.x[i];
    isa::fence_proxy_async();
    isa::sync_warp();
    auto from = smem.v + args.offset / 4;
    if (lane == 0) {
        const int* at = args.at;
        if (args.rank == 2) isa::tma_store(&args.map, from, at[0], at[1]);
        if (args.rank == 3) isa::tma_store(&args.map, from, at[0], at[1], at[2]);
        isa::bulk_commit();
        isa::bulk_wait<0>();
    }
}

// 64 threads: n bytes of x are loaded into shared memory, each word's index is added to it, and the words are stored to
// y. A second store of the first 16 bytes to y[mode] follows in a separate group. Then the last word is overwritten.
KERNEL_SM90A(calibrate_bulk, calibrate_tma::Args, 64, 1) {
    auto& smem = isa::smem<calibrate_tma::Memory>();
    int thread = threadIdx.x, bytes = int(args.n);
    if (thread == 0) {
        isa::mbarrier_init(&smem.full, 1);
        isa::fence_mbarrier_init();
        isa::mbarrier_expect_tx(&smem.full, bytes);
        isa::bulk_load(smem.v, args.x, bytes, &smem.full);
        isa::mbarrier_arrive(&smem.full);
    }
    isa::sync_cta();
    isa::mbarrier_wait(&smem.full, 0);
    for (int i = thread; i < bytes / 4; i += 64) smem.v[i] = smem.v[i] + uint32_t(i);
    isa::fence_proxy_async();
    isa::sync_cta();
    if (thread == 0) {
        isa::bulk_store(args.y, smem.v, bytes);
        isa::bulk_commit();
        isa::bulk_store(args.y + args.mode, smem.v, 16);
        isa::bulk_commit();
        isa::bulk_wait_read<1>();
        smem.v[bytes / 4 - 1] = 0;
        isa::bulk_wait_read<0>();
    }
}

// One thread performs n operations x [n][2] on one mbarrier, each a number and an operand: 0 init, 1 arrive, 2
// expect_tx, 3 arrive and expect_tx, 4 complete_tx, 5 arrive_drop, 6 test_wait, 7 try_wait, 8 inval. y [n] is the
// result of 6 and 7, and 2 for the others.
KERNEL_SM90A(calibrate_mbarrier, calibrate_tma::Args, 32, 1) {
    auto& smem = isa::smem<calibrate_tma::Memory>();
    if (threadIdx.x != 0) return;
    for (int i = 0; i < int(args.n); i++) {
        int operand = int(args.x[2 * i + 1]);
        uint32_t answer = 2;
        switch (int(args.x[2 * i])) {
            case 0: isa::mbarrier_init(&smem.full, operand); break;
            case 1: isa::mbarrier_arrive(&smem.full, operand); break;
            case 2: isa::mbarrier_expect_tx(&smem.full, operand); break;
            case 3: isa::mbarrier_arrive_expect_tx(&smem.full, operand); break;
            case 4: isa::mbarrier_complete_tx(&smem.full, operand); break;
            case 5: isa::mbarrier_arrive_drop(&smem.full); break;
            case 6: answer = isa::mbarrier_test_wait(&smem.full, uint32_t(operand)); break;
            case 7: answer = isa::mbarrier_try_wait(&smem.full, uint32_t(operand)); break;
            default: isa::mbarrier_inval(&smem.full); break;
        }
        args.y[i] = answer;
    }
}

// Three warpgroups: the first loads every gridDim'th of n tiles of 64 rows of 128 bytes, from `map` with a swizzle of
// 128 bytes. The other two add each tile's number to it and write it to y [n][64][32].
KERNEL_SM90A(calibrate_pipeline, calibrate_tma::Args, 384, 1) {
    using P = calibrate_tma::Pipeline;
    auto& smem = isa::smem<P>();
    int thread = threadIdx.x, tiles = int(args.n), step = int(gridDim.x);
    if (thread == 0) {
        for (int i = 0; i < P::STAGES; i++) {
            isa::mbarrier_init(&smem.full[i], 1);
            isa::mbarrier_init(&smem.empty[i], P::CONSUMERS / 32);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
    int first = int(blockIdx.x);
    if (thread < 128) {
        isa::registers_decrease<40>();
        for (int tile = first, i = 0; tile < tiles && thread == 0; tile += step, i++) {
            int stage = i % P::STAGES;
            isa::mbarrier_wait(&smem.empty[stage], uint32_t(i / P::STAGES & 1) ^ 1u);
            isa::mbarrier_arrive_expect_tx(&smem.full[stage], P::ROWS * P::WORDS * 4);
            isa::tma_load(smem.tiles[stage], &args.map, &smem.full[stage], 0, tile * P::ROWS);
        }
    } else {
        isa::registers_increase<232>();
        for (int tile = first, i = 0; tile < tiles; tile += step, i++) {
            int stage = i % P::STAGES;
            uint32_t* y = args.y + tile * P::ROWS * P::WORDS;
            isa::mbarrier_wait(&smem.full[stage], uint32_t(i / P::STAGES & 1));
            for (int word = thread - 128; word < P::ROWS * P::WORDS; word += P::CONSUMERS) {
                int row = word / P::WORDS, column = word % P::WORDS;
                y[word] = smem.tiles[stage][row * P::WORDS + (column ^ (row % 8 * 4))] + uint32_t(tile);
            }
            isa::sync_warp();
            if (thread % 32 == 0) {
                isa::mbarrier_arrive(&smem.empty[stage]);
            }
        }
    }
}

// A cluster of 2 or 4 CTAs, each with a loading thread and four warps. The CTAs load equal parts of every tile of 64
// rows of 128 bytes, and each part goes to all of them. y [CTA][n][64][32] is the tile that each CTA received, plus the
// CTA's rank.
KERNEL_SM90A(calibrate_multicast, calibrate_tma::Args, 160, 1) {
    using P = calibrate_tma::Pipeline;
    auto& smem = isa::smem<P>();
    int thread = threadIdx.x, tiles = int(args.n);
    int size = int(isa::cluster_size()), rank = int(isa::cluster_rank());
    if (thread == 0) {
        for (int i = 0; i < P::STAGES; i++) {
            isa::mbarrier_init(&smem.full[i], 1);
            isa::mbarrier_init(&smem.empty[i], 4 * size);
        }
        isa::fence_mbarrier_init();
    }
    isa::cluster_arrive();
    isa::cluster_wait();
    if (thread == 0) {
        int rows = P::ROWS / size;
        for (int tile = 0; tile < tiles; tile++) {
            int stage = tile % P::STAGES;
            auto part = smem.tiles[stage] + rank * rows * P::WORDS;
            isa::mbarrier_wait(&smem.empty[stage], uint32_t(tile / P::STAGES & 1) ^ 1u);
            isa::mbarrier_arrive_expect_tx(&smem.full[stage], P::ROWS * P::WORDS * 4);
            isa::tma_load_multicast(part, &args.map, &smem.full[stage], (1u << size) - 1u, 0, tile * P::ROWS + rank * rows);
        }
    }
    if (thread >= 32) {
        for (int tile = 0; tile < tiles; tile++) {
            int stage = tile % P::STAGES;
            uint32_t* y = args.y + (int(blockIdx.x) * tiles + tile) * P::ROWS * P::WORDS;
            isa::mbarrier_wait(&smem.full[stage], uint32_t(tile / P::STAGES & 1));
            for (int word = thread - 32; word < P::ROWS * P::WORDS; word += 128) {
                int row = word / P::WORDS, column = word % P::WORDS;
                y[word] = smem.tiles[stage][row * P::WORDS + (column ^ (row % 8 * 4))] + uint32_t(rank);
            }
            isa::sync_warp();
            if (thread % 32 < size) {
                isa::mbarrier_arrive_at(&smem.empty[stage], uint32_t(thread % 32));
            }
        }
    }
    isa::cluster_arrive();
    isa::cluster_wait();
}
