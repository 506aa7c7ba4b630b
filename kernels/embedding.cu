// Embedding: y[t] = row ids[t] of the token table. Backward: dw[id] += the sum of dy over the positions of id, in
// ascending order.
// Shapes: ids [rows] u32, table [n][ld] in words of two bytes, y [rows, words]. An id of n or more gives a row of NaN.
// Shapes of the backward: positions [T] u32 sorted by id, ids [S, 2] u32 (id, index of its first entry in positions),
// dy [T, k] bf16, dw [n][ld] f32.
// Grid: forward ceil(rows / 4), one warp per row, 4 rows per CTA; backward (S, ceil(k / 1024)), eight columns per thread.
// Bound: memory, each row read and written once.
// Reference: src/runtime/ops/embedding.rs.
// Benchmark: `omr bench embedding`.
#include "common/elements.cuh"
#include "common/rows.cuh"
#include "isa/isa.cuh"

namespace embedding {

struct Args {
    const uint32_t* ids;
    const uint16_t* table;
    uint16_t* y;
    int rows, words, ld;
    uint32_t n;
};

struct BwdArgs {
    const uint32_t* positions;
    const uint32_t* ids;
    const bf16* dy;
    float* dw;
    int tokens, segments, k, ld;
    uint32_t n;
    int pad;
};

constexpr int THREADS = 128;

// Adds the rows of positions `from` to `to` to a row of dw, in eight columns from `first` on, N at a time.
template <int N>
__device__ __forceinline__ void add(const BwdArgs& args, float* dw, int first, int from, int to) {
    for (int at = first; at < min(args.k, first + elements::WIDE); at += N) {
        elements::Elements<N> sum, dy;
        sum.load(dw + at);
#pragma unroll 8
        for (int i = from; i < to; i++) {
            dy.load(args.dy + (int64_t)args.positions[i] * args.k + at);
            sum.add(dy);
        }
        sum.store(dw + at);
    }
}

}  // namespace embedding

KERNEL(embedding_fwd, embedding::Args, embedding::THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * (embedding::THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    uint32_t id = args.ids[row];
    uint16_t* y = args.y + (int64_t)row * args.words;
    if (id < args.n) {
        rows::copy(y, args.table + (int64_t)id * args.ld, args.words, lane);
    } else {
        rows::fill(y, rows::NOT_A_NUMBER, args.words, lane);
    }
}

KERNEL(embedding_bwd, embedding::BwdArgs, embedding::THREADS, 8) {
    int segment = blockIdx.x, first = (blockIdx.y * embedding::THREADS + threadIdx.x) * elements::WIDE;
    uint32_t id = args.ids[2 * segment];
    if (first >= args.k || id >= args.n) return;
    int from = args.ids[2 * segment + 1];
    int to = segment + 1 < args.segments ? (int)args.ids[2 * segment + 3] : args.tokens;
    float* dw = args.dw + (int64_t)id * args.ld;
    if (elements::are_wide(args.k)) {
        embedding::add<elements::WIDE>(args, dw, first, from, to);
    } else {
        embedding::add<1>(args, dw, first, from, to);
    }
}
