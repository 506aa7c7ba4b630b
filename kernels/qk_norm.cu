// RMSNorm of each head x of q and k, then the rotation R, in place, and the store of k and v in the cache: y = R (x rstd w)
// with rstd = 1 / sqrt(mean(x^2) + eps). Backward, with d = R^T dy and xhat = x rstd: dx = rstd (d w - xhat mean(d w
// xhat)), in place, and dw += sum d xhat.
// Shapes: qkv, dqkv [rows, (q_heads + 2 kv_heads) * dim] bf16; q, k [dim] bf16 (the weights); cos, sin [rows, dim / 2] f32;
// x [rows, (q_heads + kv_heads) * dim] bf16 and rstd [rows, q_heads + kv_heads] f32, or null; caches
// [blocks][kv_heads][128][dim] bf16 and slots [rows] u32, or null; dq, dk [dim] f32; partials [ceil(rows / 16), 2 dim]
// f32. dim is a multiple of 4. A slot past the cache stores nothing.
// Grid: one warp per head of a row, 4 per CTA; of dw first one CTA for 16 rows of q or of k, then one thread per column.
// Bound: memory. Forward reads and writes a row once, and writes x for backward.
// Reference: src/runtime/ops/qk_norm.rs, all results bitwise identical.
// Benchmark: `omr bench qk_norm`.
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace qk_norm {

struct Args {
    bf16* qkv;
    const bf16* q;
    const bf16* k;
    const float* cos;
    const float* sin;
    bf16* x;
    float* rstd;
    bf16* k_cache;
    bf16* v_cache;
    const uint32_t* slots;
    int rows, q_heads, kv_heads, dim;
    uint32_t blocks;
    float eps;
};

struct BwdArgs {
    bf16* dqkv;
    const bf16* q;
    const bf16* k;
    const float* cos;
    const float* sin;
    const bf16* x;
    const float* rstd;
    float* dq;
    float* dk;
    float* partials;
    int rows, q_heads, kv_heads, dim;
};

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
// Pairs of a lane in one round, and of a warp.
constexpr int EACH = 2;
constexpr int ROUND = 32 * EACH;
// Rows of one partial sum of dw, as in the reference.
constexpr int CHUNK = 16;
constexpr uint32_t BLOCK = 128;

// Two pairs of a head: a and b hold adjacent elements of its halves.
struct Pairs {
    float a[EACH], b[EACH];

    __device__ __forceinline__ Pairs(const bf16* head, int j, int half) {
        uint32_t p = isa::load<uint32_t>(head + j), q = isa::load<uint32_t>(head + half + j);
        a[0] = lo(p), a[1] = hi(p), b[0] = lo(q), b[1] = hi(q);
    }

    // Rotates by the angles of the row; sign -1 rotates back.
    __device__ __forceinline__ void rotate(const float* cos, const float* sin, int j, float sign) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            float c = cos[j + i], s = sin[j + i] * sign, p = a[i], q = b[i];
            a[i] = fmaf(p, c, -(q * s));
            b[i] = fmaf(q, c, p * s);
        }
    }

    __device__ __forceinline__ void store(bf16* head, int j, int half) const {
        isa::store<uint32_t>(head + j, pack(a[0], a[1]));
        isa::store<uint32_t>(head + half + j, pack(b[0], b[1]));
    }
};

// Returns the head's place in the pages of a cache, or null without a slot.
__device__ __forceinline__ bf16* cached(const Args& args, int row, int head, bf16* pages) {
    if (args.slots == nullptr) return nullptr;
    uint32_t slot = args.slots[row], block = slot / BLOCK;
    if (block >= args.blocks) return nullptr;
    return pages + (((int64_t)block * args.kv_heads + head) * BLOCK + slot % BLOCK) * args.dim;
}

// Normalises and rotates a head of q or k.
__device__ __forceinline__ void head_fwd(const Args& args, int row, int head, bf16* at, int lane) {
    int half = args.dim / 2;
    bool is_k = head >= args.q_heads;
    const bf16* w = is_k ? args.k : args.q;
    bf16* cell = is_k ? cached(args, row, head - args.q_heads, args.k_cache) : nullptr;
    int64_t kept = (int64_t)row * (args.q_heads + args.kv_heads) + head;
    float chain = 0.0f;
    for (int j = lane * EACH; j < half; j += ROUND) {
        Pairs x(at, j, half);
        if (args.x != nullptr) x.store(args.x + kept * args.dim, j, half);
#pragma unroll
        for (int i = 0; i < EACH; i++) chain = fmaf(x.b[i], x.b[i], fmaf(x.a[i], x.a[i], chain));
    }
    float r = 1.0f / sqrtf(reduce::warp_sum(chain) / (float)args.dim + args.eps);
    if (args.rstd != nullptr && lane == 0) args.rstd[kept] = r;
    for (int j = lane * EACH; j < half; j += ROUND) {
        Pairs x(at, j, half), scale(w, j, half);
#pragma unroll
        for (int i = 0; i < EACH; i++) x.a[i] = x.a[i] * r * scale.a[i], x.b[i] = x.b[i] * r * scale.b[i];
        x.rotate(args.cos + (int64_t)row * half, args.sin + (int64_t)row * half, j, 1.0f);
        x.store(at, j, half);
        if (cell != nullptr) x.store(cell, j, half);
    }
}

// Computes dx of a head in place.
__device__ __forceinline__ void head_bwd(const BwdArgs& args, int row, int head, int lane) {
    int half = args.dim / 2;
    int64_t kept = (int64_t)row * (args.q_heads + args.kv_heads) + head;
    bf16* dy = args.dqkv + ((int64_t)row * (args.q_heads + 2 * args.kv_heads) + head) * args.dim;
    const bf16 *x = args.x + kept * args.dim, *w = head < args.q_heads ? args.q : args.k;
    const float *cos = args.cos + (int64_t)row * half, *sin = args.sin + (int64_t)row * half;
    float r = args.rstd[kept], chain = 0.0f;
    for (int j = lane * EACH; j < half; j += ROUND) {
        Pairs d(dy, j, half), v(x, j, half), scale(w, j, half);
        d.rotate(cos, sin, j, -1.0f);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            chain = fmaf(v.b[i], d.b[i] * scale.b[i], fmaf(v.a[i], d.a[i] * scale.a[i], chain));
        }
    }
    float mean = reduce::warp_sum(chain) * r / (float)args.dim;
    for (int j = lane * EACH; j < half; j += ROUND) {
        Pairs d(dy, j, half), v(x, j, half), scale(w, j, half);
        d.rotate(cos, sin, j, -1.0f);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            d.a[i] = (d.a[i] * scale.a[i] - v.a[i] * r * mean) * r;
            d.b[i] = (d.b[i] * scale.b[i] - v.b[i] * r * mean) * r;
        }
        d.store(dy, j, half);
    }
}

}  // namespace qk_norm

KERNEL(qk_norm_fwd, qk_norm::Args, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    int lane = threadIdx.x % 32, normed = args.q_heads + args.kv_heads;
    int heads = normed + (args.slots != nullptr ? args.kv_heads : 0);
    int unit = blockIdx.x * WARPS + threadIdx.x / 32;
    int row = unit / heads, head = unit % heads;
    if (row >= args.rows) return;
    bf16* at = args.qkv + ((int64_t)row * (normed + args.kv_heads) + head) * args.dim;
    if (head < normed) return head_fwd(args, row, head, at, lane);
    bf16* cell = cached(args, row, head - normed, args.v_cache);
    if (cell == nullptr) return;
    for (int j = lane * EACH; j < args.dim; j += ROUND) isa::store<uint32_t>(cell + j, isa::load<uint32_t>(at + j));
}

KERNEL(qk_norm_bwd, qk_norm::BwdArgs, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    int normed = args.q_heads + args.kv_heads;
    int unit = blockIdx.x * WARPS + threadIdx.x / 32;
    if (unit / normed < args.rows) head_bwd(args, unit / normed, unit % normed, threadIdx.x % 32);
}

// Writes partials [chunk][q or k][column]: the sum of d xhat over the heads and rows of a chunk, as one fmaf chain over
// ascending rows and heads. Runs before qk_norm_bwd, which overwrites dy.
KERNEL(qk_norm_dw, qk_norm::BwdArgs, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    int half = args.dim / 2, normed = args.q_heads + args.kv_heads;
    int first = blockIdx.y == 0 ? 0 : args.q_heads, last = blockIdx.y == 0 ? args.q_heads : normed;
    int from = blockIdx.x * CHUNK, to = args.rows - from < CHUNK ? args.rows : from + CHUNK;
    for (int j = threadIdx.x; j < half; j += THREADS) {
        float of_a = 0.0f, of_b = 0.0f;
        for (int row = from; row < to; row++) {
            float c = args.cos[(int64_t)row * half + j], s = -args.sin[(int64_t)row * half + j];
            for (int head = first; head < last; head++) {
                int64_t kept = (int64_t)row * normed + head;
                const bf16* dy = args.dqkv + ((int64_t)row * (normed + args.kv_heads) + head) * args.dim + j;
                const bf16* x = args.x + kept * args.dim + j;
                float p = to_float(dy[0]), q = to_float(dy[half]), r = args.rstd[kept];
                of_a = fmaf(fmaf(p, c, -(q * s)), to_float(x[0]) * r, of_a);
                of_b = fmaf(fmaf(q, c, p * s), to_float(x[half]) * r, of_b);
            }
        }
        float* partials = args.partials + ((int64_t)blockIdx.x * 2 + blockIdx.y) * args.dim + j;
        partials[0] = of_a;
        partials[half] = of_b;
    }
}

// Adds the partial sums to dq and dk, the chunks in ascending order.
KERNEL(qk_norm_dw_sum, qk_norm::BwdArgs, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= 2 * args.dim) return;
    float* dw = column < args.dim ? args.dq + column : args.dk + column - args.dim;
    float sum = *dw;
#pragma unroll 8
    for (int row = 0; row < args.rows; row += CHUNK) {
        sum += args.partials[(int64_t)(row / CHUNK) * 2 * args.dim + column];
    }
    *dw = sum;
}
