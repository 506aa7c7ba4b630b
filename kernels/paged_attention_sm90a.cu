// Prefill and decode over the pages of a cache on compute capability 9.0: paged_attention.cu by wgmma, a page a box of TMA.
// As in paged_attention.cu; dim is HD, all rows start at 16 bytes. k and v by tensor maps [blocks kv, 128, dim].
// CTA: persistent, tiles of common/attend_sm90a.cuh in turn; two math warpgroups of 64 rows, one that copies.
// Prefill is bound by the tensor cores, 4 rows keys dim flops; decode by memory, 128 KB of which are on their way at HD 128.
// Reference: attention_sm90a.cu and paged_attention.cu; tests/kernels/attention_sm90a.rs; bench: omr bench, paged_attention.
#include "common/attend_sm90a.cuh"

namespace paged_attention_sm90a {

// The page of a key head.
template <class Args>
__device__ __forceinline__ attend::Box page_of(const Args& args, const uint32_t* table, int head, int block) {
    return {0, (int)table[block] * args.kv_heads + head};
}

struct Prefill {
    static constexpr bool TURNS = true;
    using Args = attend::WideArgs<attend::PagedArgs>;
    const Args& args;

    __device__ __forceinline__ int items() const { return args.slots * args.in.kv_heads; }
    __device__ __forceinline__ int cleared() const { return args.tile_rows; }
    __device__ __forceinline__ attend::WideTile tile(int i) const { return attend::tile_of(args, i); }
    __device__ __forceinline__ attend::Box keys(const attend::WideTile& tile, int block) const {
        const uint32_t* table = args.in.block_tables + (int64_t)tile.place.sequence * args.in.columns;
        return page_of(args.in, table, tile.head, block);
    }
    __device__ __forceinline__ attend::Box values(const attend::WideTile& tile, int block) const {
        return keys(tile, block);
    }
};

// Each item is mostly done by one warpgroup alone, and the memory is what it waits for.
struct Decode {
    static constexpr bool TURNS = false;
    using Args = attend::WideItemArgs;
    const Args& args;

    __device__ __forceinline__ int items() const { return attend::count_of(args.in) * args.in.kv_heads; }
    // Rows behind a token's heads are no one's, and stay zeros.
    __device__ __forceinline__ int cleared() const { return 0; }
    __device__ __forceinline__ attend::Item tile(int i) const {
        // A token begins where a pattern of the swizzle does, and where a warp's rows do if it has more than half of them.
        int kv_heads = args.in.kv_heads, group = args.in.q_heads / kv_heads;
        return attend::Item(args.in, i / kv_heads, i % kv_heads, group > 8 ? (group + 15) / 16 * 16 : 8);
    }
    __device__ __forceinline__ attend::Box keys(const attend::Item& item, int block) const {
        return page_of(args.in, item.table(), item.head, block);
    }
    __device__ __forceinline__ attend::Box values(const attend::Item& item, int block) const { return keys(item, block); }
};
}  // namespace paged_attention_sm90a

// registers paged_attention_prefill_wide_hd80 <= 168
// registers paged_attention_prefill_wide_hd128 <= 168
// registers paged_attention_decode_wide_hd80 <= 168
// registers paged_attention_decode_wide_hd128 <= 168
// instructions paged_attention_*_wide_*: HGMMA UTMALDG USETMAXREG
// main loop paged_attention_prefill_wide_hd80: 13 HGMMA over 66 MUFU
// main loop paged_attention_prefill_wide_hd128: 16 HGMMA over 66 MUFU
// main loop paged_attention_decode_wide_hd80: 13 HGMMA over 66 MUFU
// main loop paged_attention_decode_wide_hd128: 16 HGMMA over 66 MUFU
KERNEL_SM90A(paged_attention_prefill_wide_hd80, paged_attention_sm90a::Prefill::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<80>(paged_attention_sm90a::Prefill{args});
}
KERNEL_SM90A(paged_attention_prefill_wide_hd128, paged_attention_sm90a::Prefill::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<128>(paged_attention_sm90a::Prefill{args});
}
KERNEL_SM90A(paged_attention_decode_wide_hd80, paged_attention_sm90a::Decode::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<80>(paged_attention_sm90a::Decode{args});
}
KERNEL_SM90A(paged_attention_decode_wide_hd128, paged_attention_sm90a::Decode::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<128>(paged_attention_sm90a::Decode{args});
}
