// Matrix products on compute capability 9.0, with their epilogues: sums[T, N] = x[T, K] W[N, K]^T by wgmma. Each output
// is the same chain of k16 steps over ascending K as in common/gemm.cuh.
//
// A CTA is persistent. It begins with the tile of its own number. Further tiles it takes from a counter in global memory,
// if there is one: CTAs that start late, because another kernel occupies their multiprocessors, then delay no tile.
// - Producer: one thread of the last warpgroup takes the tiles, and issues the TMA loads of one tile after the other into
//   a ring of stages. Rows have 128 bytes and are swizzled as wgmma reads them.
// - Math warpgroups: each of the other warpgroups computes 64 rows of the tile.
// - A stage's `full` mbarrier completes when its bytes have arrived. Its `empty` mbarrier completes when one lane of
//   each math warp has arrived, after the wgmmas that read the stage are done.
// - Finished sums go through shared memory in slices, eight rows by 16 to 128 columns per warp, which the epilogue
//   handles as tiles. If the epilogue is STAGED, they go through stages of the ring by TMA (common/staged.cuh).
//
// The terms of an output are the products that its chain sums. An operand is stored in one of two ways:
// - K-major: along the terms, in rows of 64 terms.
// - MN-major: across the terms, in panels of 64 terms by 64 rows of the operand. The W, dy and x of gradients lie like
//   this in memory.
// If chains resume from earlier sums, an epilogue also has
//     void start<N>(const Args&, const Operands&, isa::WgmmaAcc<N>& sums, int m, int n)
// which fills a warp's sums of the 16 rows from m on while the first stages are loading.
#pragma once

#include "common/gemm.cuh"
#include "isa/hopper.cuh"

namespace gemm {

// A slice: the part of the sums that a warp passes to the epilogue at a time.
template <int COLUMNS>
struct Slice {
    static constexpr int BLOCK_M = 8, BLOCK_N = COLUMNS, THREADS = 32;
    __device__ __forceinline__ static uint32_t thread() { return threadIdx.x % 32; }
};

// A CTA computes 64 GROUPS x N outputs. A stage has BLOCKS blocks of 64 terms. CTAS CTAs are a cluster: their tiles lie
// below one another, and each loads a part of the W that they share into the shared memory of all.
template <int GROUPS, int N, int RING, int COLUMNS = GROUP, int BLOCKS = 1, int CTAS = 1>
struct WideTile {
    using Part = Slice<COLUMNS>;
    static constexpr int CLUSTER = CTAS;
    static constexpr int BLOCK_M = 64 * GROUPS, BLOCK_N = N, STAGES = RING, DEPTH = BLOCKS;
    static constexpr int MATH = 128 * GROUPS, THREADS = MATH + 128;
    // The tiles of a cluster as one.
    struct Cluster {
        static constexpr int BLOCK_M = 64 * GROUPS * CTAS, BLOCK_N = N;
    };
    // Registers per thread after the reallocation. A CTA has 65,536 registers in total. The producer warpgroup gives up
    // registers, which the accumulators need.
    static constexpr int REGISTERS_COPY = 40, REGISTERS_MATH = 232;
};

// Tiles. The largest ones fit in 227 KiB of shared memory. src/runtime/ops/gemm/config.rs selects the tile of a product. For few
// rows, many stages keep the loads of W in flight, and the time that the producer needs for a stage limits a tile with
// few columns, so a stage of these tiles has two blocks.
using TileWide = WideTile<2, 256, 4>;
using TileSquare = WideTile<2, 128, 4>;
using TileHalf = WideTile<1, 128, 8>;
using TileShort = WideTile<1, 64, 6, GROUP, 2>;
using TileNarrow = WideTile<1, 32, 9, 32, 2>;
using TileSlim = WideTile<1, 16, 11, 16, 2>;

// Buffers of the results: slices, or, if the results go through stages of the ring, only the bias of each stage's
// columns.
template <class T, bool STAGED>
struct Results {
    Sums<typename T::Part> slices[T::MATH / 32];
};
template <class T>
struct Results<T, true> {
    isa::Shared<bf16> bias[T::STAGES][T::BLOCK_N < 64 ? 64 : T::BLOCK_N];
};

template <class T, bool STAGED>
struct WideSmem {
    isa::Shared<bf16> x[T::STAGES][T::DEPTH * T::BLOCK_M * BLOCK_K];
    isa::Shared<bf16> w[T::STAGES][T::DEPTH * T::BLOCK_N * BLOCK_K];
    Results<T, STAGED> results;
    // The second half of `empty` in a cluster: complete when the other CTA has acquired the stage for results.
    isa::Mbarrier full[T::STAGES], empty[T::STAGES * (T::CLUSTER > 1 ? 2 : 1)];
    // The tile that a stage belongs to. After the last tile: a number that is no tile.
    isa::Shared<int> tile[T::STAGES];
    // First row of each box of W of the tile that is being loaded. A box has at least 8 rows.
    isa::Shared<int> box_rows[T::BLOCK_N / 8];
};

// A ring stage as the epilogue of a warpgroup uses it for its 64 rows of results.
struct Slot {
    isa::Shared<bf16>*x, *w, *bias;
};

// Layouts of the operands, and whether the chains resume from earlier sums.
template <isa::Major X, isa::Major W, bool RESUMES>
struct Roles {
    static constexpr isa::Major OF_X = X, OF_W = W;
    static constexpr bool RESUMED = RESUMES;
};
using Forward = Roles<isa::Major::k, isa::Major::k, false>;

template <class E>
struct WideArgs : E::Maps {
    isa::TensorMap x;  // boxes: 64 terms by `x_box` rows, or panels
    isa::TensorMap w;  // boxes: 64 terms by `box` rows, or panels
    isa::TensorMap more_x, more_w;  // the same for the second pair, if there is one
    Operands in;
    typename E::Args out;
    int box;    // rows per box of W; divides the length of every run of columns whose rows of W are adjacent
    int steps;  // stages of the first pair
    // Rows per box of x: BLOCK_M, or fewer if the product has fewer rows. The other rows of a stage stay zero.
    int x_box;
    int raster;  // rows of tiles that are traversed together
    // Tiles taken after the first one of each CTA; zero before and after the launch. Null: the tiles of a CTA are as far
    // apart as the grid is large.
    uint32_t* counter;
};

// A stage of the ring by its index `slot`, and the mbarrier parity of its current phase.
template <class T>
struct PipelineState {
    int slot = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next() {
        slot++;
        if (slot == T::STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// Waits until the other CTA of a cluster has acquired the same stage for results, too. The warps of a CTA could otherwise
// release this stage before all warps have released it for its operands, because results do not depend on the other CTA.
// Bit i of `parities` is the parity of the next wait for stage i.
template <class T, bool STAGED>
__device__ __forceinline__ void meet(WideSmem<T, STAGED>& smem, int slot, uint32_t& parities) {
    isa::Mbarrier* acquired = &smem.empty[T::STAGES + slot];
    isa::mbarrier_arrive_at(acquired, isa::cluster_rank() ^ 1);
    isa::mbarrier_wait(acquired, parities >> slot & 1);
    parities ^= 1 << slot;
}

// Waits until a stage is empty, and announces its tile and the bytes that will arrive in it. `parities`: see `meet`.
template <class T, bool STAGED>
__device__ __forceinline__ void producer_acquire(WideSmem<T, STAGED>& smem, PipelineState<T> pipe, int tile, int bytes,
                                                 uint32_t* parities = nullptr) {
    // In the first round this waits for the phase before the first one, which counts as complete.
    isa::mbarrier_wait(&smem.empty[pipe.slot], pipe.parity ^ 1);
    if constexpr (T::CLUSTER > 1) {
        if (parities) meet(smem, pipe.slot, *parities);
    }
    smem.tile[pipe.slot] = tile;
    isa::mbarrier_arrive_expect_tx(&smem.full[pipe.slot], bytes);
}

// Loads a box, for all CTAs of the cluster if there is one.
template <int CLUSTER>
__device__ __forceinline__ void copy_box(isa::Shared<bf16>* to, const isa::TensorMap* from, isa::Mbarrier* full, int x,
                                         int y) {
    if constexpr (CLUSTER > 1) {
        isa::tma_load_multicast(to, from, full, (1 << CLUSTER) - 1, x, y);
    } else {
        isa::tma_load(to, from, full, x, y);
    }
}

// Loads panels of an operand for the 64 terms from k on: rows `begin` to `end` of the tile, which starts at row `first`.
template <int CLUSTER>
__device__ __forceinline__ void copy_panels(isa::Shared<bf16>* to, const isa::TensorMap* from, isa::Mbarrier* full,
                                            int first, int k, int begin, int end) {
#pragma unroll 1
    for (int i = begin; i < end; i += GROUP) {
        copy_box<CLUSTER>(to + i * BLOCK_K, from, full, first + i, k);
    }
}

// Loads a CTA's part of the boxes of W for the 64 terms from k on.
template <int N, int CLUSTER>
__device__ __forceinline__ void share_boxes(isa::Shared<bf16>* to, const isa::TensorMap* from, isa::Mbarrier* full,
                                            const isa::Shared<int> (&rows)[N / 8], int box, int2 first, int k) {
    int begin = isa::cluster_rank() * (N / CLUSTER);
#pragma unroll 1
    for (int at = begin; at < begin + N / CLUSTER; at += box) {
        int i = at / box, row = i == 0 ? first.x : i == 1 ? first.y : rows[i];
        copy_box<CLUSTER>(to + at * BLOCK_K, from, full, k, row);
    }
}

// Loads `box` rows of W, or boxes of `box` rows, for the 64 terms from k on. The first two boxes have their rows in
// registers, because few columns leave little time for a stage.
template <int N>
__device__ __forceinline__ void copy_boxes(isa::Shared<bf16>* to, const isa::TensorMap* from, isa::Mbarrier* full,
                                           const isa::Shared<int> (&rows)[N / 8], int box, int2 first, int k) {
    isa::tma_load(to, from, full, k, first.x);
    if (box == N) return;
    isa::tma_load(to + box * BLOCK_K, from, full, k, first.y);
#pragma unroll 1
    for (int i = 2; i * box < N; i++) {
        isa::tma_load(to + i * box * BLOCK_K, from, full, k, rows[i]);
    }
}

// Loads a stage with the terms from k on. TMA fills it with zeros behind the last term.
template <class T, class E, class R>
__device__ __forceinline__ void copy_stage(WideSmem<T, E::STAGED>& smem, int slot, const isa::TensorMap* x,
                                           const isa::TensorMap* w, int box, int2 first, Corner at, int k) {
    isa::Mbarrier* full = &smem.full[slot];
#pragma unroll
    for (int d = 0; d < T::DEPTH; d++, k += BLOCK_K) {
        isa::Shared<bf16>* to_x = smem.x[slot] + d * T::BLOCK_M * BLOCK_K;
        isa::Shared<bf16>* to_w = smem.w[slot] + d * T::BLOCK_N * BLOCK_K;
        if constexpr (R::OF_X == isa::Major::k) {
            isa::tma_load(to_x, x, full, k, at.row);
        } else {
            copy_panels<1>(to_x, x, full, at.row, k, 0, T::BLOCK_M);
        }
        if constexpr (R::OF_W != isa::Major::k) {
            constexpr int COUNT = T::BLOCK_N / T::CLUSTER;
            int begin = T::CLUSTER > 1 ? isa::cluster_rank() * COUNT : 0;
            copy_panels<T::CLUSTER>(to_w, w, full, at.column, k, begin, begin + COUNT);
        } else if constexpr (T::CLUSTER > 1) {
            share_boxes<T::BLOCK_N, T::CLUSTER>(to_w, w, full, smem.box_rows, box, first, k);
        } else {
            copy_boxes<T::BLOCK_N>(to_w, w, full, smem.box_rows, box, first, k);
        }
    }
}

// Finds the first rows of a tile's boxes of W, once for all stages, because an epilogue may need divisions. Returns the
// first two.
template <class T, class E>
__device__ __forceinline__ int2 find_boxes(WideSmem<T, E::STAGED>& smem, const WideArgs<E>& args, Corner at) {
    auto row = [&](int i) {
        int row = E::weight_row(args.out, args.in, at.column + i * args.box);
        // A box past the last row loads zeros.
        return row < 0 ? args.in.cols : row;
    };
#pragma unroll 1
    for (int i = 2; i * args.box < T::BLOCK_N; i++) smem.box_rows[i] = row(i);
    return make_int2(row(0), args.box < T::BLOCK_N ? row(1) : 0);
}

// Releases a stage: in a cluster also to the other CTAs, which load a part of it.
template <class T, bool STAGED>
__device__ __forceinline__ void release(WideSmem<T, STAGED>& smem, int slot) {
    isa::mbarrier_arrive(&smem.empty[slot]);
    if constexpr (T::CLUSTER > 1) isa::mbarrier_arrive_at(&smem.empty[slot], isa::cluster_rank() ^ 1);
}

// Waits for all threads of the cluster.
template <class T>
__device__ __forceinline__ void sync_cluster() {
    if constexpr (T::CLUSTER > 1) {
        isa::cluster_arrive();
        isa::cluster_wait();
    }
}

// Returns the corner of this CTA's tile among the tiles that its cluster computes together.
template <class T>
__device__ __forceinline__ Corner cluster_corner(uint32_t tiles, const Operands& in, int columns, int raster) {
    if constexpr (T::CLUSTER == 1) {
        return corner<T>(tiles, in.rows, columns, raster);
    } else {
        Corner at = corner<typename T::Cluster>(tiles, in.rows, columns, raster / T::CLUSTER);
        return Corner{at.row + (int)isa::cluster_rank() * T::BLOCK_M, at.column};
    }
}

// Fills the rows of x that no box covers with zeros, in all stages. Called by all math warpgroups.
template <class T, bool STAGED>
__device__ __forceinline__ void clear_x(WideSmem<T, STAGED>& smem, int x_box) {
    int count = (T::BLOCK_M - x_box) * BLOCK_K / 8;
    for (int i = 0; i < T::STAGES * T::DEPTH; i++) {
        isa::Shared<bf16>* rows = smem.x[i / T::DEPTH] + (i % T::DEPTH * T::BLOCK_M + x_box) * BLOCK_K;
        for (int j = threadIdx.x; j < count; j += T::MATH) isa::store(rows + j * 8, make_uint4(0, 0, 0, 0));
    }
    isa::fence_proxy_async();
    isa::sync_named(1, T::MATH);
}

// Returns the descriptor of an operand in a stage. A swizzle pattern is eight rows of 128 bytes: eight rows of the
// operand if it is K-major, eight terms if it is MN-major. MN-major panels follow one another.
template <isa::Major M>
__device__ __forceinline__ uint64_t stage_descriptor(const isa::Shared<bf16>* start) {
    return isa::matrix_descriptor(start, M == isa::Major::k ? 16 : GROUP * BLOCK_K * 2, 1024, isa::Swizzle::b128);
}

// Returns the bytes to the same operand `k` terms later.
template <isa::Major M>
__device__ __forceinline__ constexpr int terms_further(int k) {
    return M == isa::Major::k ? 2 * k : 2 * GROUP * k;
}

// Adds one stage to `sums`.
template <class T, class R, bool STAGED>
__device__ __forceinline__ void multiply_stage(const WideSmem<T, STAGED>& smem, int slot, int group,
                                               isa::WgmmaAcc<T::BLOCK_N>& sums, bool accumulate) {
#pragma unroll
    for (int d = 0; d < T::DEPTH; d++) {
        uint64_t x = stage_descriptor<R::OF_X>(&smem.x[slot][(d * T::BLOCK_M + group * 64) * BLOCK_K]);
        uint64_t w = stage_descriptor<R::OF_W>(&smem.w[slot][d * T::BLOCK_N * BLOCK_K]);
#pragma unroll
        for (int k = 0; k < BLOCK_K; k += 16) {
            uint64_t x_at = isa::advance(x, terms_further<R::OF_X>(k)), w_at = isa::advance(w, terms_further<R::OF_W>(k));
            isa::wgmma<R::OF_X, R::OF_W>(sums, x_at, w_at, accumulate || d > 0 || k > 0);
        }
    }
}

// Fills a warp's sums of the 16 rows from m on, and of the columns from n on, with the values of `from` [rows][ld].
// Elements outside the matrix become zero. If `from` is null, all elements become zero without a branch around the
// loads, because such a branch would make ptxas serialise the wgmmas. A quarter of a warp reads a complete sector of 32
// bytes.
template <int N>
__device__ __forceinline__ void resume(const float* from, const Operands& in, isa::WgmmaAcc<N>& sums, int m, int n) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 2; i += 2) {
        int row = m + lane / 4 + i / 2 % 2 * 8, column = n + i / 4 * 8 + lane % 4 * 2;
        bool inside = from && row < in.rows && column < in.cols;
        float2 v = inside ? isa::load<float2>(from + (size_t)row * in.ld + column) : make_float2(0.0f, 0.0f);
        sums[i] = v.x;
        sums[i + 1] = v.y;
    }
}

// Writes slice `number` of a warp's sums. Slices are numbered by groups of COLUMNS columns; each group has a slice of
// its upper eight rows, then one of its lower eight.
template <int COLUMNS, int N>
__device__ __forceinline__ void put_slice(Sums<Slice<COLUMNS>>& slice, isa::WgmmaAcc<N>& sums, int number, int lane) {
#pragma unroll
    for (int i = 0; i < N / COLUMNS * 2; i++) {
        if (i == number) {
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                int first = (i / 2 * (COLUMNS / 8) + j) * 4 + i % 2 * 2;
                isa::store(&slice.at[lane / 4][j * 8 + lane % 4 * 2], make_float2(sums[first], sums[first + 1]));
            }
        }
    }
}

// Runs the epilogue for a warp's 16 rows from m on, slice by slice.
template <class T, class E>
__device__ __forceinline__ void put_slices(Sums<typename T::Part>& slice, const WideArgs<E>& args,
                                           isa::WgmmaAcc<T::BLOCK_N>& sums, int m, int n, int lane) {
    const Operands& in = args.in;
    int columns = E::columns(args.out, in);
#pragma unroll 1
    for (int i = 0; i < T::BLOCK_N / T::Part::BLOCK_N * 2; i++) {
        int row = m + i % 2 * 8, column = n + i / 2 * T::Part::BLOCK_N;
        // Epilogues may rely on a tile that contains at least one element of the product.
        if (row >= in.rows || column >= columns) continue;
        put_slice(slice, sums, i, lane);
        isa::sync_warp();
        E::template finish<typename T::Part>(args.out, in, slice, row, column);
        isa::sync_warp();
    }
}

template <class T, class E, class R = Forward>
__device__ __forceinline__ void run_wide(const WideArgs<E>& args) {
    auto& smem = isa::smem<WideSmem<T, E::STAGED>>();
    const Operands& in = args.in;
    int columns = E::columns(args.out, in);
    constexpr int TERMS = T::DEPTH * BLOCK_K;
    // Stages with the results of a warpgroup, and columns of each.
    constexpr int PIECES = E::template PIECES<T>, WIDTH = T::BLOCK_N / PIECES;
    int steps = args.steps + (in.more.depth + TERMS - 1) / TERMS;
    constexpr int CLUSTER_M = T::BLOCK_M * T::CLUSTER;
    // Numbers of clusters, which are single CTAs in most kernels.
    int tiles = ((in.rows + CLUSTER_M - 1) / CLUSTER_M) * ((columns + T::BLOCK_N - 1) / T::BLOCK_N);
    int own = blockIdx.x / T::CLUSTER, clusters = gridDim.x / T::CLUSTER;
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; i++) {
            isa::mbarrier_init(&smem.full[i], 1);
            isa::mbarrier_init(&smem.empty[i], T::MATH / 32 * T::CLUSTER);
            if constexpr (T::CLUSTER > 1) isa::mbarrier_init(&smem.empty[T::STAGES + i], 1);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
    sync_cluster<T>();
    PipelineState<T> pipe;
    int x_box = R::OF_X == isa::Major::k ? args.x_box : T::BLOCK_M;
    if (threadIdx.x >= T::MATH) {
        if constexpr (T::MATH > 128) isa::registers_decrease<T::REGISTERS_COPY>();
        if (threadIdx.x >= T::MATH + 32 || !isa::elect()) return;
        int bytes = (x_box + T::BLOCK_N) * TERMS * 2;
        int tile = own;
        [[maybe_unused]] uint32_t parities = 0;
        while (tile < tiles) {
            Corner at = cluster_corner<T>(tile, in, columns, args.raster);
            int2 first{};
            if constexpr (R::OF_W == isa::Major::k) first = find_boxes<T, E>(smem, args, at);
            // The answer arrives while this tile is loaded.
            uint32_t taken = args.counter ? isa::atomic_add(args.counter, 1u) : 0;
            for (int step = 0; step < args.steps; step++) {
                producer_acquire(smem, pipe, tile, bytes);
                copy_stage<T, E, R>(smem, pipe.slot, &args.x, &args.w, args.box, first, at, step * TERMS);
                pipe.next();
            }
            for (int step = args.steps; step < steps; step++) {
                producer_acquire(smem, pipe, tile, bytes);
                copy_stage<T, E, R>(smem, pipe.slot, &args.more_x, &args.more_w, args.box, first, at,
                                    (step - args.steps) * TERMS);
                pipe.next();
            }
            if constexpr (E::STAGED) {
                // Claims the stages for the results of each warpgroup, and loads the tensors to be added into them.
                for (int i = 0; i < T::MATH / 128 * PIECES; i++) {
                    Slot slot{smem.x[pipe.slot], smem.w[pipe.slot], smem.results.bias[pipe.slot]};
                    producer_acquire(smem, pipe, tile, E::template bytes<WIDTH>(args.out, in), &parities);
                    E::template fetch<WIDTH>(args, args.out, slot, &smem.full[pipe.slot], at.row + i / PIECES * 64,
                                             at.column + i % PIECES * WIDTH);
                    pipe.next();
                }
            }
            // A launch counts once for each tile. The last count resets the counter for the next launch.
            if (args.counter && taken + 1 == (uint32_t)tiles) isa::atomic_exch(args.counter, 0u);
            tile = clusters + (args.counter ? (int)taken : tile);
        }
        producer_acquire(smem, pipe, tile, 0);
        sync_cluster<T>();
        return;
    }
    if constexpr (T::MATH > 128) isa::registers_increase<T::REGISTERS_MATH>();
    if (x_box < T::BLOCK_M) clear_x(smem, x_box);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    isa::WgmmaAcc<T::BLOCK_N> sums;
    // Slot to release next: a stage of operands, or the results of the previous tile. -1 if none.
    int before = -1;
    int tile = own;
    while (tile < tiles) {
        Corner at = cluster_corner<T>(tile, in, columns, args.raster);
        if constexpr (R::RESUMED) E::start(args.out, in, sums, at.row + warp * 16, at.column);
        for (int step = 0; step < steps; step++) {
            isa::mbarrier_wait(&smem.full[pipe.slot], pipe.parity);
            isa::wgmma_fence();
            multiply_stage<T, R>(smem, pipe.slot, warp / 4, sums, R::RESUMED || step > 0);
            isa::wgmma_commit();
            // The wgmmas of the previous step are done; those of this step are still running.
            isa::wgmma_wait<1>();
            if (before >= 0 && lane == 0) {
                if (E::STAGED && step == 0) isa::bulk_wait_read<0>();
                release(smem, before);
            }
            before = pipe.slot;
            pipe.next();
        }
        isa::wgmma_wait<0>();
        if (lane == 0) release(smem, before);
        before = -1;
        if constexpr (E::STAGED) {
#pragma unroll 1
            for (int group = 0; group < T::MATH / 128; group++) {
                bool mine = group == warp / 4;
                // Warps without a row of the product have no results.
                bool any = at.row + warp * 16 < in.rows;
#pragma unroll
                for (int piece = 0; piece < PIECES; piece++) {
                    Slot slot{smem.x[pipe.slot], smem.w[pipe.slot], smem.results.bias[pipe.slot]};
                    isa::mbarrier_wait(&smem.full[pipe.slot], pipe.parity);
                    if (mine && any) {
                        E::template stage<WIDTH>(args.out, slot, sums, warp % 4, lane, piece * WIDTH);
                        isa::fence_proxy_async();
                    }
                    // All lanes have passed their wait for this stage before one lane releases it.
                    isa::sync_warp();
                    if (lane == 0 && mine) {
                        if (any) {
                            E::template send<WIDTH>(args, args.out, slot, warp % 4, at.row + warp * 16,
                                                    at.column + piece * WIDTH);
                        }
                        isa::bulk_commit();
                        if (piece > 0) {
                            isa::bulk_wait_read<1>();
                            release(smem, before);
                        }
                    } else if (lane == 0) {
                        release(smem, pipe.slot);
                    }
                    if (mine) before = pipe.slot;
                    pipe.next();
                }
            }
        } else {
            put_slices<T, E>(smem.results.slices[warp], args, sums, at.row + warp * 16, at.column, lane);
        }
        isa::mbarrier_wait(&smem.full[pipe.slot], pipe.parity);
        tile = smem.tile[pipe.slot];
    }
    // The stages must stay valid until the stores that read them are done.
    if (E::STAGED && lane == 0) isa::bulk_wait_read<0>();
    sync_cluster<T>();
}

}  // namespace gemm
