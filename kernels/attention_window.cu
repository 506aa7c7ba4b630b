// Full attention within windows of at most 64 tokens, in one pass: out = softmax(scale q k^T) v, and its log-sum-exp.
// Shapes: qkv [T, (q + 2 kv) * dim] bf16, cu_seqlens [S + 1] u32, out [T, q * dim] bf16, lse [T, q] f32; dim is even
// and at most HD.
// Grid: (kv heads, S * group), 4 warps with 16 rows each. A CTA computes 64 rows (token, head of the group) of one
// window.
// Bound: memory. Per token it reads 2 * (q + 2 kv) * dim bytes and writes 2 * q * dim; the floor is the copy bandwidth.
// Reference: src/ops/attention.rs on the CPU; bitwise identical to attention.cu.
// Benchmark: `omr bench "attention fwd"`.
// registers attention_window_fwd_hd16 <= 128
// registers attention_window_fwd_hd32 <= 128
// registers attention_window_fwd_hd64 <= 128
// registers attention_window_fwd_hd80 <= 128
// registers attention_window_fwd_hd128 <= 168
#include "common/attend.cuh"

namespace attention_window {

// Largest number of tokens in a window, and number of rows of a CTA.
constexpr int WINDOW = 64;

struct Args {
    const bf16* qkv;
    const uint32_t* cu_seqlens;
    bf16* out;
    float* lse;
    int q_heads, kv_heads, dim;
    int wide;  // 1 if dim is a multiple of 8, and qkv and out start at multiples of 16 bytes
    float scale_log2e;
    int padding;
};

template <int HD>
struct Smem {
    // Queries. Later each warp overwrites its own rows with the outputs.
    isa::Shared<bf16> q[WINDOW * attend::PITCH<HD>];
    isa::Shared<bf16> k[WINDOW * attend::PITCH<HD>];
    isa::Shared<bf16> v[WINDOW * attend::PITCH<HD>];
};

template <int HD>
__device__ __forceinline__ void run(const Args& args) {
    auto& smem = isa::smem<Smem<HD>>();
    int group = args.q_heads / args.kv_heads, head = blockIdx.x;
    int s = blockIdx.y / group;
    int start = args.cu_seqlens[s], tokens = (int)args.cu_seqlens[s + 1] - start;
    attend::Rows rows = attend::packed_rows(args, start, head, group);
    rows.lse = args.lse + (int64_t)start * args.q_heads + head * group;
    rows.lse_stride = args.q_heads;
    rows.from = (int)(blockIdx.y % group) * WINDOW;
    rows.to = min(rows.from + WINDOW, tokens * group);
    if (rows.from >= rows.to) {
        return;
    }
    rows.first = tokens;
    rows.step = 0;

    const bf16* k = args.qkv + start * rows.q_stride + (args.q_heads + head) * args.dim;
    attend::KeyRows keys{k, rows.q_stride}, values{k + args.kv_heads * args.dim, rows.q_stride};
    attend::copy_rows<HD, WINDOW>(smem.q, attend::QueryRows{rows}, rows.to - rows.from, rows.dim, rows.wide);
    attend::copy_rows<HD, WINDOW>(smem.k, keys, tokens, rows.dim, rows.wide);
    isa::cp_async_commit();
    attend::copy_rows<HD, WINDOW>(smem.v, values, tokens, rows.dim, rows.wide);
    isa::cp_async_commit();

    int from = rows.from + attend::warp() * attend::WARP_ROWS;
    bool active = from < rows.to;
    isa::Shared<bf16>* mine = smem.q + attend::warp() * attend::WARP_ROWS * attend::PITCH<HD>;
    attend::State<isa::Acc[HD / 8]> state;
    state.reset();
    isa::Frag<4> p[WINDOW / 16];
    isa::cp_async_wait<1>();
    isa::sync_cta();
    if (active) {
        attend::VisibleKeys visible_keys(rows, from);
        isa::Frag<4> q[HD / 16];
        isa::Acc s[WINDOW / 8];
        float most[2], alpha[2], sum[2];
        attend::load_queries<HD>(q, mine);
        attend::scores<HD>(s, q, smem.k);
        attend::mask_and_max(s, visible_keys.least < WINDOW, visible_keys.keys, most);
        state.raise(most, rows.scale_log2e, alpha);
        attend::probabilities(s, rows.scale_log2e, state.m, visible_keys.keys, sum);
        tile::round(p, s);
        state.l[0] = tile::quad_sum(sum[0]);
        state.l[1] = tile::quad_sum(sum[1]);
    }
    isa::cp_async_wait<0>();
    isa::sync_cta();
    if (active) {
        state.template weigh<HD>(p, smem.v, 0);
        state.template stage<HD>(mine, 0);
    }
    isa::sync_warp();
    attend::write_rows<HD>(rows, mine, from, rows.to, attend::lane(), attend::WARP);
    state.write_lse(rows, from);
}
}  // namespace attention_window

KERNEL(attention_window_fwd_hd16, attention_window::Args, attend::THREADS, 4) { attention_window::run<16>(args); }
KERNEL(attention_window_fwd_hd32, attention_window::Args, attend::THREADS, 4) { attention_window::run<32>(args); }
KERNEL(attention_window_fwd_hd64, attention_window::Args, attend::THREADS, 4) { attention_window::run<64>(args); }
KERNEL(attention_window_fwd_hd80, attention_window::Args, attend::THREADS, 4) { attention_window::run<80>(args); }
KERNEL(attention_window_fwd_hd128, attention_window::Args, attend::THREADS, 3) { attention_window::run<128>(args); }
