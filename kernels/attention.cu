// Attention over packed sequences, causal or full, grouped query heads: out = softmax(scale q k^T) v and log-sum-exp.
// qkv [T, (q + 2 kv) dim] bf16, cu_seqlens [S + 1] u32, out [T, q dim] bf16, lse [T, q] f32; dim even, at most HD.
// Grid (slots, kv heads): 64 rows (token, head of the group) of one sequence, last ones first; 4 warps, 16 rows each.
// Bound by mma.sync: 4 rows keys dim flops (half of it under a causal mask); floor at the sm_80 tensor rate.
// Reference: src/ops/attention.rs on the CPU; bench: omr bench, attention fwd.
// registers attention_fwd_hd16 <= 168
// registers attention_fwd_hd32 <= 255
// registers attention_fwd_hd64 <= 255
// registers attention_fwd_hd80 <= 255
// registers attention_fwd_hd128 <= 255
#include "common/attend_tile.cuh"

namespace attention {

struct Args {
    const bf16* qkv;
    const uint32_t* cu_seqlens;
    bf16* out;
    float* lse;
    int sequences, q_heads, kv_heads, dim;
    int causal;
    int wide;  // dim is a multiple of 8 and qkv and out start at 16 bytes
    float scale_log2e;
    int padding;
};

struct PackedKeys {
    const bf16* k;
    const bf16* v;
    int64_t stride;

    __device__ __forceinline__ attend::Keys block(int b) const {
        int64_t offset = b * attend::BLOCK * stride;
        return {k + offset, v + offset};
    }
};

template <int HD>
__device__ __forceinline__ void run(const Args& args) {
    int group = args.q_heads / args.kv_heads, tile;
    // Under a causal mask the last tiles of a sequence are the longest.
    int slot = gridDim.x - 1 - blockIdx.x;
    int s = attend::sequence_of<attend::TILE_ROWS>(slot, args.cu_seqlens, args.sequences, group, tile);
    int start = args.cu_seqlens[s], tokens = (int)args.cu_seqlens[s + 1] - start;
    int from = tile * attend::TILE_ROWS;
    if (from >= tokens * group) {
        return;
    }
    int head = blockIdx.y;
    attend::Rows rows = attend::packed_rows(args, start, head, group);
    rows.lse = args.lse + (int64_t)start * args.q_heads + head * group;
    rows.lse_stride = args.q_heads;
    rows.from = from;
    rows.to = min(from + attend::TILE_ROWS, tokens * group);
    rows.first = args.causal ? 1 : tokens;
    rows.step = args.causal ? 1 : 0;
    const bf16* k = args.qkv + start * rows.q_stride + (args.q_heads + head) * args.dim;
    attend::attend_rows<HD>(rows, PackedKeys{k, k + args.kv_heads * args.dim, rows.q_stride});
}
}  // namespace attention

KERNEL(attention_fwd_hd16, attention::Args, attend::THREADS, 2) { attention::run<16>(args); }
KERNEL(attention_fwd_hd32, attention::Args, attend::THREADS, 2) { attention::run<32>(args); }
KERNEL(attention_fwd_hd64, attention::Args, attend::THREADS, 2) { attention::run<64>(args); }
KERNEL(attention_fwd_hd80, attention::Args, attend::THREADS, 2) { attention::run<80>(args); }
KERNEL(attention_fwd_hd128, attention::Args, attend::THREADS, 2) { attention::run<128>(args); }
