// Resampled position embeddings, in place: x[r] += sum over t of weights[r][t] table[indices[r][t]], for four taps t. The
// sum is rounded to bf16 before it is added. Backward: dtable[i] += the sum of weights[p] dy[p / 4] over the positions p
// of i in `indices`, in ascending order.
// Shapes: indices [rows, 4] u32, weights [rows, 4] f32, table [n][ld] bf16, x [rows, k] bf16. An index of n or more gives
// a row of NaN.
// Shapes of the backward: positions [taps] u32 sorted by index, ids [S, 2] u32 (index, number of its first entry in
// positions), dy [taps / 4, k] bf16, dtable [n][ld] f32.
// Grid: forward ceil(rows / 4), one warp per row, 4 rows per CTA; backward (S, ceil(k / 1024)), eight columns per thread.
// Bound: memory. Rows of x are read and written once; the table and the four readings of dy come from cache.
// Reference: src/runtime/ops/pos_embed.rs, bitwise identical.
// Benchmark: `omr bench pos_embed`.
#include "common/elements.cuh"
#include "isa/isa.cuh"

namespace pos_embed {

struct Args {
    const uint4* indices;
    const float4* weights;
    const bf16* table;
    bf16* x;
    int rows, k, ld;
    uint32_t n;
};

struct BwdArgs {
    const uint32_t* positions;
    const uint32_t* ids;
    const float* weights;
    const bf16* dy;
    float* dtable;
    int taps, segments, k, ld;
    uint32_t n;
    int pad;
};

constexpr int THREADS = 128;

using elements::Elements;

// Adds the taps of a row, or NaN if they are not `inside` the table, N elements of a lane at a time.
template <int N>
__device__ __forceinline__ void add_taps(const Args& args, int row, bool inside) {
    uint4 i = args.indices[row];
    float4 w = args.weights[row];
    const bf16 *a = args.table + (int64_t)i.x * args.ld, *b = args.table + (int64_t)i.y * args.ld;
    const bf16 *c = args.table + (int64_t)i.z * args.ld, *d = args.table + (int64_t)i.w * args.ld;
    bf16* x = args.x + (int64_t)row * args.k;
    for (int at = threadIdx.x % 32 * N; at < args.k; at += 32 * N) {
        Elements<N> y;
        if (inside) {
            Elements<N> p, q, r, s;
            y.load(x + at), p.load(a + at), q.load(b + at), r.load(c + at), s.load(d + at);
#pragma unroll
            for (int j = 0; j < N; j++) {
                float sum = fmaf(w.y, q.v[j], w.x * p.v[j]);
                sum = fmaf(w.w, s.v[j], fmaf(w.z, r.v[j], sum));
                y.v[j] += to_float(to_bf16(sum));
            }
        } else {
#pragma unroll
            for (int j = 0; j < N; j++) y.v[j] = __uint_as_float(0x7fc00000u);
        }
        y.store(x + at);
    }
}

// Adds the weighted rows of positions `from` to `to` to a row of dtable, in eight columns from `first` on, N at a time.
template <int N>
__device__ __forceinline__ void add(const BwdArgs& args, float* dtable, int first, int from, int to) {
    for (int column = first; column < min(args.k, first + elements::WIDE); column += N) {
        Elements<N> sum, dy;
        sum.load(dtable + column);
#pragma unroll 4
        for (int i = from; i < to; i++) {
            uint32_t at = args.positions[i];
            dy.load(args.dy + (int64_t)(at / 4) * args.k + column);
            sum.add(args.weights[at], dy);
        }
        sum.store(dtable + column);
    }
}

}  // namespace pos_embed

KERNEL(pos_embed_fwd, pos_embed::Args, pos_embed::THREADS, 8) {
    int row = blockIdx.x * (pos_embed::THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    uint4 i = args.indices[row];
    bool inside = i.x < args.n && i.y < args.n && i.z < args.n && i.w < args.n;
    if (elements::are_wide(args.k)) {
        pos_embed::add_taps<elements::WIDE>(args, row, inside);
    } else {
        pos_embed::add_taps<1>(args, row, inside);
    }
}

KERNEL(pos_embed_bwd, pos_embed::BwdArgs, pos_embed::THREADS, 8) {
    int segment = blockIdx.x, first = (blockIdx.y * pos_embed::THREADS + threadIdx.x) * elements::WIDE;
    uint32_t id = args.ids[2 * segment];
    if (first >= args.k || id >= args.n) return;
    int from = args.ids[2 * segment + 1];
    int to = segment + 1 < args.segments ? (int)args.ids[2 * segment + 3] : args.taps;
    float* dtable = args.dtable + (int64_t)id * args.ld;
    if (elements::are_wide(args.k)) {
        pos_embed::add<elements::WIDE>(args, dtable, first, from, to);
    } else {
        pos_embed::add<1>(args, dtable, first, from, to);
    }
}
