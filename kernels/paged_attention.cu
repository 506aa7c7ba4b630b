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
#include "common/attend_calls.cuh"
#include "common/attend_tile.cuh"

namespace paged_attention {

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
__device__ __forceinline__ void run(const attend::PagedArgs& args, const Attend& attend_tile) {
    // Under the causal mask the last tiles of a sequence are the longest.
    int slot = gridDim.x - 1 - blockIdx.x, head = blockIdx.y;
    attend::Place place;
    if (!attend::place_of(args, slot, head, ROWS, place)) {
        return;
    }
    int64_t page = (int64_t)args.kv_heads * attend::BLOCK * args.dim;
    const uint32_t* table = args.block_tables + (int64_t)place.sequence * args.columns;
    attend_tile(place.rows, CachedKeys{args.k, args.v, table, args.dim, page, head * attend::BLOCK * (int64_t)args.dim});
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
__device__ __forceinline__ void prefill(const attend::PagedArgs& args) {
    run<attend::TILE_ROWS>(args, Prefill<HD>{});
}

template <int HD>
__device__ __forceinline__ void decode(const attend::PagedArgs& args) {
    run<attend::WARP_ROWS>(args, Decode<HD>{});
}
}  // namespace paged_attention

KERNEL(paged_attention_prefill_hd16, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<16>(args); }
KERNEL(paged_attention_prefill_hd32, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<32>(args); }
KERNEL(paged_attention_prefill_hd64, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<64>(args); }
KERNEL(paged_attention_prefill_hd80, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<80>(args); }
KERNEL(paged_attention_prefill_hd128, attend::PagedArgs, attend::THREADS, 2) { paged_attention::prefill<128>(args); }
KERNEL(paged_attention_decode_hd16, attend::PagedArgs, attend::THREADS, 4) { paged_attention::decode<16>(args); }
KERNEL(paged_attention_decode_hd32, attend::PagedArgs, attend::THREADS, 4) { paged_attention::decode<32>(args); }
KERNEL(paged_attention_decode_hd64, attend::PagedArgs, attend::THREADS, 3) { paged_attention::decode<64>(args); }
KERNEL(paged_attention_decode_hd80, attend::PagedArgs, attend::THREADS, 3) { paged_attention::decode<80>(args); }
KERNEL(paged_attention_decode_hd128, attend::PagedArgs, attend::THREADS, 2) { paged_attention::decode<128>(args); }
