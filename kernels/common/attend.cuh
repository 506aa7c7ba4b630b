// Attention of one row, defined once for training, prefill and decode, as in src/runtime/ops/attend.rs. Keys come in blocks of
// BLOCK from the start of the sequence. The online softmax runs over the blocks of one chunk of CHUNK keys, and the
// states of the chunks are folded left to right in fp32. The bits of a row do not depend on the tile that contains it,
// nor on how many warps share its work:
// - score: one fp32 chain of k16 steps over ascending head dimension.
// - M: the base, which is the largest score times c (scale log2 e), rounded once. A maximum is exact in any order.
// - p: the probability before normalisation, exp2(fmaf(score, c, -M)).
// - l: the sum of p. A lane sums its eight probabilities of 32 keys in ascending order, then the four groups of 32 in
//   ascending order; then the quad is summed by a tree.
// - output: one fp32 chain of k16 steps over ascending keys. Masked keys and masked blocks add exact zeros.
// exp2 is ex2.approx (2 ulp, and exact at 0). A block that a row does not see therefore leaves the state of the row
// unchanged.
#pragma once

#include "common/tile.cuh"

namespace attend {

constexpr int BLOCK = 128;
constexpr int CHUNK = 2048;
constexpr int WARP = 32;
// Rows of one warp, which is M of an mma.
constexpr int WARP_ROWS = 16;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;

// Elements between rows in shared memory. The row is padded by sixteen bytes, so that the eight rows of an 8x8 matrix
// lie on distinct banks for every supported head dimension.
template <int HD>
constexpr int PITCH = HD + 8;

// A T in local memory, which is memory of one thread. `volatile` keeps the compiler from moving it to registers.
template <class T>
using Local = volatile T;

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp() { return threadIdx.x / WARP; }
__device__ __forceinline__ float minus_infinity() { return -math::infinity(); }

// Rows of a sequence that one CTA computes. Row r holds token r / group of the sequence's new tokens, and head r %
// group of the query heads that share a key head.
struct Rows {
    const bf16* q;
    bf16* out;
    float* lse;  // null if the log-sum-exp is not requested
    int64_t q_stride, out_stride, lse_stride;  // elements between tokens
    int group, dim;
    int from, to;
    int first, step;  // keys that the sequence's first new token sees; additional keys for each further token
    float scale_log2e;
    bool wide;  // true if every row starts at a multiple of 16 bytes and its length is a multiple of 16 bytes

    __device__ __forceinline__ int visible(int row) const { return first + row / group * step; }
    __device__ __forceinline__ int64_t at(int row, int64_t stride) const {
        return row / group * stride + row % group * dim;
    }
};

// Returns the rows of a key head in packed rows [q heads | k heads | v heads], for the sequence whose tokens begin at
// `start`. The caller sets the rows of the CTA (from, to), the visible keys (first, step) and the place of lse.
template <class Args>
__device__ __forceinline__ Rows packed_rows(const Args& args, int start, int head, int group) {
    Rows rows;
    rows.q_stride = (int64_t)(args.q_heads + 2 * args.kv_heads) * args.dim;
    rows.q = args.qkv + start * rows.q_stride + head * group * args.dim;
    rows.out = args.out + ((int64_t)start * args.q_heads + head * group) * args.dim;
    rows.out_stride = (int64_t)args.q_heads * args.dim;
    rows.lse = nullptr;
    rows.lse_stride = 0;
    rows.group = group;
    rows.dim = args.dim;
    rows.scale_log2e = args.scale_log2e;
    rows.wide = args.wide;
    return rows;
}

// Keys and values of one block. Rows lie `stride` elements apart.
struct Keys {
    const bf16* k;
    const bf16* v;
};

// Returns the sequence of a grid slot for tiles of `rows` rows, and stores in `tile` the index of the tile within that
// sequence. The slots of sequence s begin at floor(cu[s] group / rows) + s. A sequence never has fewer slots than
// tiles, because ceil((b - a) / R) <= floor(b / R) - floor(a / R) + 1. The sequence is found by bisection.
__device__ __forceinline__ int sequence_of(int slot, const uint32_t* cu, int sequences, int group, int rows, int& tile) {
    int low = 0, high = sequences;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if ((int)cu[middle] * group / rows + middle <= slot) {
            low = middle;
        } else {
            high = middle;
        }
    }
    tile = slot - ((int)cu[low] * group / rows + low);
    return low;
}

// Copies `count` rows of `dim` elements to ROWS rows of HD, and fills the rest with zeros: a key that does not exist
// must not bring NaN into the product with its zero probability. `at(row)` is the address of a row below `count`. All
// COPIERS threads of the CTA take part, with registers for UNROLL copies at a time.
template <int HD, int ROWS, int COPIERS = THREADS, int UNROLL = 4, class At>
__device__ __forceinline__ void copy_rows(isa::Shared<bf16>* to, const At& at, int count, int dim, bool wide) {
    if (wide) {
        constexpr int PIECES = HD / 8;
#pragma unroll UNROLL
        for (int i = threadIdx.x; i < ROWS * PIECES; i += COPIERS) {
            int row = i / PIECES, column = i % PIECES * 8;
            bool real = row < count && column < dim;
            const bf16* from = real ? at(row) + column : at(0);
            isa::cp_async<16>(to + row * PITCH<HD> + column, from, real ? 16 : 0);
        }
    } else {
        constexpr int PIECES = HD / 2;
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * PIECES; i += COPIERS) {
            int row = i / PIECES, column = i % PIECES * 2;
            bool real = row < count && column < dim;
            const bf16* from = real ? at(row) + column : at(0);
            isa::cp_async<4>(to + row * PITCH<HD> + column, from, real ? 4 : 0);
        }
    }
}

struct KeyRows {
    const bf16* data;
    int64_t stride;
    __device__ __forceinline__ const bf16* operator()(int row) const { return data + row * stride; }
};

struct QueryRows {
    const Rows& rows;
    __device__ __forceinline__ const bf16* operator()(int row) const {
        return rows.q + rows.at(rows.from + row, rows.q_stride);
    }
};

// Loads a warp's queries as fragments.
template <int HD>
__device__ __forceinline__ void load_queries(isa::Frag<4> (&q)[HD / 16], const isa::Shared<bf16>* rows) {
    const isa::Shared<bf16>* row = rows + lane() % 16 * PITCH<HD> + lane() / 16 * 8;
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        isa::ldmatrix(q[step], row + step * 16);
    }
}

// Computes the scores of 16 rows with 8 TILES keys. In tile t, lane l holds the keys 8 t + 2 (l % 4) + {0, 1} for rows
// l / 4 (elements 0, 1) and l / 4 + 8 (elements 2, 3).
template <int HD, int TILES>
__device__ __forceinline__ void scores(isa::Acc (&s)[TILES], const isa::Frag<4> (&q)[HD / 16],
                                       const isa::Shared<bf16>* keys) {
    // Each ldmatrix loads two tiles: lanes 0..15 address the two halves of the first tile for this step, lanes 16..31
    // those of the second tile.
    const isa::Shared<bf16>* row = keys + (lane() / 16 * 8 + lane() % 8) * PITCH<HD> + lane() / 8 % 2 * 8;
    tile::clear(s);
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        isa::Frag<4> k[TILES / 2];
#pragma unroll
        for (int pair = 0; pair < TILES / 2; pair++) {
            isa::ldmatrix(k[pair], row + pair * 16 * PITCH<HD> + step * 16);
            isa::mma<0>(s[2 * pair], q[step], k[pair]);
            isa::mma<1>(s[2 * pair + 1], q[step], k[pair]);
        }
    }
}

// Sets the scores of keys from `visible` on to minus infinity, and stores the maxima of the rows over the keys of the
// quad in `most`. `masked`: true if some row of the warp does not see all keys.
template <class F>
__device__ __forceinline__ void mask_and_max(F& s, bool masked, const int (&visible)[2], float (&most)[2]) {
    if (masked) {
        tile::mask(s, visible, minus_infinity());
    }
    tile::row_max(s, most);
}

// Turns scores into fp32 probabilities under the bases `m`, and stores this lane's part of the row sums in `sum`. All
// scores of a row that sees no key are minus infinity. Its probabilities must be zero, although its base may be minus
// infinity too.
template <class F>
__device__ __forceinline__ void probabilities(F& s, float scale, const float (&m)[2], const int (&visible)[2],
                                              float (&sum)[2]) {
    float base[2] = {visible[0] > 0 ? m[0] : 0.0f, visible[1] > 0 ? m[1] : 0.0f};
    tile::row_exp2(s, scale, base);
    tile::row_sum(s, sum);
}

// Adds the weighted rows of shared memory to the accumulators: STEPS times 16 rows, and 8 N dimensions from 8
// first_tile on. The accumulators have the layout of the scores.
template <int HD, int N, int STEPS>
__device__ __forceinline__ void weigh(isa::Acc (&o)[N], const isa::Frag<4> (&p)[STEPS], const isa::Shared<bf16>* values,
                                      int first_tile) {
    const isa::Shared<bf16>* row = values + lane() % 16 * PITCH<HD> + first_tile * 8;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if constexpr (N % 2 == 0) {
            // Each ldmatrix loads two tiles: the upper sixteen lanes address the second one.
            isa::Frag<4> v[N / 2];
#pragma unroll
            for (int pair = 0; pair < N / 2; pair++) {
                if (first_tile + 2 * pair < HD / 8) {
                    isa::ldmatrix_trans(v[pair], row + step * 16 * PITCH<HD> + pair * 16 + lane() / 16 * 8);
                    isa::mma<0>(o[2 * pair], p[step], v[pair]);
                    isa::mma<1>(o[2 * pair + 1], p[step], v[pair]);
                }
            }
        } else {
            isa::Frag<2> v[N];
#pragma unroll
            for (int tile = 0; tile < N; tile++) {
                if (first_tile + tile < HD / 8) {
                    isa::ldmatrix_trans(v[tile], row + step * 16 * PITCH<HD> + tile * 8);
                    isa::mma(o[tile], p[step], v[tile]);
                }
            }
        }
    }
}

// Multiplies accumulators by the factors of a lane's two rows and writes them as bf16 to rows of shared memory. Adding
// zero turns -0 into +0. Without this addition, the sign of a zero could depend on the other rows of the tile. No other
// bit depends on them.
template <int HD, class F>
__device__ __forceinline__ void stage(F& o, const float (&factor)[2], isa::Shared<bf16>* staged, int first_tile) {
#pragma unroll
    for (int tile = 0; tile < tile::COUNT<F> / 4; tile++) {
        if (first_tile + tile < HD / 8) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                isa::Shared<bf16>* to = staged + (lane() / 4 + 8 * i) * PITCH<HD> + lane() % 4 * 2;
                float x = tile::at(o, 4 * tile + 2 * i) * factor[i] + 0.0f;
                float y = tile::at(o, 4 * tile + 2 * i + 1) * factor[i] + 0.0f;
                isa::store<uint32_t>(to + (first_tile + tile) * 8, pack(x, y));
            }
        }
    }
}

// State of the online softmax for a lane's two rows: base (running maximum times scale and log2 e), sum, and output
// before normalisation. The output is a fragment with the layout of the scores.
template <class F>
struct State {
    F o;
    float m[2], l[2];

    __device__ __forceinline__ void reset() {
        tile::clear(o);
        m[0] = m[1] = minus_infinity();
        l[0] = l[1] = 0.0f;
    }

    // Raises the bases to cover the scores up to `most`. Stores in `alpha` the factors that rescale the sums made under
    // the old bases. A factor is exactly 1 if its base does not change.
    __device__ __forceinline__ void raise(const float (&most)[2], float scale, float (&alpha)[2]) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float after = fmaxf(m[i], most[i] * scale);
            // A row that has not seen a key yet has nothing to rescale.
            alpha[i] = isa::exp2_approx(m[i] == minus_infinity() ? 0.0f : m[i] - after);
            m[i] = after;
        }
    }

    // Multiplies l and the outputs by alpha, and adds the row sums to l.
    __device__ __forceinline__ void rescale(const float (&alpha)[2], const float (&sum)[2]) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            l[i] = fmaf(l[i], alpha[i], sum[i]);
        }
        tile::row_scale(o, alpha);
    }

    // Saves the state in memory of this thread until the next chunk is done.
    __device__ __forceinline__ void save(Local<float>* total) {
        float base[2], sum[2];
        save(base, sum, total + 4, 1);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            total[i] = base[i];
            total[2 + i] = sum[i];
        }
    }

    // Saves the base and the sum in registers, and the outputs in places of this thread, which lie `pitch` apart.
    template <class T>
    __device__ __forceinline__ void save(float (&base)[2], float (&sum)[2], T* to, int pitch) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            base[i] = m[i];
            sum[i] = l[i];
        }
#pragma unroll
        for (int i = 0; i < tile::COUNT<F>; i++) {
            to[i * pitch] = tile::at(o, i);
        }
    }

    // Folds the state of this chunk into the saved state of the chunks before it. A row without keys in this chunk
    // keeps the saved state.
    __device__ __forceinline__ void fold(const Local<float>* total) {
        float base[2] = {total[0], total[1]}, sum[2] = {total[2], total[3]};
        fold(base, sum, total + 4, 1);
    }

    template <class T>
    __device__ __forceinline__ void fold(const float (&base)[2], const float (&sum)[2], const T* from, int pitch) {
        float a[2], b[2];
        bool none[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float after = fmaxf(base[i], m[i]);
            none[i] = l[i] == 0.0f;
            a[i] = isa::exp2_approx(base[i] - after);
            b[i] = isa::exp2_approx(m[i] - after);
            m[i] = after;
            l[i] = none[i] ? sum[i] : fmaf(sum[i], a[i], l[i] * b[i]);
        }
#pragma unroll
        for (int i = 0; i < tile::COUNT<F>; i++) {
            float x = from[i * pitch];
            int row = tile::row(i);
            tile::at(o, i) = none[row] ? x : fmaf(x, a[row], tile::at(o, i) * b[row]);
        }
    }

    // Calls `each` for all pairs of neighbouring outputs of a lane's row i, with the column of the first one.
    template <int HD, class Each>
    __device__ __forceinline__ void each_pair(int i, int first_tile, const Each& each) {
#pragma unroll
        for (int tile = 0; tile < tile::COUNT<F> / 4; tile++) {
            if (first_tile + tile < HD / 8) {
                float &x = tile::at(o, 4 * tile + 2 * i), &y = tile::at(o, 4 * tile + 2 * i + 1);
                each((first_tile + tile) * 8 + lane() % 4 * 2, x, y);
            }
        }
    }

    // Writes the state to global memory, where another warp may `take` or `append` it. `rows` points to the places of a
    // lane's rows (null: the row does not exist, or this call must not write it). Each lane writes the outputs that it
    // holds. Warps that share a row each write the row's base and sum, at index `copy`.
    template <int HD>
    __device__ __forceinline__ void keep(float* const (&rows)[2], int first_tile, int copy) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (float* row = rows[i]) {
                if (lane() % 4 == 0) {
                    isa::store(row + HD + 2 * copy, make_float2(m[i], l[i]));
                }
                each_pair<HD>(i, first_tile, [&](int at, float& x, float& y) { isa::store(row + at, make_float2(x, y)); });
            }
        }
    }

    // Reads a state that `keep` wrote into this one.
    template <int HD>
    __device__ __forceinline__ void take(float* const (&rows)[2], int first_tile, int copy) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (const float* row = rows[i]) {
                float2 ml = isa::load<float2>(row + HD + 2 * copy);
                m[i] = ml.x;
                l[i] = ml.y;
                each_pair<HD>(i, first_tile, [&](int at, float& x, float& y) {
                    float2 pair = isa::load<float2>(row + at);
                    x = pair.x;
                    y = pair.y;
                });
            }
        }
    }

    // Folds a state that `keep` wrote into this one, as `fold` does. That state must belong to a later chunk, and the
    // row must see at least one key of that chunk.
    template <int HD>
    __device__ __forceinline__ void append(float* const (&rows)[2], int first_tile, int copy) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (const float* row = rows[i]) {
                float2 ml = isa::load<float2>(row + HD + 2 * copy);
                float after = fmaxf(m[i], ml.x);
                float a = isa::exp2_approx(m[i] - after), b = isa::exp2_approx(ml.x - after);
                m[i] = after;
                l[i] = fmaf(l[i], a, ml.y * b);
                each_pair<HD>(i, first_tile, [&](int at, float& x, float& y) {
                    float2 pair = isa::load<float2>(row + at);
                    x = fmaf(x, a, pair.x * b);
                    y = fmaf(y, a, pair.y * b);
                });
            }
        }
    }

    // Adds the values weighted by their probabilities: STEPS times 16 keys, dimensions from 8 first_tile on.
    template <int HD, int STEPS>
    __device__ __forceinline__ void weigh(const isa::Frag<4> (&p)[STEPS], const isa::Shared<bf16>* values,
                                          int first_tile) {
        attend::weigh<HD>(o, p, values, first_tile);
    }

    // Writes out = o / l as bf16 to rows of shared memory.
    template <int HD>
    __device__ __forceinline__ void stage(isa::Shared<bf16>* staged, int first_tile) {
        float inverse[2] = {1.0f / l[0], 1.0f / l[1]};
        attend::stage<HD>(o, inverse, staged, first_tile);
    }

    // Writes the log-sum-exp (natural logarithm, scale included) of the warp's rows `from`..`rows.to`.
    __device__ __forceinline__ void write_lse(const Rows& rows, int from) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = from + lane() / 4 + 8 * i;
            if (lane() % 4 == 0 && row < rows.to) {
                float lse = fmaf(m[i], math::LN_2, math::ln(l[i]));
                rows.lse[row / rows.group * rows.lse_stride + row % rows.group] = lse;
            }
        }
    }
};

// Writes the staged rows `from`..`to` to global memory with `count` threads; this thread is number `index`. UNROLL
// pieces are in flight at a time.
template <int HD, int UNROLL = HD / 16>
__device__ __forceinline__ void write_rows(const Rows& rows, const isa::Shared<bf16>* staged, int from, int to,
                                           int index, int count) {
    if (rows.wide) {
        constexpr int PIECES = HD / 8;
#pragma unroll UNROLL
        for (int i = index; i < WARP_ROWS * PIECES; i += count) {
            int row = i / PIECES, column = i % PIECES * 8;
            if (from + row < to && column < rows.dim) {
                uint4 x = isa::load<uint4>(staged + row * PITCH<HD> + column);
                isa::store<uint4>(rows.out + rows.at(from + row, rows.out_stride) + column, x);
            }
        }
    } else {
        constexpr int PIECES = HD / 2;
#pragma unroll 1
        for (int i = index; i < WARP_ROWS * PIECES; i += count) {
            int row = i / PIECES, column = i % PIECES * 2;
            if (from + row < to && column < rows.dim) {
                uint32_t x = isa::load<uint32_t>(staged + row * PITCH<HD> + column);
                isa::store<uint32_t>(rows.out + rows.at(from + row, rows.out_stride) + column, x);
            }
        }
    }
}

// Writes zeros for rows that see no key. Only the unused sequence slots of a CUDA graph have such rows.
__device__ __forceinline__ void write_zeros(const Rows& rows, int threads) {
    int words = rows.dim / 2;
    for (int i = threadIdx.x; i < (rows.to - rows.from) * words; i += threads) {
        isa::store<uint32_t>(rows.out + rows.at(rows.from + i / words, rows.out_stride) + i % words * 2, 0u);
    }
}

// `keys`: number of keys that each of a lane's two rows sees. `least`: number of keys that every row of the warp sees
// at least. Rows from `rows.to` on are never stored, so they need no mask.
struct VisibleKeys {
    int keys[2];
    int least;

    // All rows see the same number of keys.
    __device__ __forceinline__ explicit VisibleKeys(int keys) : keys{keys, keys}, least(keys) {}

    __device__ __forceinline__ VisibleKeys(const Rows& rows, int from) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            keys[i] = rows.visible(from + lane() / 4 + 8 * i);
        }
        least = rows.visible(from);
    }
};
}  // namespace attend
