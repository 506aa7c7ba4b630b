// Backward of attention in two kernels, dq and dkv: dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO, where
// P = exp2(s c - lse), dS = P (dO V^T - D), D = rowsum(dO O) and c = scale log2 e.
// Shapes: qkv, dqkv [T, (q + 2 kv) * dim] and out, dout [T, q * dim] bf16, cu_seqlens [S + 1] and prompt_of [S] u32,
// lse, delta [T, q] and partial [T, 2 kv, dim] f32.
// Grid of both: (slots, kv heads), 8 warps with 16 rows or keys each. attend::sequence_of maps a slot to a sequence and
// a tile. A dq CTA owns 128 rows (token, head of the group), a dkv CTA owns 128 keys. dkv runs after dq because it
// reads `delta`.
// Bound: shared memory bandwidth. 14 * rows * keys * dim flops (half if causal) at 16 flops per byte; the floor is
// 2,048 flops per clock and SM.
// Reference: src/runtime/ops/attention/backward.rs on the CPU.
// Benchmark: `omr bench "attention bwd"`.
// registers attention_bwd_dq_hd16 <= 128
// registers attention_bwd_dq_hd32 <= 168
// registers attention_bwd_dq_hd64 <= 255
// registers attention_bwd_dq_hd80 <= 255
// registers attention_bwd_dq_hd128 <= 255
// registers attention_bwd_dkv_hd16 <= 128
// registers attention_bwd_dkv_hd32 <= 168
// registers attention_bwd_dkv_hd64 <= 255
// registers attention_bwd_dkv_hd80 <= 255
// registers attention_bwd_dkv_hd128 <= 255
#include "common/attend_bwd.cuh"

// Why two kernels: every CTA owns the elements that it writes. No result is added with atomics, and every element is
// one fp32 accumulation chain in a fixed order:
// - dQ sums over ascending keys.
// - dK and dV sum over ascending rows, where the heads of the group vary fastest. A CTA with keys of a prompt computes
//   one such chain per sequence that reads them. It keeps their sum in `partial`, where a thread only reads elements
//   that it wrote itself.
// The price is that S and dP are computed twice: 7 matrix products instead of 5.
//
// The alternative is one kernel that adds each block of 128 keys to an fp32 dQ in global memory, in ticket order.
// Estimate for dim 128, per row and key block, on one SM:
// - It moves 1,024 bytes between the SM and L2 (read and write). At 42 bytes/ns this takes 24 ns.
// - It saves 65,536 flops. At 3,000 flops/ns (mma.sync) this is 22 ns.
// - It also waits for tickets, needs 4 bytes of scratch per element of dQ, and needs extra passes to zero and round dQ.
//
// Shared memory traffic: dkv holds the scores transposed, with keys as rows, so P^T and dS^T are already left operands.
// In both kernels no score leaves the registers of its warp. The left operands of S and dP stay in registers, so one
// mma (4,096 flops) reads only its right operand from shared memory (256 bytes). At 128 bytes per clock this allows:
// - A100: 312 TFLOP/s, the sm_80 tensor core rate, of which 5/7 are useful.
// - H200 at 1,755 MHz: 474 TFLOP/s, below its mma.sync rate.
// Warps of 32 rows would halve the traffic, but at dim 128 there are not enough registers for them. The traffic from L2
// is 1/192 byte per flop in dq and 1/256 in dkv.
namespace attention_bwd {

using attend::PITCH;
using attend::WARP_ROWS;

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * attend::WARP;
// Rows that a dq CTA owns; keys that a dkv CTA owns.
constexpr int OWNED = WARPS * WARP_ROWS;
// Keys per pipeline stage of dq; rows per pipeline stage of dkv.
constexpr int KEYS = 64;
constexpr int ROWS = 64;
constexpr int NEVER = 0x7fffffff;
// Rows whose scores a dkv warp holds at a time. The accumulators and left operands of its keys take the other
// registers.
template <int HD>
constexpr int STRIP = HD > 96 ? 16 : 32;

// Rows of a key head's group, starting at row `from`. Row i belongs to token `token + (first + i) / group` and to head
// `(first + i) % group`. A stage is copied in many small pieces, so the division is done by a multiplication with
// `inverse`. It is exact below 2^31 / group, which the host code checks.
struct Span {
    int token, first, group;
    uint32_t inverse;

    __device__ __forceinline__ Span(const Args& args, int from, int group)
        : token(from / group), first(from % group), group(group), inverse(args.inverse) {}

    // Returns the number of tokens before row i, and stores the row's head in `head`.
    __device__ __forceinline__ int split(int i, int& head) const {
        int t = (int)((uint64_t)(uint32_t)(first + i) * inverse >> 31);
        head = first + i - t * group;
        return t;
    }

    // Addresses of the span's rows in an array whose heads lie `width` elements apart.
    struct Heads {
        const bf16* data;
        const Span& span;
        int stride, width;

        __device__ __forceinline__ const bf16* operator()(int i) const {
            int head, t = span.split(i, head);
            return data + t * stride + head * width;
        }
    };

    __device__ __forceinline__ Heads of(const bf16* data, int stride, int width) const {
        return {data + (int64_t)token * stride, *this, stride, width};
    }
};

// Loads the sixteen rows of a warp as left operands, directly from global memory. Two loads of a quad read one complete
// sector. A lane holds rows `row` and row + 8. Rows from `count` on and columns from `dim` on do not exist and become
// zero.
template <int HD, class At>
__device__ __forceinline__ void load_fragments(isa::Frag<4> (&to)[HD / 16], const At& at, int row, int count, int dim) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool real = row + 8 * i < count;
        const bf16* from = at(real ? row + 8 * i : 0) + attend::lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < HD / 8; j++) {
            bool inside = real && j * 8 + attend::lane() % 4 * 2 < dim;
            to[j / 2][j % 2 * 2 + i] = inside ? isa::load<uint32_t>(from + j * 8) : 0u;
        }
    }
}

// Computes the dot products of a lane's two rows with rows of the same layout.
template <int HD, class At>
__device__ __forceinline__ void dot_rows(float (&sum)[2], isa::Frag<4> (&rows)[HD / 16], const At& at, int row,
                                         int count, int dim) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool real = row + 8 * i < count;
        const bf16* from = at(real ? row + 8 * i : 0) + attend::lane() % 4 * 2;
        sum[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < HD / 8; j++) {
            bool inside = real && j * 8 + attend::lane() % 4 * 2 < dim;
            uint32_t x = inside ? isa::load<uint32_t>(from + j * 8) : 0u, y = rows[j / 2][j % 2 * 2 + i];
            sum[i] = fmaf(lo(x), lo(y), sum[i]);
            sum[i] = fmaf(hi(x), hi(y), sum[i]);
        }
        sum[i] = tile::quad_sum(sum[i]);
    }
}

template <int HD>
struct KeySmem {
    isa::Shared<bf16> k[2][KEYS * PITCH<HD>];
    isa::Shared<bf16> v[2][KEYS * PITCH<HD>];
};

// Turns dP of a warp's sixteen rows into dS, in place. `masked`: true if some row does not see all keys of the stage.
__device__ __forceinline__ void row_grads(isa::Acc (&s)[KEYS / 8], isa::Acc (&dp)[KEYS / 8], const float (&lse)[2],
                                          const float (&delta)[2], float scale_log2e, bool masked,
                                          const int (&visible)[2]) {
    tile::row_exp2(s, scale_log2e, lse);
    tile::row_grads(dp, s, delta);
    if (masked) {
        tile::mask(dp, visible, 0.0f);
    }
}

template <int HD>
__device__ __forceinline__ void dq(const Args& args) {
    auto& smem = isa::smem<KeySmem<HD>>();
    int group = args.q_heads / args.kv_heads, dim = args.dim, tile;
    // Under a causal mask the last rows of a sequence see the most keys. CTAs with the most work start first.
    int sequence = attend::sequence_of(gridDim.x - 1 - blockIdx.x, args.cu_seqlens, args.sequences, group, OWNED, tile);
    Place place(args, sequence, blockIdx.y, group);
    int from = tile * OWNED;
    if (from >= place.rows) {
        return;
    }
    int to = min(from + OWNED, place.rows);
    Prompt prompt(args, sequence);
    int own = prompt.padded(KEYS), keys = own + (args.causal ? (to - 1) / group + 1 : place.tokens);
    attend::KeyRows k{args.qkv + place.k, place.stride};
    if (own > 0) {
        k.data += (int64_t)(prompt.start - (int)args.cu_seqlens[sequence]) * place.stride;
    }
    // Copies the keys and values from position `begin` on, where `k` is.
    auto copy_keys = [&](int begin, int stage) {
        int count = (begin < own ? prompt.tokens : keys) - begin;
        attend::KeyRows v{k.data + args.kv_heads * dim, k.stride};
        attend::copy_rows<HD, KEYS, THREADS>(smem.k[stage], k, count, dim, args.wide);
        attend::copy_rows<HD, KEYS, THREADS>(smem.v[stage], v, count, dim, args.wide);
        isa::cp_async_commit();
    };
    copy_keys(0, 0);

    int mine = from + attend::warp() * WARP_ROWS, row = attend::lane() / 4;
    isa::Frag<4> q[HD / 16], dout[HD / 16];
    isa::Acc sums[HD / 8];
    float lse[2], delta[2];
    int visible[2];
    Span span(args, mine, group);
    load_fragments<HD>(q, span.of(args.qkv + place.q, place.stride, dim), row, to - mine, dim);
    load_fragments<HD>(dout, span.of(args.dout + place.out, place.out_stride, dim), row, to - mine, dim);
    dot_rows<HD>(delta, dout, span.of(args.out + place.out, place.out_stride, dim), row, to - mine, dim);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        lse[i] = 0.0f;
        visible[i] = 0;
        if (mine + row + 8 * i < to) {
            int h, token = span.token + span.split(row + 8 * i, h);
            int64_t at = place.sums + (int64_t)token * args.q_heads + h;
            visible[i] = own + (args.causal ? token + 1 : place.tokens);
            lse[i] = args.lse[at] * math::LOG2_E;
            if (attend::lane() % 4 == 0) {
                args.delta[at] = delta[i];
            }
        }
    }
    // Position after the last key that the warp's first row (`least`) and last row (`most`) see.
    int least = own + (args.causal ? mine / group + 1 : place.tokens);
    int most = mine >= to ? 0 : own + (args.causal ? (min(mine + WARP_ROWS, to) - 1) / group + 1 : place.tokens);
    tile::clear(sums);
#pragma unroll 1
    for (int begin = 0; begin < keys; begin += KEYS) {
        int stage = begin / KEYS % 2, next = begin + KEYS;
        isa::cp_async_wait<0>();
        // The keys of this stage have arrived, and no warp still reads the previous stage.
        isa::sync_cta();
        if (next < keys) {
            k.data = next == own ? args.qkv + place.k : k.data + KEYS * k.stride;
            copy_keys(next, stage ^ 1);
        }
        if (begin < most) {
            isa::Acc s[KEYS / 8], dp[KEYS / 8];
            isa::Frag<4> ds[KEYS / 16];
            bool shared = begin < own;
            int seen[2] = {(shared ? prompt.tokens : visible[0]) - begin, (shared ? prompt.tokens : visible[1]) - begin};
            attend::scores<HD>(s, q, smem.k[stage]);
            attend::scores<HD>(dp, dout, smem.v[stage]);
            row_grads(s, dp, lse, delta, args.scale_log2e, (shared ? prompt.tokens : least) < next, seen);
            tile::round(ds, dp);
            attend::weigh<HD>(sums, ds, smem.k[stage], 0);
        }
    }
    // No warp still reads the keys, so their buffer can hold the results.
    isa::sync_cta();
    isa::Shared<bf16>* staged = smem.k[0] + attend::warp() * WARP_ROWS * PITCH<HD>;
    write<HD>(sums, args.scale, staged, args.dqkv + place.q, place, group, mine, to, args);
}

template <int HD>
struct RowSmem {
    isa::Shared<bf16> q[2][ROWS * PITCH<HD>];
    isa::Shared<bf16> dout[2][ROWS * PITCH<HD>];
    isa::Shared<float> lse[2][ROWS];
    isa::Shared<float> delta[2][ROWS];
};

// Copies rows from `from` on into a pipeline stage. Rows that do not exist become zeros. They add nothing, because
// their dO and Q are zero.
template <int HD>
__device__ __forceinline__ void copy_stage(RowSmem<HD>& smem, int stage, int from, const Place& place,
                                           const Args& args) {
    int count = min(args.step, place.rows - from);
    Span span(args, from, place.group);
    auto q = span.of(args.qkv + place.q, place.stride, args.dim);
    auto dout = span.of(args.dout + place.out, place.out_stride, args.dim);
    attend::copy_rows<HD, ROWS, THREADS, 2>(smem.q[stage], q, count, args.dim, args.wide);
    attend::copy_rows<HD, ROWS, THREADS, 2>(smem.dout[stage], dout, count, args.dim, args.wide);
    if (threadIdx.x < 2 * ROWS) {
        int row = threadIdx.x % ROWS;
        bool real = row < count, first = threadIdx.x < ROWS;
        int head, token = span.token + span.split(row, head);
        const float* sums = (first ? args.lse : args.delta) + place.sums;
        isa::Shared<float>* cell = first ? &smem.lse[stage][row] : &smem.delta[stage][row];
        isa::cp_async<4>(cell, real ? sums + (int64_t)token * args.q_heads + head : sums, real ? 4 : 0);
    }
}

// Computes P and dS of a warp's sixteen keys with 8 TILES rows, in place of the scores and of dP. Key i sees the rows
// from first[i] on. `masked`: true if some key is not seen by all rows.
template <int TILES>
__device__ __forceinline__ void key_grads(isa::Acc (&s)[TILES], isa::Acc (&dp)[TILES],
                                          const isa::Shared<float>* lse, const isa::Shared<float>* delta,
                                          float scale_log2e, bool masked, const int (&first)[2]) {
    tile::column_exp2(s, scale_log2e, lse, math::LOG2_E);
    tile::column_grads(dp, s, delta);
    if (masked) {
        tile::mask_before(s, first, 0.0f);
        tile::mask_before(dp, first, 0.0f);
    }
}

template <int HD>
__device__ __forceinline__ void dkv(const Args& args) {
    auto& smem = isa::smem<RowSmem<HD>>();
    int group = args.q_heads / args.kv_heads, dim = args.dim, tile;
    int sequence = attend::sequence_of(blockIdx.x, args.cu_seqlens, args.sequences, 1, OWNED, tile);
    Place place(args, sequence, blockIdx.y, group);
    if (tile * OWNED >= place.tokens) {
        return;
    }
    int mine = tile * OWNED + attend::warp() * WARP_ROWS;
    isa::Acc dk[HD / 8], dv[HD / 8];
    tile::clear(dk);
    tile::clear(dv);
    int stage = 0, reader = sequence;
    do {
        reader = next_reader(args, sequence, reader);
        Place own(args, sequence, blockIdx.y, group);
        place = Place(args, reader, blockIdx.y, group);
        bool causal = args.causal && reader == sequence;
        int from = causal ? tile * OWNED * group : 0;
        // First row that sees the warp's first key (`some`), and first row that sees all of the warp's keys (`all`).
        int some = mine >= own.tokens ? NEVER : causal ? mine * group : 0;
        int all = causal ? (mine + WARP_ROWS - 1) * group : 0;
        int key = causal ? (mine + attend::lane() / 4) * group : 0;
        // No warp still reads this stage, because all have passed the barrier of the other one.
        if (from < place.rows) {
            copy_stage<HD>(smem, stage, from, place, args);
            isa::cp_async_commit();
        }
        // The keys are loaded again for each reader, so that they need no registers in end_reader.
        isa::Frag<4> k[HD / 16], v[HD / 16];
        attend::KeyRows keys{args.qkv + own.k + (int64_t)mine * own.stride, own.stride};
        load_fragments<HD>(k, keys, attend::lane() / 4, own.tokens - mine, dim);
        keys.data += args.kv_heads * dim;
        load_fragments<HD>(v, keys, attend::lane() / 4, own.tokens - mine, dim);
#pragma unroll 1
        for (; from < place.rows; from += args.step) {
            isa::cp_async_wait<0>();
            // The rows of this stage have arrived, and no warp still reads the previous stage.
            isa::sync_cta();
            if (from + args.step < place.rows) {
                copy_stage<HD>(smem, stage ^ 1, from + args.step, place, args);
                isa::cp_async_commit();
            }
#pragma unroll 1
            for (int strip = 0; strip < ROWS; strip += STRIP<HD>) {
                int row = from + strip;
                if (row + STRIP<HD> <= some || row >= place.rows) {
                    continue;
                }
                constexpr int N = STRIP<HD>;
                const isa::Shared<bf16>*q = smem.q[stage] + strip * PITCH<HD>, *dout = smem.dout[stage] + strip * PITCH<HD>;
                isa::Acc s[N / 8], dp[N / 8];
                isa::Frag<4> p[N / 16], ds[N / 16];
                int first[2] = {key - row, key - row + 8 * group};
                attend::scores<HD>(s, k, q);
                attend::scores<HD>(dp, v, dout);
                key_grads(s, dp, smem.lse[stage] + strip, smem.delta[stage] + strip, args.scale_log2e, row < all, first);
                tile::round(p, s);
                attend::weigh<HD>(dv, p, dout, 0);
                tile::round(ds, dp);
                attend::weigh<HD>(dk, ds, q, 0);
            }
            stage ^= 1;
        }
        end_reader<HD>(dk, dv, args, sequence, reader, blockIdx.y, mine);
    } while (reader != sequence);
    // No warp still reads the rows, so their buffer can hold the results.
    isa::sync_cta();
    isa::Shared<bf16>* staged = smem.q[0] + attend::warp() * WARP_ROWS * PITCH<HD>;
    place = Place(args, sequence, blockIdx.y, group);
    write<HD>(dk, args.scale, staged, args.dqkv + place.k, place, 1, mine, place.tokens, args);
    isa::sync_warp();
    write<HD>(dv, 1.0f, staged, args.dqkv + place.v, place, 1, mine, place.tokens, args);
}
}  // namespace attention_bwd

KERNEL(attention_bwd_dq_hd16, attention_bwd::Args, attention_bwd::THREADS, 2) { attention_bwd::dq<16>(args); }
KERNEL(attention_bwd_dq_hd32, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dq<32>(args); }
KERNEL(attention_bwd_dq_hd64, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dq<64>(args); }
KERNEL(attention_bwd_dq_hd80, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dq<80>(args); }
KERNEL(attention_bwd_dq_hd128, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dq<128>(args); }
KERNEL(attention_bwd_dkv_hd16, attention_bwd::Args, attention_bwd::THREADS, 2) { attention_bwd::dkv<16>(args); }
KERNEL(attention_bwd_dkv_hd32, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dkv<32>(args); }
KERNEL(attention_bwd_dkv_hd64, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dkv<64>(args); }
KERNEL(attention_bwd_dkv_hd80, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dkv<80>(args); }
KERNEL(attention_bwd_dkv_hd128, attention_bwd::Args, attention_bwd::THREADS, 1) { attention_bwd::dkv<128>(args); }
