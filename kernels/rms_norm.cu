// RMSNorm: y = x / rms(x) * gamma and rstd = 1 / rms(x), where rms(x)^2 = mean(x^2) + eps. Backward: dx, and dgamma +=
// sum dy x rstd.
// Rows start at multiples of 16 bytes: cols is a multiple of 8.
// Shapes: x, y, dy, dx [rows, cols] bf16, gamma [cols] bf16, rstd [rows] f32, dgamma [cols] f32, partials [ceil(rows /
// 64), cols] f32.
// Grid of y and dx: one warp per row, 4 rows per CTA. Lane l handles the elements j with (j / 8) % 32 == l.
// Grid of dgamma: first one CTA for 1,024 columns of 64 rows, then one thread per column.
// Bound: memory. Forward: 4 bytes per element (a row stays in registers up to 4,096 columns). Backward: 6 or 8 bytes
// for dx and 4 for dgamma.
// Reference: src/runtime/ops/rms_norm.rs, dgamma bitwise identical.
// Benchmark: `omr bench rms_norm`.
#include "common/norm_rows.cuh"
#include "isa/isa.cuh"

namespace rms_norm {

using namespace norm_rows;

struct Args {
    const bf16* x;
    const bf16* gamma;
    bf16* y;
    float* rstd;
    int rows, cols;
    float eps;
    int pad;
};

struct BwdArgs {
    const bf16* x;
    const bf16* gamma;
    const float* rstd;
    const bf16* dy;
    bf16* dx;
    float* dgamma;
    float* partials;
    int rows, cols;
    int accumulate;  // 1 if dx holds a gradient to add to
    int pad;
};

// Largest number of rounds of a row that stays in registers.
constexpr int ROUNDS = 16;
// Rounds of gamma that are loaded together.
constexpr int BATCH = 8;

// The sum of a row has one order whatever the code path: element j is added to chain j % 256 by fmaf, in ascending
// order. Then norm_rows::sum adds up the chains.
struct Chains {
    float chain[VECTOR];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = 0.0f;
    }

    // Adds the squares of eight elements.
    __device__ __forceinline__ void add(const Eight& x) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = fmaf(x.v[i], x.v[i], chain[i]);
    }

    // Adds the products x (dy gamma) of eight elements.
    __device__ __forceinline__ void add(const Eight& x, const Eight& dy, const Eight& gamma) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = fmaf(x.v[i], dy.v[i] * gamma.v[i], chain[i]);
    }

    __device__ __forceinline__ float sum() const { return norm_rows::sum(chain); }
};

__device__ __forceinline__ float reciprocal(float squares, const Args& args) {
    return 1.0f / sqrtf(squares / (float)args.cols + args.eps);
}

__device__ __forceinline__ uint4 normed(uint4 x, uint4 gamma, float r) {
    return make_uint4(pack(lo(x.x) * r * lo(gamma.x), hi(x.x) * r * hi(gamma.x)),
                      pack(lo(x.y) * r * lo(gamma.y), hi(x.y) * r * hi(gamma.y)),
                      pack(lo(x.z) * r * lo(gamma.z), hi(x.z) * r * hi(gamma.z)),
                      pack(lo(x.w) * r * lo(gamma.w), hi(x.w) * r * hi(gamma.w)));
}

// Normalises a row of at most ROUNDS rounds, which stays in registers and is read once.
__device__ __forceinline__ float in_registers(const Args& args, const bf16* x, bf16* y, int lane) {
    uint4 v[ROUNDS];
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int at = i * ROUND + lane * VECTOR;
        v[i] = make_uint4(0, 0, 0, 0);
        if (at < args.cols) v[i] = isa::load<uint4>(x + at);
    }
    Chains squares;
    squares.clear();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (i * ROUND < args.cols) squares.add(Eight(v[i]));
    }
    float r = reciprocal(squares.sum(), args);
    // Several loads of gamma are in flight at once: a load behind a store would wait for it, because they may overlap.
#pragma unroll
    for (int from = 0; from < ROUNDS; from += BATCH) {
        uint4 gamma[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = (from + i) * ROUND + lane * VECTOR;
            if (at < args.cols) gamma[i] = isa::load<uint4>(args.gamma + at);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = (from + i) * ROUND + lane * VECTOR;
            if (at < args.cols) isa::store<uint4>(y + at, normed(v[from + i], gamma[i], r));
        }
    }
    return r;
}

// Normalises a longer row in 16-byte accesses. It is read twice, the second time from a cache.
__device__ __forceinline__ float in_vectors(const Args& args, const bf16* x, bf16* y, int lane) {
    Chains squares;
    squares.clear();
    for (int at = lane * VECTOR; at < args.cols; at += ROUND) squares.add(Eight(x + at));
    float r = reciprocal(squares.sum(), args);
    const bf16* const operands[] = {x, args.gamma};
    rounds<4>(operands, args.cols, lane, [&](const uint4 (&loaded)[2], int at) {
        isa::store<uint4>(y + at, normed(loaded[0], loaded[1], r));
    });
    return r;
}

// Computes one row of dx = r (dy gamma - xhat mean(dy gamma xhat)) with xhat = x r. x, dy and gamma are read twice, the
// second time from a cache.
__device__ __forceinline__ void row_bwd(const BwdArgs& args, int64_t row, int lane) {
    const bf16 *x = args.x + row * args.cols, *dy = args.dy + row * args.cols;
    bf16* dx = args.dx + row * args.cols;
    float r = args.rstd[row];
    Chains products;
    products.clear();
    for (int at = lane * VECTOR; at < args.cols; at += ROUND) {
        products.add(Eight(x + at), Eight(dy + at), Eight(args.gamma + at));
    }
    float mean = products.sum() * r / (float)args.cols;
    const bf16* const operands[] = {x, dy, args.gamma, args.accumulate ? dx : nullptr};
    rounds<2>(operands, args.cols, lane, [&](const uint4 (&loaded)[4], int at) {
        Eight e(loaded[0]), g(loaded[1]), scale(loaded[2]), had(loaded[3]);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float d = (g.v[i] * scale.v[i] - e.v[i] * r * mean) * r;
            e.v[i] = args.accumulate ? had.v[i] + d : d;
        }
        isa::store<uint4>(dx + at, e.packed());
    });
}

}  // namespace rms_norm

KERNEL(rms_norm_fwd, rms_norm::Args, rms_norm::THREADS, 4) {
    using namespace rms_norm;
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row >= args.rows) return;
    const bf16* x = args.x + (int64_t)row * args.cols;
    bf16* y = args.y + (int64_t)row * args.cols;
    float r = args.cols <= ROUNDS * ROUND ? in_registers(args, x, y, lane) : in_vectors(args, x, y, lane);
    if (lane == 0) args.rstd[row] = r;
}

KERNEL(rms_norm_bwd, rms_norm::BwdArgs, rms_norm::THREADS, 4) {
    using namespace rms_norm;
    int row = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row < args.rows) row_bwd(args, row, threadIdx.x % 32);
}

// Writes partials [chunk][column]: the sum of dy xhat over the rows of a chunk, as one fmaf chain over ascending rows.
KERNEL(rms_norm_dgamma, rms_norm::BwdArgs, rms_norm::THREADS, 4) {
    using namespace rms_norm;
    int at = blockIdx.y * STRIPE + threadIdx.x * VECTOR;
    if (at >= args.cols) return;
    int from = blockIdx.x * CHUNK, to = args.rows - from < CHUNK ? args.rows : from + CHUNK;
    float sum[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) sum[i] = 0.0f;
#pragma unroll 4
    for (int row = from; row < to; row++) {
        int64_t start = (int64_t)row * args.cols + at;
        Eight x(args.x + start), dy(args.dy + start);
        float r = args.rstd[row];
#pragma unroll
        for (int i = 0; i < VECTOR; i++) sum[i] = fmaf(dy.v[i], x.v[i] * r, sum[i]);
    }
    float* partials = args.partials + (int64_t)blockIdx.x * args.cols + at;
    isa::store<float4>(partials, make_float4(sum[0], sum[1], sum[2], sum[3]));
    isa::store<float4>(partials + 4, make_float4(sum[4], sum[5], sum[6], sum[7]));
}

// Adds the partial sums to dgamma: starts from its current value and adds the chunks in ascending order.
KERNEL(rms_norm_dgamma_sum, rms_norm::BwdArgs, rms_norm::THREADS, 4) {
    using namespace rms_norm;
    int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= args.cols) return;
    float sum = args.dgamma[column];
#pragma unroll 8
    for (int row = 0; row < args.rows; row += CHUNK) {
        sum += args.partials[(int64_t)(row / CHUNK) * args.cols + column];
    }
    args.dgamma[column] = sum;
}
