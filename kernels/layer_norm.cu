// Layer norm: y = (x - mean) rstd gamma + beta with rstd = 1 / sqrt(mean((x - mean)^2) + eps). Backward: dx, dgamma +=
// sum dy xhat and dbeta += sum dy, with xhat = (x - mean) rstd.
// Rows start at multiples of 16 bytes: cols is a multiple of 8.
// Shapes: x, y, dy, dx [rows, cols] bf16, gamma, beta [cols] bf16, stats [rows] (mean, rstd) f32, dgamma, dbeta [cols]
// f32, partials [ceil(rows / 64), 2, cols] f32.
// Grid of y and dx: one warp per row, 4 rows per CTA. Lane l handles the elements j with (j / 8) % 32 == l.
// Grid of dgamma and dbeta: first one CTA for 1,024 columns of 64 rows, then one thread per column of both.
// Bound: memory. A row is read from memory once and then from cache. Forward: 4 bytes per element. Backward: 6 or 8
// bytes for dx and 4 for dgamma and dbeta.
// Reference: src/runtime/ops/layer_norm.rs, bitwise identical.
// Benchmark: `omr bench layer_norm`.
#include "common/norm_rows.cuh"
#include "isa/isa.cuh"

namespace layer_norm {

using namespace norm_rows;

struct Args {
    const bf16* x;
    const bf16* gamma;
    const bf16* beta;
    bf16* y;
    float2* stats;
    int rows, cols;
    float eps;
    int pad;
};

struct BwdArgs {
    const bf16* x;
    const bf16* gamma;
    const float2* stats;
    const bf16* dy;
    bf16* dx;
    float* dgamma;
    float* dbeta;
    float* partials;
    int rows, cols;
    int accumulate;  // 1 if dx holds a gradient to add to
    int pad;
};

// Returns the mean over a row. `add(at, chain)` adds the terms of the eight elements from column `at` on.
template <class Add>
__device__ __forceinline__ float row_mean(int cols, int lane, const Add& add) {
    float chain[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) chain[i] = 0.0f;
    for (int at = lane * VECTOR; at < cols; at += ROUND) add(at, chain);
    return sum(chain) / (float)cols;
}

}  // namespace layer_norm

KERNEL(layer_norm_fwd, layer_norm::Args, layer_norm::THREADS, 4) {
    using namespace layer_norm;
    int lane = threadIdx.x % 32, row = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row >= args.rows) return;
    const bf16* x = args.x + (int64_t)row * args.cols;
    bf16* y = args.y + (int64_t)row * args.cols;
    float mean = row_mean(args.cols, lane, [&](int at, float (&chain)[VECTOR]) {
        Eight e(x + at);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] += e.v[i];
    });
    float variance = row_mean(args.cols, lane, [&](int at, float (&chain)[VECTOR]) {
        Eight e(x + at);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = fmaf(e.v[i] - mean, e.v[i] - mean, chain[i]);
    });
    float r = 1.0f / sqrtf(variance + args.eps);
    const bf16* const operands[] = {x, args.gamma, args.beta};
    rounds<4>(operands, args.cols, lane, [&](const uint4 (&loaded)[3], int at) {
        Eight e(loaded[0]), gamma(loaded[1]), beta(loaded[2]);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) e.v[i] = fmaf((e.v[i] - mean) * r, gamma.v[i], beta.v[i]);
        isa::store<uint4>(y + at, e.packed());
    });
    if (lane == 0) args.stats[row] = make_float2(mean, r);
}

// Computes one row of dx = rstd (dy gamma - mean(dy gamma) - xhat mean(dy gamma xhat)).
KERNEL(layer_norm_bwd, layer_norm::BwdArgs, layer_norm::THREADS, 4) {
    using namespace layer_norm;
    int lane = threadIdx.x % 32, row = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row >= args.rows) return;
    const bf16 *x = args.x + (int64_t)row * args.cols, *dy = args.dy + (int64_t)row * args.cols;
    bf16* dx = args.dx + (int64_t)row * args.cols;
    float mean = args.stats[row].x, r = args.stats[row].y;
    float along_1 = row_mean(args.cols, lane, [&](int at, float (&chain)[VECTOR]) {
        Eight g(dy + at), gamma(args.gamma + at);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] += g.v[i] * gamma.v[i];
    });
    float along_x = row_mean(args.cols, lane, [&](int at, float (&chain)[VECTOR]) {
        Eight e(x + at), g(dy + at), gamma(args.gamma + at);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = fmaf((e.v[i] - mean) * r, g.v[i] * gamma.v[i], chain[i]);
    });
    const bf16* const operands[] = {x, dy, args.gamma, args.accumulate ? dx : nullptr};
    rounds<2>(operands, args.cols, lane, [&](const uint4 (&loaded)[4], int at) {
        Eight e(loaded[0]), g(loaded[1]), gamma(loaded[2]), had(loaded[3]);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float d = (g.v[i] * gamma.v[i] - along_1 - (e.v[i] - mean) * r * along_x) * r;
            e.v[i] = args.accumulate ? had.v[i] + d : d;
        }
        isa::store<uint4>(dx + at, e.packed());
    });
}

// Writes partials [chunk][2][column]: the sums of dy xhat and of dy over the rows of a chunk, each as one chain over
// ascending rows.
KERNEL(layer_norm_dw, layer_norm::BwdArgs, layer_norm::THREADS, 4) {
    using namespace layer_norm;
    int at = blockIdx.y * STRIPE + threadIdx.x * VECTOR;
    if (at >= args.cols) return;
    int from = blockIdx.x * CHUNK, to = args.rows - from < CHUNK ? args.rows : from + CHUNK;
    float dgamma[VECTOR], dbeta[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) dgamma[i] = dbeta[i] = 0.0f;
#pragma unroll 4
    for (int row = from; row < to; row++) {
        int64_t start = (int64_t)row * args.cols + at;
        Eight x(args.x + start), dy(args.dy + start);
        float mean = args.stats[row].x, r = args.stats[row].y;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            dgamma[i] = fmaf(dy.v[i], (x.v[i] - mean) * r, dgamma[i]);
            dbeta[i] += dy.v[i];
        }
    }
    float* partials = args.partials + (int64_t)blockIdx.x * 2 * args.cols + at;
    isa::store<float4>(partials, make_float4(dgamma[0], dgamma[1], dgamma[2], dgamma[3]));
    isa::store<float4>(partials + 4, make_float4(dgamma[4], dgamma[5], dgamma[6], dgamma[7]));
    isa::store<float4>(partials + args.cols, make_float4(dbeta[0], dbeta[1], dbeta[2], dbeta[3]));
    isa::store<float4>(partials + args.cols + 4, make_float4(dbeta[4], dbeta[5], dbeta[6], dbeta[7]));
}

// Adds the partial sums to dgamma and dbeta: starts from the current value and adds the chunks in ascending order.
KERNEL(layer_norm_dw_sum, layer_norm::BwdArgs, layer_norm::THREADS, 4) {
    using namespace layer_norm;
    int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= 2 * args.cols) return;
    float* dw = column < args.cols ? args.dgamma + column : args.dbeta + (column - args.cols);
    float sum = *dw;
#pragma unroll 8
    for (int row = 0; row < args.rows; row += CHUNK) {
        sum += args.partials[(int64_t)(row / CHUNK) * 2 * args.cols + column];
    }
    *dw = sum;
}
