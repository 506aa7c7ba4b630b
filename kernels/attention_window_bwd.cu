// Backward of full attention within windows of at most 64 tokens. One kernel computes dq, dk and dv and writes each
// once.
// Shapes: qkv, dqkv [T, (q + 2 kv) * dim], out, dout [T, q * dim] bf16, lse [T, q] f32, cu_seqlens [S + 1] u32; dim is
// even and at most HD.
// Grid: (S * kv heads), 4 warps with 16 keys each. A CTA multiplies the keys of a window with its rows (token, head of
// the group), 64 rows at a time.
// Bound: memory. Per token it reads 2 * (3 q + 2 kv) * dim bytes and writes 2 * (q + 2 kv) * dim; the floor is the copy
// bandwidth.
// Reference: src/ops/attention/backward.rs on the CPU.
// Benchmark: `omr bench "attention bwd"`.
// registers attention_window_bwd_hd16 <= 168
// registers attention_window_bwd_hd32 <= 168
// registers attention_window_bwd_hd64 <= 168
// registers attention_window_bwd_hd80 <= 168
// registers attention_window_bwd_hd128 <= 255
#include "common/attend_bwd.cuh"

// Scores, dP and dS are held transposed, with the sixteen keys of a warp as rows. P^T and dS^T are therefore already
// left operands of the products with dO and Q. Only dS goes through shared memory, for the product with K.
namespace attention_window_bwd {

using attend::PITCH;

// Largest number of tokens in a window, and number of rows of a tile.
constexpr int WINDOW = 64;
// Rows whose scores a warp holds at a time. The accumulators of its keys take up to 128 registers.
constexpr int STRIP = 16;
// Tiles of 8 dimensions of dQ that a warp accumulates at a time.
constexpr int TILES = 4;

struct Args {
    const bf16* qkv;
    const bf16* out;
    const bf16* dout;
    const float* lse;
    const uint32_t* cu_seqlens;
    bf16* dqkv;
    int q_heads, kv_heads, dim;
    int wide;  // 1 if dim is a multiple of 8 and all bf16 rows start at multiples of 16 bytes
    float scale, scale_log2e;
    int step;  // rows per tile: full tokens that fit in WINDOW rows, or WINDOW if one token has more rows
    int padding;
};

template <int HD>
struct Smem {
    // Queries of a tile. Later each warp overwrites its own rows with their gradients.
    isa::Shared<bf16> q[WINDOW * PITCH<HD>];
    // dO of a tile. At the end this buffer holds the gradients of the keys.
    isa::Shared<bf16> dout[WINDOW * PITCH<HD>];
    isa::Shared<bf16> k[WINDOW * PITCH<HD>];
    // Values. At the end this buffer holds the gradients of the values.
    isa::Shared<bf16> v[WINDOW * PITCH<HD>];
    // dS, with layout [key][row of the tile].
    isa::Shared<bf16> ds[WINDOW * PITCH<WINDOW>];
    // Log-sum-exp times log2 e, and D = dO . O, of the tile's rows.
    isa::Shared<float> lse[WINDOW];
    isa::Shared<float> delta[WINDOW];
};

// Window and head that a CTA works on. It is recomputed in each phase: if it lived across the loop over tiles, it would
// take registers from the accumulators.
struct Window {
    const Args& args;
    int group, head, start, tokens;

    __device__ __forceinline__ explicit Window(const Args& args) : args(args) {
        int s = blockIdx.x / args.kv_heads;
        head = blockIdx.x % args.kv_heads;
        group = args.q_heads / args.kv_heads;
        start = args.cu_seqlens[s];
        tokens = (int)args.cu_seqlens[s + 1] - start;
    }

    __device__ __forceinline__ int rows() const { return tokens * group; }
    __device__ __forceinline__ int64_t stride() const { return (int64_t)(args.q_heads + 2 * args.kv_heads) * args.dim; }
    __device__ __forceinline__ int64_t out_stride() const { return (int64_t)args.q_heads * args.dim; }

    // Returns the queries of a tile and the place of their gradients.
    __device__ __forceinline__ attend::Rows queries(int from) const {
        int64_t at = start * stride() + head * group * args.dim;
        return tile(args.qkv + at, args.dqkv + at, stride(), group, from, min(from + args.step, rows()));
    }

    // Returns the tile's rows of `data`, which is dO or the output.
    __device__ __forceinline__ attend::Rows outputs(const bf16* data, int from) const {
        int64_t at = start * out_stride() + head * group * args.dim;
        return tile(data + at, nullptr, out_stride(), group, from, min(from + args.step, rows()));
    }

    // Returns the keys (slot 0) or values (slot 1) and the place of their gradients.
    __device__ __forceinline__ attend::Rows keys(int slot) const {
        int64_t at = start * stride() + (args.q_heads + slot * args.kv_heads + head) * args.dim;
        return tile(args.qkv + at, args.dqkv + at, stride(), 1, 0, min(WINDOW, tokens));
    }

    __device__ __forceinline__ attend::Rows tile(const bf16* in, bf16* out, int64_t stride, int group, int from,
                                                 int to) const {
        return {in, out, nullptr, stride, stride, 0, group, args.dim, from, to, 0, 0, 0.0f, args.wide != 0};
    }
};

// Computes log-sum-exp and D of the tile's rows, sixteen per warp. A row that does not exist adds nothing, because its
// Q and dO are zero.
template <int HD>
__device__ __forceinline__ void prepare(Smem<HD>& smem, const Window& window, int from) {
    attend::Rows out = window.outputs(window.args.out, from), dout = window.outputs(window.args.dout, from);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int at = attend::warp() * attend::WARP_ROWS + i * 8 + attend::lane() / 4, row = from + at;
        float lse = 0.0f, delta = 0.0f;
        if (row < out.to) {
            int token = window.start + row / window.group, head = window.head * window.group + row % window.group;
            int64_t place = out.at(row, out.q_stride);
            lse = window.args.lse[(int64_t)token * window.args.q_heads + head] * math::LOG2_E;
            delta = attention_bwd::dot<4>(out.q + place, dout.q + place, out.dim);
        }
        delta = tile::quad_sum(delta);
        if (attend::lane() % 4 == 0) {
            smem.lse[at] = lse;
            smem.delta[at] = delta;
        }
    }
}

// Turns the scores of the warp's keys with STRIP rows of the tile, from row `from` on, into P. Keys from `keys` on do
// not exist.
template <int HD>
__device__ __forceinline__ void probabilities(isa::Acc (&s)[STRIP / 8], const Smem<HD>& smem, int from, int keys,
                                              float scale_log2e) {
    int key = attend::warp() * attend::WARP_ROWS + attend::lane() / 4;
    int seen[2] = {key < keys ? STRIP : 0, key + 8 < keys ? STRIP : 0};
    tile::column_exp2(s, scale_log2e, smem.lse + from, 1.0f);
    tile::mask(s, seen, 0.0f);
}

// Writes accumulators (N times 8 dimensions of the warp's sixteen rows) times `scale` to their place in shared memory.
template <int HD, int N>
__device__ __forceinline__ void stage(isa::Acc (&sums)[N], float scale, isa::Shared<bf16>* rows, int first_tile) {
    float factor[2] = {scale, scale};
    attend::stage<HD>(sums, factor, rows + attend::warp() * attend::WARP_ROWS * PITCH<HD>, first_tile);
}

// Writes the warp's sixteen staged rows to global memory.
template <int HD>
__device__ __forceinline__ void write(const isa::Shared<bf16>* staged, const attend::Rows& rows) {
    int at = attend::warp() * attend::WARP_ROWS;
    isa::sync_warp();
    attend::write_rows<HD, 1>(rows, staged + at * PITCH<HD>, rows.from + at, rows.to, attend::lane(), attend::WARP);
}

// Computes dQ of the warp's sixteen rows of the tile, as one accumulation chain over ascending keys. It handles a few
// dimensions at a time, because the accumulators of the keys stay in registers.
template <int HD>
__device__ __forceinline__ void query_grads(Smem<HD>& smem, const Args& args, int from) {
    int lane = attend::lane(), mine = attend::warp() * attend::WARP_ROWS;
    if (from + mine >= Window(args).rows()) {
        return;
    }
    const isa::Shared<bf16>* column = smem.ds + mine + (lane / 16 * 8 + lane % 8) * PITCH<WINDOW> + lane / 8 % 2 * 8;
    isa::Frag<4> ds[WINDOW / 16];
#pragma unroll
    for (int step = 0; step < WINDOW / 16; step++) {
        isa::ldmatrix_trans(ds[step], column + step * 16 * PITCH<WINDOW>);
    }
#pragma unroll
    for (int first = 0; first < HD / 8; first += TILES) {
        isa::Acc dq[TILES];
        tile::clear(dq);
        attend::weigh<HD>(dq, ds, smem.k, first);
        stage<HD>(dq, args.scale, smem.q, first);
    }
    write<HD>(smem.q, Window(args).queries(from));
}

// Adds the contribution of the tile's rows to dK and dV of the warp's keys, each as one accumulation chain over
// ascending rows. Leaves dS in shared memory.
template <int HD>
__device__ __forceinline__ void key_grads(isa::Acc (&dk)[HD / 8], isa::Acc (&dv)[HD / 8], Smem<HD>& smem,
                                          const Args& args, int first) {
    Window window(args);
    int rows = window.rows() - first, keys = window.tokens;
    int lane = attend::lane(), mine = attend::warp() * attend::WARP_ROWS;
#pragma unroll 1
    for (int from = 0; from < min(rows, WINDOW); from += STRIP) {
        const isa::Shared<bf16>*q = smem.q + from * PITCH<HD>, *dout = smem.dout + from * PITCH<HD>;
        isa::Frag<4> k[HD / 16], v[HD / 16], p[STRIP / 16], ds[STRIP / 16];
        isa::Acc s[STRIP / 8], dp[STRIP / 8];
        attend::load_queries<HD>(k, smem.k + mine * PITCH<HD>);
        attend::scores<HD>(s, k, q);
        probabilities<HD>(s, smem, from, keys, args.scale_log2e);
        tile::round(p, s);
        attend::weigh<HD>(dv, p, dout, 0);
        attend::load_queries<HD>(v, smem.v + mine * PITCH<HD>);
        attend::scores<HD>(dp, v, dout);
        tile::column_grads(dp, s, smem.delta + from);
        tile::round(ds, dp);
#pragma unroll
        for (int step = 0; step < STRIP / 16; step++) {
            // Plain stores take as many shared memory cycles as stmatrix would, and the same code runs on every GPU.
            isa::Shared<bf16>* to = smem.ds + (mine + lane / 4) * PITCH<WINDOW> + from + step * 16 + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                isa::store<uint32_t>(to + i % 2 * 8 * PITCH<WINDOW> + i / 2 * 8, ds[step].r[i]);
            }
        }
        attend::weigh<HD>(dk, ds, q, 0);
    }
}

// Loads WINDOW rows, starting at `rows.from`.
template <int HD>
__device__ __forceinline__ void copy(isa::Shared<bf16>* to, const attend::Rows& rows) {
    attend::copy_rows<HD, WINDOW>(to, attend::QueryRows{rows}, rows.to - rows.from, rows.dim, rows.wide);
}

template <int HD>
__device__ __forceinline__ void run(const Args& args) {
    auto& smem = isa::smem<Smem<HD>>();
    Window window(args);
    if (window.tokens == 0) {
        return;
    }
    isa::Acc dk[HD / 8], dv[HD / 8];
    tile::clear(dk);
    tile::clear(dv);
    copy<HD>(smem.k, window.keys(0));
    copy<HD>(smem.v, window.keys(1));
#pragma unroll 1
    for (int from = 0; from < Window(args).rows(); from += args.step) {
        if (from > 0) {
            // No warp still reads the previous tile.
            isa::sync_cta();
        }
        Window tile(args);
        copy<HD>(smem.q, tile.queries(from));
        copy<HD>(smem.dout, tile.outputs(args.dout, from));
        isa::cp_async_commit();
        prepare<HD>(smem, tile, from);
        isa::cp_async_wait<0>();
        isa::sync_cta();
        key_grads<HD>(dk, dv, smem, args, from);
        // dS is complete, and no warp still reads the queries and dO.
        isa::sync_cta();
        query_grads<HD>(smem, args, from);
    }
    stage<HD>(dk, args.scale, smem.dout, 0);
    write<HD>(smem.dout, Window(args).keys(0));
    stage<HD>(dv, 1.0f, smem.v, 0);
    write<HD>(smem.v, Window(args).keys(1));
}
}  // namespace attention_window_bwd

KERNEL(attention_window_bwd_hd16, attention_window_bwd::Args, attend::THREADS, 3) { attention_window_bwd::run<16>(args); }
KERNEL(attention_window_bwd_hd32, attention_window_bwd::Args, attend::THREADS, 3) { attention_window_bwd::run<32>(args); }
KERNEL(attention_window_bwd_hd64, attention_window_bwd::Args, attend::THREADS, 3) { attention_window_bwd::run<64>(args); }
KERNEL(attention_window_bwd_hd80, attention_window_bwd::Args, attend::THREADS, 3) { attention_window_bwd::run<80>(args); }
KERNEL(attention_window_bwd_hd128, attention_window_bwd::Args, attend::THREADS, 2) { attention_window_bwd::run<128>(args); }
