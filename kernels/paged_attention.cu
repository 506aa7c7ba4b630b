// Causal attention of new tokens to the keys of a paged KV cache, with grouped query heads: out = softmax(scale q k^T)
// v in bf16.
// Shapes: qkv [T, (q + 2 kv) * dim], of which q is read, k and v [blocks, kv, 128, dim], block_tables [S, columns], out
// [T, q * dim]; lse [T, q] f32 in prefill, if requested; dim is even.
// Grid of prefill: (slots, kv heads), 4 warps with 16 rows each. A CTA computes 64 rows (token, head of the group).
// Grid of decode (one new token per sequence): (CTAs, kv heads). A CTA loops over items of 16 rows and the keys of one
// chunk, which its warps share (common/attend_item.cuh).
// Bound: decode by memory, 4 * dim bytes per key and kv head at the copy bandwidth; prefill by mma.sync, as
// attention.cu.
// Reference: src/runtime/ops/paged_attention/mod.rs on the CPU; bitwise identical to attention.cu.
// Benchmark: `omr bench "paged_attention fwd"`.
// registers paged_attention_prefill_hd16 <= 168, stack 48
// registers paged_attention_prefill_hd32 <= 255, stack 80
// registers paged_attention_prefill_hd64 <= 255, stack 144
// registers paged_attention_prefill_hd80 <= 255, stack 176
// registers paged_attention_prefill_hd128 <= 255, stack 272
// registers paged_attention_decode_hd16 <= 128
// registers paged_attention_decode_hd32 <= 128
// registers paged_attention_decode_hd64 <= 168
// registers paged_attention_decode_hd80 <= 168
// registers paged_attention_decode_hd128 <= 168
#include "common/attend_calls.cuh"
#include "common/attend_tile.cuh"

namespace paged_attention {

// Pages of one sequence and one key head.
struct CachedKeys {
    const bf16* k;
    const bf16* v;
    const uint32_t* table;
    int64_t stride, page, head;

    template <class Args>
    __device__ __forceinline__ CachedKeys(const Args& args, const uint32_t* table, int at)
        : k(args.k), v(args.v), table(table), stride(args.dim), page(args.kv_heads * attend::BLOCK * stride),
          head(at * attend::BLOCK * stride) {}
    __device__ __forceinline__ attend::Keys block(int b) const {
        int64_t offset = table[b] * page + head;
        return {k + offset, v + offset};
    }
};

template <int HD>
__device__ __forceinline__ void prefill(const attend::PagedArgs& args) {
    // Under the causal mask the last tiles of a sequence have the most keys, so they start first.
    int slot = gridDim.x - 1 - blockIdx.x, head = blockIdx.y;
    attend::Place place;
    if (attend::place_of(args, slot, head, attend::TILE_ROWS, place)) {
        const uint32_t* table = args.block_tables + (int64_t)place.sequence * args.columns;
        attend::attend_rows<HD>(place.rows, CachedKeys(args, table, head));
    }
}

template <int HD>
__device__ __forceinline__ void decode(const attend::DecodeArgs& args) {
    int head = blockIdx.y % args.kv_heads, from = blockIdx.y / args.kv_heads * attend::WARP_ROWS;
    int count = attend::count_of(args);
    for (int i = blockIdx.x; i < count; i += gridDim.x) {
        attend::Item item(args, i, head, args.q_heads / args.kv_heads);
        if (from < item.tokens * item.group) {
            attend::attend_together<HD>(item, from, CachedKeys(args, item.table(), head));
        }
    }
}
}  // namespace paged_attention

KERNEL(paged_attention_prefill_hd16, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<16>(args); }
KERNEL(paged_attention_prefill_hd32, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<32>(args); }
KERNEL(paged_attention_prefill_hd64, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<64>(args); }
KERNEL(paged_attention_prefill_hd80, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<80>(args); }
KERNEL(paged_attention_prefill_hd128, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<128>(args); }
KERNEL(paged_attention_decode_hd16, attend::DecodeArgs, attend::THREADS, 4) { paged_attention::decode<16>(args); }
KERNEL(paged_attention_decode_hd32, attend::DecodeArgs, attend::THREADS, 4) { paged_attention::decode<32>(args); }
KERNEL(paged_attention_decode_hd64, attend::DecodeArgs, attend::THREADS, 3) { paged_attention::decode<64>(args); }
KERNEL(paged_attention_decode_hd80, attend::DecodeArgs, attend::THREADS, 3) { paged_attention::decode<80>(args); }
KERNEL(paged_attention_decode_hd128, attend::DecodeArgs, attend::THREADS, 2) { paged_attention::decode<128>(args); }
