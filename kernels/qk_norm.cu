// RMSNorm of each head x of q and k, then the rotation R, in place, and the store of k and v in the cache: y = R (x rstd w)
// with rstd = 1 / sqrt(mean(x^2) + eps). Backward, with d = R^T dy and xhat = x rstd: dx = rstd (d w - xhat mean(d w
// xhat)), in place, and dw += sum d xhat.
// Shapes: qkv, dqkv [rows, (q_heads + 2 kv_heads) * dim] bf16; q, k [dim] bf16 (the weights); cos, sin [rows, dim / 2] f32;
// x [rows, (q_heads + kv_heads) * dim] bf16 and rstd [rows, q_heads + kv_heads] f32, or null; caches
// [blocks][kv_heads][128][dim] bf16 and slots [rows] u32, or null; dq, dk [dim] f32; partials [ceil(rows / 16), 2 dim]
// f32. dim is a multiple of 4. A slot past the cache stores nothing.
// Grid: eight lanes per head of a row if its halves have whole pieces of 16 bytes, otherwise one warp; of dw first one CTA for 16 rows of q or of k, then one thread per column.
// Bound: memory. Forward reads and writes a row once, and writes x for backward.
// Reference: src/runtime/ops/qk_norm.rs, all results bitwise identical.
// Benchmark: `omr bench qk_norm`.
#include "common/elements.cuh"
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
// Chains of the sum over a head, as in the reference: chain c adds up the pairs j with (j / 2) % 32 == c.
constexpr int CHAINS = 32;
// Pairs of a chain in one round, and of all chains.
constexpr int EACH = 2;
constexpr int ROUND = CHAINS * EACH;
// Rows of one partial sum of dw, as in the reference.
constexpr int CHUNK = 16;
constexpr uint32_t BLOCK = 128;

// N pairs of a head: a and b hold adjacent elements of its halves.
template <int N>
struct Pairs {
    float a[N], b[N];

    __device__ __forceinline__ Pairs(const bf16* head, int j, int half) {
        if constexpr (N == EACH) {
            uint32_t p = isa::load<uint32_t>(head + j), q = isa::load<uint32_t>(head + half + j);
            a[0] = lo(p), a[1] = hi(p), b[0] = lo(q), b[1] = hi(q);
        } else {
            elements::Elements<N> p, q;
            p.load(head + j);
            q.load(head + half + j);
#pragma unroll
            for (int i = 0; i < N; i++) a[i] = p.v[i], b[i] = q.v[i];
        }
    }

    // Rotates by the angles of the row; sign -1 rotates back.
    __device__ __forceinline__ void rotate(const float* cos, const float* sin, int j, float sign) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            float c = cos[j + i], s = sin[j + i] * sign, p = a[i], q = b[i];
            a[i] = fmaf(p, c, -(q * s));
            b[i] = fmaf(q, c, p * s);
        }
    }

    __device__ __forceinline__ void store(bf16* head, int j, int half) const {
        if constexpr (N == EACH) {
            isa::store<uint32_t>(head + j, pack(a[0], a[1]));
            isa::store<uint32_t>(head + half + j, pack(b[0], b[1]));
        } else {
            elements::Elements<N> p, q;
#pragma unroll
            for (int i = 0; i < N; i++) p.v[i] = a[i], q.v[i] = b[i];
            p.store(head + j);
            q.store(head + half + j);
        }
    }
};

// The chains of a lane that handles N adjacent pairs per round: N / 2 of the head's chains.
template <int N>
struct Chains {
    float v[N / EACH];

    __device__ __forceinline__ Chains() {
#pragma unroll
        for (int i = 0; i < N / EACH; i++) v[i] = 0.0f;
    }

    // Adds the products of the pairs, a before b.
    __device__ __forceinline__ void add(const Pairs<N>& x, const Pairs<N>& y) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i / EACH] = fmaf(x.b[i], y.b[i], fmaf(x.a[i], y.a[i], v[i / EACH]));
    }

    // Returns the sum over the lanes of a head, with halves of the chains added as in reduce::warp_sum. Called by all
    // lanes of the warp.
    __device__ __forceinline__ float sum() {
#pragma unroll
        for (int lanes = CHAINS * EACH / N / 2; lanes > 0; lanes /= 2) {
#pragma unroll
            for (int i = 0; i < N / EACH; i++) v[i] += isa::shfl_xor(v[i], lanes);
        }
#pragma unroll
        for (int count = N / EACH / 2; count > 0; count /= 2) {
#pragma unroll
            for (int i = 0; i < count; i++) v[i] += v[i + count];
        }
        return v[0];
    }
};

// A head of a row, and the lane that handles N adjacent pairs of it. If N is 8, four heads share a warp, and accesses have
// 16 bytes.
template <int N>
struct Head {
    static constexpr int LANES = CHAINS * EACH / N;
    int row, head, lane;

    __device__ __forceinline__ explicit Head(int heads) : lane(threadIdx.x % LANES) {
        int unit = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
        row = unit / heads;
        head = unit % heads;
    }
};

// Returns the head's place in the pages of a cache, or null without a slot.
__device__ __forceinline__ bf16* cached(const Args& args, int row, int head, bf16* pages) {
    if (args.slots == nullptr) return nullptr;
    uint32_t slot = args.slots[row], block = slot / BLOCK;
    if (block >= args.blocks) return nullptr;
    return pages + (((int64_t)block * args.kv_heads + head) * BLOCK + slot % BLOCK) * args.dim;
}

// Copies a head, N elements at a time.
template <int N>
__device__ __forceinline__ void copy(bf16* to, const bf16* from, int dim, int lane) {
    for (int j = lane * N; j < dim; j += ROUND) {
        if constexpr (N == EACH) {
            isa::store(to + j, isa::load<uint32_t>(from + j));
        } else {
            isa::store(to + j, isa::load<uint4>(from + j));
        }
    }
}

// Normalises and rotates heads of q and k, and stores k and v.
template <int N>
__device__ __forceinline__ void forward(const Args& args) {
    int normed = args.q_heads + args.kv_heads, half = args.dim / 2;
    Head<N> at(normed + (args.slots != nullptr ? args.kv_heads : 0));
    int row = at.row, head = at.head, first = at.lane * N;
    bool exists = row < args.rows;
    bool is_normed = exists && head < normed;
    bf16* rows = args.qkv + ((int64_t)row * (normed + args.kv_heads) + head) * args.dim;
    int64_t kept = (int64_t)row * normed + head;
    Chains<N> squares;
    for (int j = first; is_normed && j < half; j += ROUND) {
        Pairs<N> x(rows, j, half);
        if (args.x != nullptr) x.store(args.x + kept * args.dim, j, half);
        squares.add(x, x);
    }
    float r = 1.0f / sqrtf(squares.sum() / (float)args.dim + args.eps);
    if (!exists) return;
    if (!is_normed) {
        bf16* cell = cached(args, row, head - normed, args.v_cache);
        if (cell != nullptr) copy<N>(cell, rows, args.dim, at.lane);
        return;
    }
    bool is_k = head >= args.q_heads;
    const bf16* w = is_k ? args.k : args.q;
    bf16* cell = is_k ? cached(args, row, head - args.q_heads, args.k_cache) : nullptr;
    if (args.rstd != nullptr && at.lane == 0) args.rstd[kept] = r;
    for (int j = first; j < half; j += ROUND) {
        Pairs<N> x(rows, j, half), scale(w, j, half);
#pragma unroll
        for (int i = 0; i < N; i++) x.a[i] = x.a[i] * r * scale.a[i], x.b[i] = x.b[i] * r * scale.b[i];
        x.rotate(args.cos + (int64_t)row * half, args.sin + (int64_t)row * half, j, 1.0f);
        x.store(rows, j, half);
        if (cell != nullptr) x.store(cell, j, half);
    }
}

// Computes dx of heads in place.
template <int N>
__device__ __forceinline__ void backward(const BwdArgs& args) {
    int normed = args.q_heads + args.kv_heads, half = args.dim / 2;
    Head<N> at(normed);
    int row = at.row, first = at.lane * N;
    bool exists = row < args.rows;
    int64_t kept = (int64_t)row * normed + at.head;
    bf16* dy = args.dqkv + ((int64_t)row * (normed + args.kv_heads) + at.head) * args.dim;
    const bf16 *x = args.x + kept * args.dim, *w = at.head < args.q_heads ? args.q : args.k;
    const float *cos = args.cos + (int64_t)row * half, *sin = args.sin + (int64_t)row * half;
    Chains<N> products;
    for (int j = first; exists && j < half; j += ROUND) {
        Pairs<N> d(dy, j, half), v(x, j, half), scale(w, j, half);
        d.rotate(cos, sin, j, -1.0f);
#pragma unroll
        for (int i = 0; i < N; i++) d.a[i] *= scale.a[i], d.b[i] *= scale.b[i];
        products.add(v, d);
    }
    float sum = products.sum();
    if (!exists) return;
    float r = args.rstd[kept], mean = sum * r / (float)args.dim;
    for (int j = first; j < half; j += ROUND) {
        Pairs<N> d(dy, j, half), v(x, j, half), scale(w, j, half);
        d.rotate(cos, sin, j, -1.0f);
#pragma unroll
        for (int i = 0; i < N; i++) {
            d.a[i] = (d.a[i] * scale.a[i] - v.a[i] * r * mean) * r;
            d.b[i] = (d.b[i] * scale.b[i] - v.b[i] * r * mean) * r;
        }
        d.store(dy, j, half);
    }
}

// True if both halves of each head begin at multiples of 16 bytes.
__device__ __forceinline__ bool is_wide(int dim) { return elements::are_wide(dim / 2); }

}  // namespace qk_norm

KERNEL(qk_norm_fwd, qk_norm::Args, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    if (is_wide(args.dim)) {
        forward<elements::WIDE>(args);
    } else {
        forward<EACH>(args);
    }
}

KERNEL(qk_norm_bwd, qk_norm::BwdArgs, qk_norm::THREADS, 4) {
    using namespace qk_norm;
    if (is_wide(args.dim)) {
        backward<elements::WIDE>(args);
    } else {
        backward<EACH>(args);
    }
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
#pragma unroll 4
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
