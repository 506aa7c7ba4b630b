// Main loop of every matrix product: sums[T, N] = x[T, K] W[N, K]^T in fp32. Each output is one chain of k16 steps over
// ascending K, whatever the tile. A row therefore has the same bits in any batch and with any tile shape.
//
// The operands of a tile pass through a ring of cp.async pipeline stages. Both are K-major, in rows of 128 bytes. The
// eight 16-byte chunks of a row are permuted by the row number (chunk ^ row % 8), so that neither the copies nor
// ldmatrix have bank conflicts. Finished sums are written over the ring as an fp32 tile (Sums) in shared memory. The
// epilogue reads them in quads of four columns, so that all its global loads and stores are wide and coalesced.
//
// An epilogue E is a struct of static functions:
//     struct Args                                            its arguments, passed by value
//     int columns(const Args&, const Operands&)              columns of the product, which the tiles cover
//     int weight_row(const Args&, const Operands&, int n)    row of the weight for column n < columns, or -1 if none
//     void finish<Tile>(const Args&, const Operands&, const Sums<Tile>&, int m, int n)
//         Processes a tile whose first row and column are m and n. All threads of the CTA call it, after a barrier.
//         Rows past in.rows and columns past columns() hold arbitrary finite values and must not be stored.
#pragma once

#include "isa/isa.cuh"

namespace gemm {

// Elements of K per stage: one row of 128 bytes. The rows of a weight are padded to a multiple of BLOCK_K.
constexpr int BLOCK_K = 64;
// Columns of a group. A gate column c and its up column c + 32 are in the same group; so are the two columns of a
// rotated pair.
constexpr int GROUP = 64;
// Tile rows that are traversed together, so that their x and the weight tiles that they share stay in the L2 cache.
constexpr int RASTER_M = 8;  // RASTER of src/runtime/ops/gemm/config.rs

// A second pair of operands (LoRA), over which the chains continue after the last step of the first: x [rows, depth] and
// w [cols, ld], as in Operands. depth and ld are 0 if there is none.
struct Pair {
    const bf16* x;
    const bf16* w;
    int depth, ld;
};

struct Operands {
    const bf16* x;  // [rows, depth], not padded
    const bf16* w;  // [cols, ld], zero from column `depth` on
    int rows, cols, depth, ld;
    Pair more;

    // Returns the pair that `step` of the chain reads, of which the first has `steps`.
    __device__ __forceinline__ Pair at(int step, int steps) const {
        bool first = step < steps;
        return Pair{first ? x : more.x, first ? w : more.w, first ? depth : more.depth, first ? ld : more.ld};
    }
};

// A CTA computes M x N outputs with WARPS_M x WARPS_N warps and a ring of RING stages.
template <int M, int N, int WARPS_M, int WARPS_N, int RING>
struct Tile {
    static constexpr int BLOCK_M = M, BLOCK_N = N, STAGES = RING;
    static constexpr int WARP_COLUMNS = WARPS_N;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    // Fragments per warp, m16 and n8.
    static constexpr int FRAGS_M = M / 16 / WARPS_M;
    static constexpr int FRAGS_N = N / 8 / WARPS_N;
    // 16-byte chunks that a thread copies per stage.
    static constexpr int CHUNKS_X = M * 8 / THREADS;
    static constexpr int CHUNKS_W = N * 8 / THREADS;
    // Returns the index of this thread among the THREADS threads that process a tile.
    __device__ __forceinline__ static uint32_t thread() { return threadIdx.x; }
    static_assert(N % GROUP == 0 && FRAGS_N % 2 == 0 && M * 8 % THREADS == 0 && N * 8 % THREADS == 0, "tile shape");
};

// Tiles for decode, for small batches, and for everything else. The largest fits the 99 KiB of shared memory of compute
// capability 8.6. Tiles with few rows have more stages, to keep more of W in flight, because their few CTAs must
// together use the full memory bandwidth.
using TileM16 = Tile<16, 64, 1, 4, 8>;
using TileM64 = Tile<64, 64, 2, 2, 5>;
using TileM128 = Tile<128, 128, 2, 2, 3>;

template <class T>
struct Stages {
    isa::Shared<bf16> x[T::STAGES][T::BLOCK_M * BLOCK_K];
    isa::Shared<bf16> w[T::STAGES][T::BLOCK_N * BLOCK_K];
};

// The finished tile. Eight floats of padding put the rows of a fragment's quarter-warps on different banks.
template <class T>
struct Sums {
    isa::Shared<float> at[T::BLOCK_M][T::BLOCK_N + 8];
};

// Returns the offset of chunk `chunk` of row `row` in a stage.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * BLOCK_K + (chunk ^ (row & 7)) * 8; }

// Copies tiles of x and W into stages. A thread copies one chunk column of every (THREADS / 8)th row.
template <class T>
struct Loader {
    static constexpr int ROW_STEP = T::THREADS / 8;
    const Operands& in;
    int row, chunk;  // position of the thread's first chunk
    int m;
    int weight_rows[T::CHUNKS_W];

    template <class E>
    __device__ __forceinline__ void aim(const typename E::Args& out, int first_row, int first_column) {
        row = threadIdx.x / 8;
        chunk = threadIdx.x % 8;
        m = first_row;
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            int column = first_column + row + i * ROW_STEP;
            weight_rows[i] = column < E::columns(out, in) ? E::weight_row(out, in, column) : -1;
        }
    }

    __device__ __forceinline__ void load_w(isa::Shared<bf16>* to, const Pair& pair, int k) const {
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            int from = weight_rows[i];
            const bf16* p = from < 0 ? pair.w : pair.w + (size_t)from * pair.ld + k + chunk * 8;
            isa::cp_async<16>(to + swizzled(row + i * ROW_STEP, chunk), p, from < 0 ? 0 : 16);
        }
    }

    // Copies PART elements at a time, the widest copy that rows of pair.depth elements allow. Elements past the end of a
    // row, and rows past the last, become zeros. The loop is unrolled only for the widths that large models have,
    // because the unrolled code of the other widths would be most of the kernel.
    template <int PART>
    __device__ __forceinline__ void load_x_parts(isa::Shared<bf16>* to, const Pair& pair, int k) const {
        constexpr int UNROLL = PART >= 4 ? T::CHUNKS_X : 1;
#pragma unroll UNROLL
        for (int i = 0; i < T::CHUNKS_X; i++) {
            int r = row + i * ROW_STEP;
            const bf16* p = pair.x + (size_t)(m + r) * pair.depth + k + chunk * 8;
            int left = m + r < in.rows ? pair.depth - k - chunk * 8 : 0;
#pragma unroll
            for (int j = 0; j < 8; j += PART) {
                isa::Shared<bf16>* cell = to + swizzled(r, chunk) + j;
                bool inside = left > j;
                if constexpr (PART == 1) {
                    *cell = inside ? p[j] : bf16{0};
                } else {
                    isa::cp_async<PART * 2>(cell, inside ? p + j : pair.x, inside ? PART * 2 : 0);
                }
            }
        }
    }

    __device__ __forceinline__ void load_x(isa::Shared<bf16>* to, const Pair& pair, int k) const {
        if (pair.depth % 8 == 0) {
            load_x_parts<8>(to, pair, k);
        } else if (pair.depth % 4 == 0) {
            load_x_parts<4>(to, pair, k);
        } else if (pair.depth % 2 == 0) {
            load_x_parts<2>(to, pair, k);
        } else {
            load_x_parts<1>(to, pair, k);
        }
    }

    // Loads step `step` of the chain, of which the first pair has `steps`, into ring slot `slot`.
    __device__ __forceinline__ void load(Stages<T>& ring, int slot, int step, int steps) const {
        Pair pair = in.at(step, steps);
        int k = (step < steps ? step : step - steps) * BLOCK_K;
        load_x(ring.x[slot], pair, k);
        load_w(ring.w[slot], pair, k);
    }
};

// Position of a warp in the tile: it computes FRAGS_M fragments of 16 consecutive rows by FRAGS_N fragments of 8
// columns. If several warps share a group of 64 columns, their fragments alternate, so that columns c and c + 32 belong
// to the same warp.
template <class T>
struct Warp {
    static constexpr int SHARING = T::WARP_COLUMNS * GROUP / T::BLOCK_N;
    int lane;
    int row, column;  // position of its first fragments

    __device__ __forceinline__ Warp() {
        int warp = threadIdx.x / 32;
        int across = warp % T::WARP_COLUMNS;
        lane = threadIdx.x % 32;
        row = warp / T::WARP_COLUMNS * T::FRAGS_M * 16;
        column = across / SHARING * GROUP + across % SHARING * 8;
    }
};

// Operands of a k16 step. They live longer than the main loop, because in the emulator a lane waits for its warp where
// they are destroyed.
template <class T>
struct Step {
    isa::Frag<4> x[T::FRAGS_M];
    isa::Frag<4> w;  // two adjacent fragments
};

// Adds one stage to `sums`. A ring has arrays of tiles x and w, as Stages.
template <class T, class Ring>
__device__ __forceinline__ void multiply(const Ring& ring, int slot, const Warp<T>& warp, Step<T>& step,
                                         isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
    constexpr int ROWS_X = 16 * BLOCK_K, ROWS_W = Warp<T>::SHARING * 8 * BLOCK_K;
    int lane = warp.lane;
    // Positions of the rows that this lane passes to ldmatrix. x: lanes 0-15 address the first eight k of a fragment,
    // lanes 16-31 the next eight. W: two fragments at once, with eight lanes for each eight k of each fragment. XOR
    // with k moves a position by k16 steps, because it flips bits 4 and 5.
    int x_at = swizzled(warp.row + lane % 16, lane / 16);
    int w_at = swizzled(warp.column + lane / 16 * (ROWS_W / BLOCK_K) + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
        for (int i = 0; i < T::FRAGS_M; i++) {
            isa::ldmatrix(step.x[i], &ring.x[slot][(x_at ^ k) + i * ROWS_X]);
        }
#pragma unroll
        for (int j = 0; j < T::FRAGS_N; j += 2) {
            isa::ldmatrix(step.w, &ring.w[slot][(w_at ^ k) + j * ROWS_W]);
#pragma unroll
            for (int i = 0; i < T::FRAGS_M; i++) {
                isa::mma<0>(sums[i][j], step.x[i], step.w);
                isa::mma<1>(sums[i][j + 1], step.x[i], step.w);
            }
        }
    }
}

// Writes the warp's fragments into the tile.
template <class T>
__device__ __forceinline__ void put(Sums<T>& tile, const Warp<T>& warp, isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
#pragma unroll
    for (int i = 0; i < T::FRAGS_M; i++) {
#pragma unroll
        for (int j = 0; j < T::FRAGS_N; j++) {
            int row = warp.row + i * 16 + warp.lane / 4;
            int column = warp.column + j * Warp<T>::SHARING * 8 + warp.lane % 4 * 2;
            isa::store(&tile.at[row][column], make_float2(sums[i][j][0], sums[i][j][1]));
            isa::store(&tile.at[row + 8][column], make_float2(sums[i][j][2], sums[i][j][3]));
        }
    }
}

template <class T>
__device__ __forceinline__ void clear(isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
#pragma unroll
    for (int i = 0; i < T::FRAGS_M; i++) {
#pragma unroll
        for (int j = 0; j < T::FRAGS_N; j++) {
            sums[i][j].zero();
        }
    }
}

// First row and column of a tile.
struct Corner {
    int row, column;
};

// Returns the corner of tile number `tile` in the order in which the tiles are traversed: bands of `raster` rows of tiles.
template <class T>
__device__ __forceinline__ Corner corner(uint32_t tile, int rows, int columns, int raster = RASTER_M) {
    int tiles_m = (rows + T::BLOCK_M - 1) / T::BLOCK_M;
    int tiles_n = (columns + T::BLOCK_N - 1) / T::BLOCK_N;
    int band = tile / (raster * tiles_n) * raster;
    int in_band = tile % (raster * tiles_n);
    int height = min(raster, tiles_m - band);
    return Corner{(band + in_band % height) * T::BLOCK_M, in_band / height * T::BLOCK_N};
}

// Runs load(slot, step) and multiply(slot) for each step in order. The copies run STAGES - 1 steps ahead.
template <class T, class Load, class Multiply>
__device__ __forceinline__ void stream(int steps, const Load& load, const Multiply& multiply) {
#pragma unroll 1
    for (int s = 0; s < T::STAGES - 1; s++) {
        if (s < steps) {
            load(s, s);
        }
        // One commit group per step, empty past the last step, so that the wait below always leaves the same number
        // pending.
        isa::cp_async_commit();
    }
    int slot = 0;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        isa::cp_async_wait<T::STAGES - 2>();
        // All threads' copies of this step have arrived, and all threads have read the slot that is filled next.
        isa::sync_cta();
        int next = step + T::STAGES - 1;
        if (next < steps) {
            load(slot == 0 ? T::STAGES - 1 : slot - 1, next);
        }
        isa::cp_async_commit();
        multiply(slot);
        slot = slot + 1 == T::STAGES ? 0 : slot + 1;
    }
}

// Computes the product of one CTA, whose tiles `loader` copies. Grid x is row tiles times column tiles.
template <class T, class E, class L>
__device__ __forceinline__ void run_from(L& loader, const Operands& in, const typename E::Args& out) {
    Corner at = corner<T>(blockIdx.x, in.rows, E::columns(out, in));
    auto& ring = isa::smem<Stages<T>>();
    loader.template aim<E>(out, at.row, at.column);
    Warp<T> warp;
    Step<T> operands;
    isa::Acc sums[T::FRAGS_M][T::FRAGS_N];
    clear<T>(sums);
    int steps = in.ld / BLOCK_K;
    stream<T>(
        steps + in.more.ld / BLOCK_K, [&](int slot, int step) { loader.load(ring, slot, step, steps); },
        [&](int slot) { multiply<T>(ring, slot, warp, operands, sums); });
    // The tile of sums overwrites the ring.
    isa::sync_cta();
    auto& tile = isa::smem<Sums<T>>();
    put<T>(tile, warp, sums);
    isa::sync_cta();
    E::template finish<T>(out, in, tile, at.row, at.column);
}

// Computes the product of one CTA.
template <class T, class E>
__device__ __forceinline__ void run(const Operands& in, const typename E::Args& out) {
    Loader<T> loader{in};
    run_from<T, E>(loader, in, out);
}

// Four adjacent columns.
struct Quad {
    float v[4];
};

template <class T>
__device__ __forceinline__ Quad sums_at(const Sums<T>& tile, int row, int column) {
    float4 v = isa::load<float4>(&tile.at[row][column]);
    return Quad{{v.x, v.y, v.z, v.w}};
}

// Loads `count` elements from p and sets the rest to zero. `whole`: true if all four exist and are 8-byte aligned.
__device__ __forceinline__ Quad load_quad(const bf16* p, bool whole, int count) {
    Quad q;
    if (whole) {
        uint2 v = isa::load<uint2>(p);
        q = Quad{{isa::lo(v.x), isa::hi(v.x), isa::lo(v.y), isa::hi(v.y)}};
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            q.v[i] = i < count ? isa::to_float(p[i]) : 0.0f;
        }
    }
    return q;
}

__device__ __forceinline__ void store_quad(bf16* p, Quad q, bool whole, int count) {
    if (whole) {
        isa::store(p, make_uint2(isa::pack(q.v[0], q.v[1]), isa::pack(q.v[2], q.v[3])));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i < count) {
                p[i] = isa::to_bf16(q.v[i]);
            }
        }
    }
}

__device__ __forceinline__ void store_quad(float* p, Quad q, bool whole, int count) {
    if (whole) {
        isa::store(p, make_float4(q.v[0], q.v[1], q.v[2], q.v[3]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i < count) {
                p[i] = q.v[i];
            }
        }
    }
}

__device__ __forceinline__ Quad operator+(Quad a, Quad b) {
    return Quad{{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
}

// Base of epilogues that take tiles of sums from shared memory and have no tensor maps.
struct Sliced {
    static constexpr bool STAGED = false;
    // Ring stages that the results of a warpgroup take, if they go through the ring.
    template <class T>
    static constexpr int PIECES = 1;
    struct Maps {};
};

// Base of epilogues whose columns are the rows of the weight in their order.
struct InOrder : Sliced {
    template <class Args>
    __device__ __forceinline__ static int columns(const Args&, const Operands& in) {
        return in.cols;
    }
    template <class Args>
    __device__ __forceinline__ static int weight_row(const Args&, const Operands&, int n) {
        return n;
    }
};

// Calls f(row of the tile, first of WIDTH columns) for all columns of those rows of the tile that exist in the product.
template <class T, int COLUMNS, int WIDTH, class F>
__device__ __forceinline__ void each(const Operands& in, int m, F f) {
    constexpr int PER_ROW = COLUMNS / WIDTH;
    constexpr int UNROLL = WIDTH == 4 ? 2 : 1;
#pragma unroll UNROLL
    for (int q = T::thread(); q < T::BLOCK_M * PER_ROW; q += T::THREADS) {
        if (m + q / PER_ROW < in.rows) {
            f(q / PER_ROW, q % PER_ROW * WIDTH);
        }
    }
}

// Calls f(row of the tile, column of the tile, elements, offset in a row-major [T, N] array) for the quads of the tile
// that hold columns of the product. The last quad of a row may hold fewer than four.
template <class T, class F>
__device__ __forceinline__ void each_quad(const Operands& in, int m, int n, F f) {
    each<T, T::BLOCK_N, 4>(in, m, [&](int row, int column) {
        int count = in.cols - n - column;
        if (count > 0) {
            f(row, column, count, (size_t)(m + row) * in.cols + n + column);
        }
    });
}

}  // namespace gemm
