// Resampled position embeddings, in place: x[r] += sum over t of weights[r][t] table[indices[r][t]], for four taps t. The
// sum is rounded to bf16 before it is added. Backward: dtable[i] += the sum of weights[p] dy[p / 4] over the positions p
// of i in `indices`, in ascending order.
// Shapes: indices [rows, 4] u32, weights [rows, 4] f32, table [n][ld] bf16, x [rows, k] bf16. An index of n or more gives
// a row of NaN.
// Shapes of the backward: positions [taps] u32 sorted by index, ids [S, 2] u32 (index, number of its first entry in
// positions), dy [taps / 4, k] bf16, dtable [n][ld] f32.
// Grid: forward ceil(rows / 4), one warp per row, 4 rows per CTA; backward (S, ceil(k / 128)), one thread per column.
// Bound: memory. Rows of x are read and written once; the table and the four readings of dy come from cache.
// Reference: src/runtime/ops/pos_embed.rs, bitwise identical.
// Benchmark: `omr bench pos_embed`.
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

}  // namespace pos_embed

KERNEL(pos_embed_fwd, pos_embed::Args, pos_embed::THREADS, 8) {
    int lane = threadIdx.x % 32, row = blockIdx.x * (pos_embed::THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    uint4 i = args.indices[row];
    float4 w = args.weights[row];
    bool inside = i.x < args.n && i.y < args.n && i.z < args.n && i.w < args.n;
    const bf16 *a = args.table + (int64_t)i.x * args.ld, *b = args.table + (int64_t)i.y * args.ld;
    const bf16 *c = args.table + (int64_t)i.z * args.ld, *d = args.table + (int64_t)i.w * args.ld;
    bf16* x = args.x + (int64_t)row * args.k;
    for (int column = lane; column < args.k; column += 32) {
        float sum = __uint_as_float(0x7fc00000u);
        if (inside) {
            sum = fmaf(w.y, to_float(b[column]), w.x * to_float(a[column]));
            sum = fmaf(w.w, to_float(d[column]), fmaf(w.z, to_float(c[column]), sum));
        }
        x[column] = to_bf16(to_float(x[column]) + to_float(to_bf16(sum)));
    }
}

KERNEL(pos_embed_bwd, pos_embed::BwdArgs, pos_embed::THREADS, 8) {
    int segment = blockIdx.x, column = blockIdx.y * pos_embed::THREADS + threadIdx.x;
    uint32_t id = args.ids[2 * segment];
    if (column >= args.k || id >= args.n) return;
    int from = args.ids[2 * segment + 1];
    int to = segment + 1 < args.segments ? (int)args.ids[2 * segment + 3] : args.taps;
    float* dtable = args.dtable + (int64_t)id * args.ld + column;
    float sum = *dtable;
    for (int i = from; i < to; i++) {
        uint32_t at = args.positions[i];
        sum = fmaf(args.weights[at], to_float(args.dy[(int64_t)(at / 4) * args.k + column]), sum);
    }
    *dtable = sum;
}
