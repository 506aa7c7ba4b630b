// y = x / rms(x) * gamma and rstd = 1 / rms(x), rms(x)^2 = mean(x^2) + eps.
// x, y [rows, cols] bf16, gamma [cols] bf16, rstd [rows] f32.
// A warp a row, 4 rows a CTA, grid ceil(rows / 4). Lane l has the elements j with (j / 8) % 32 == l.
// Bound by memory: 4 bytes an element at the card's bandwidth; a row stays in registers up to 4,096 columns.
// Reference src/ops/rms_norm.rs, bench rms_norm.
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace rms_norm {

struct Args {
    const bf16* x;
    const bf16* gamma;
    bf16* y;
    float* rstd;
    int rows, cols;
    float eps;
    int pad;
};

constexpr int THREADS = 128;
constexpr int ROWS = THREADS / 32;
// Elements of one 16-byte access, of one round of a warp, and of a row that stays in registers.
constexpr int VECTOR = 8;
constexpr int ROUND = 32 * VECTOR;
constexpr int ROUNDS = 16;

// The square sum has one shape whatever the path: element j goes to chain j % 256 by fmaf, ascending; then halves of
// the 256 chains are added to halves, first inside a lane (8 chains), then across the 32 lanes.
struct Squares {
    float chain[VECTOR];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) chain[i] = 0.0f;
    }

    __device__ __forceinline__ void add(uint4 v) {
        uint32_t pair[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            chain[2 * i] = fmaf(lo(pair[i]), lo(pair[i]), chain[2 * i]);
            chain[2 * i + 1] = fmaf(hi(pair[i]), hi(pair[i]), chain[2 * i + 1]);
        }
    }

    __device__ __forceinline__ float sum() const {
        float a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = chain[i] + chain[i + 4];
        return reduce::warp_sum((a[0] + a[2]) + (a[1] + a[3]));
    }
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

// A row of at most ROUNDS rounds in registers: read once.
__device__ __forceinline__ float in_registers(const Args& args, const bf16* x, bf16* y, int lane) {
    uint4 v[ROUNDS];
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int at = i * ROUND + lane * VECTOR;
        v[i] = make_uint4(0, 0, 0, 0);
        if (at < args.cols) v[i] = isa::load<uint4>(x + at);
    }
    Squares squares;
    squares.clear();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (i * ROUND < args.cols) squares.add(v[i]);
    }
    float r = reciprocal(squares.sum(), args);
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int at = i * ROUND + lane * VECTOR;
        if (at < args.cols) isa::store<uint4>(y + at, normed(v[i], isa::load<uint4>(args.gamma + at), r));
    }
    return r;
}

// A longer row in 16-byte accesses, read twice: the second time from a cache.
__device__ __forceinline__ float in_vectors(const Args& args, const bf16* x, bf16* y, int lane) {
    Squares squares;
    squares.clear();
    for (int at = lane * VECTOR; at < args.cols; at += ROUND) squares.add(isa::load<uint4>(x + at));
    float r = reciprocal(squares.sum(), args);
    for (int at = lane * VECTOR; at < args.cols; at += ROUND) {
        isa::store<uint4>(y + at, normed(isa::load<uint4>(x + at), isa::load<uint4>(args.gamma + at), r));
    }
    return r;
}

// A row that starts anywhere, element by element.
__device__ __forceinline__ float by_element(const Args& args, const bf16* x, bf16* y, int lane) {
    Squares squares;
    squares.clear();
    for (int from = lane * VECTOR; from < args.cols; from += ROUND) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float v = from + i < args.cols ? to_float(x[from + i]) : 0.0f;
            squares.chain[i] = fmaf(v, v, squares.chain[i]);
        }
    }
    float r = reciprocal(squares.sum(), args);
    for (int at = lane; at < args.cols; at += 32) y[at] = to_bf16(to_float(x[at]) * r * to_float(args.gamma[at]));
    return r;
}

}  // namespace rms_norm

KERNEL(rms_norm_fwd, rms_norm::Args, rms_norm::THREADS, 4) {
    using namespace rms_norm;
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row >= args.rows) return;
    const bf16* x = args.x + (int64_t)row * args.cols;
    bf16* y = args.y + (int64_t)row * args.cols;
    uint64_t odd = (uint64_t)args.x | (uint64_t)args.y | (uint64_t)args.gamma | (uint64_t)args.cols * sizeof(bf16);
    float r;
    if (odd % sizeof(uint4) != 0) {
        r = by_element(args, x, y, lane);
    } else if (args.cols <= ROUNDS * ROUND) {
        r = in_registers(args, x, y, lane);
    } else {
        r = in_vectors(args, x, y, lane);
    }
    if (lane == 0) args.rstd[row] = r;
}
