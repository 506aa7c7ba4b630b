// Causal attention of new tokens to the keys of a paged cache, grouped query heads: out = softmax(scale q k^T) v in bf16.
// qkv [T, (q + 2 kv) dim] (q is read), k and v [blocks, kv, 128, dim], block_tables [S, columns], out [T, q dim]; even dim.
// Grid (slots, kv heads): 64 (prefill) or 16 (decode) rows (token, head of the group); 4 warps, 16 rows each or sharing 16.
// Decode is bound by memory, 4 dim bytes a key and kv head at the copy bandwidth; prefill by mma.sync, as attention.cu.
// Reference: src/ops/paged_attention.rs on the CPU, attention.cu to the bit; bench: omr bench, paged_attention fwd.
// registers paged_attention_prefill_hd16 <= 168
// registers paged_attention_prefill_hd32 <= 255
// registers paged_attention_prefill_hd64 <= 255
// registers paged_attention_prefill_hd80 <= 255
// registers paged_attention_prefill_hd128 <= 255
// registers paged_attention_decode_hd16 <= 128
// registers paged_attention_decode_hd32 <= 128
// registers paged_attention_decode_hd64 <= 168
// registers paged_attention_decode_hd80 <= 168
// registers paged_attention_decode_hd128 <= 168
#include "common/attend_tile.cuh"

namespace paged_attention {

struct Args {
    const bf16* qkv;
    const bf16* k;
    const bf16* v;
    const uint32_t* block_tables;
    const uint32_t* cu_seqlens_q;
    const uint32_t* context_lens;
    bf16* out;
    int sequences, columns;
    int q_heads, kv_heads, dim;
    int wide;  // dim is a multiple of 8 and qkv, k, v and out start at 16 bytes
    float scale_log2e;
    int padding;
};

struct CachedKeys {
    const bf16* k;
    const bf16* v;
    const uint32_t* table;
    int64_t stride, page;
    int64_t head;

    __device__ __forceinline__ attend::Keys block(int b) const {
        int64_t offset = table[b] * page + head;
        return {k + offset, v + offset};
    }
};

template <int ROWS, class Attend>
__device__ __forceinline__ void run(const Args& args, const Attend& attend_tile) {
    int group = args.q_heads / args.kv_heads, tile;
    // Under the causal mask the last tiles of a sequence are the longest.
    int slot = gridDim.x - 1 - blockIdx.x;
    int s = attend::sequence_of<ROWS>(slot, args.cu_seqlens_q, args.sequences, group, tile);
    int start = args.cu_seqlens_q[s], tokens = (int)args.cu_seqlens_q[s + 1] - start;
    int from = tile * ROWS;
    if (from >= tokens * group) {
        return;
    }
    int head = blockIdx.y;
    attend::Rows rows = attend::packed_rows(args, start, head, group);
    rows.from = from;
    rows.to = min(from + ROWS, tokens * group);
    rows.first = (int)args.context_lens[s] - tokens + 1;
    rows.step = 1;
    int64_t page = (int64_t)args.kv_heads * attend::BLOCK * args.dim;
    const uint32_t* table = args.block_tables + (int64_t)s * args.columns;
    attend_tile(rows, CachedKeys{args.k, args.v, table, args.dim, page, head * attend::BLOCK * (int64_t)args.dim});
}

template <int HD>
struct Prefill {
    __device__ __forceinline__ void operator()(const attend::Rows& rows, const CachedKeys& keys) const {
        attend::attend_rows<HD>(rows, keys);
    }
};

template <int HD>
struct Decode {
    __device__ __forceinline__ void operator()(const attend::Rows& rows, const CachedKeys& keys) const {
        attend::attend_together<HD>(rows, keys);
    }
};

template <int HD>
__device__ __forceinline__ void prefill(const Args& args) {
    run<attend::TILE_ROWS>(args, Prefill<HD>{});
}

template <int HD>
__device__ __forceinline__ void decode(const Args& args) {
    run<attend::WARP_ROWS>(args, Decode<HD>{});
}
}  // namespace paged_attention

KERNEL(paged_attention_prefill_hd16, paged_attention::Args, attend::THREADS, 2) { paged_attention::prefill<16>(args); }
KERNEL(paged_attention_prefill_hd32, paged_attention::Args, attend::THREADS, 2) { paged_attention::prefill<32>(args); }
KERNEL(paged_attention_prefill_hd64, paged_attention::Args, attend::THREADS, 2) { paged_attention::prefill<64>(args); }
KERNEL(paged_attention_prefill_hd80, paged_attention::Args, attend::THREADS, 2) { paged_attention::prefill<80>(args); }
KERNEL(paged_attention_prefill_hd128, paged_attention::Args, attend::THREADS, 2) { paged_attention::prefill<128>(args); }
KERNEL(paged_attention_decode_hd16, paged_attention::Args, attend::THREADS, 4) { paged_attention::decode<16>(args); }
KERNEL(paged_attention_decode_hd32, paged_attention::Args, attend::THREADS, 4) { paged_attention::decode<32>(args); }
KERNEL(paged_attention_decode_hd64, paged_attention::Args, attend::THREADS, 3) { paged_attention::decode<64>(args); }
KERNEL(paged_attention_decode_hd80, paged_attention::Args, attend::THREADS, 3) { paged_attention::decode<80>(args); }
KERNEL(paged_attention_decode_hd128, paged_attention::Args, attend::THREADS, 2) { paged_attention::decode<128>(args); }
