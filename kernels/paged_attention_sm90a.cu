// Prefill and decode over the pages of a KV cache for compute capability 9.0: paged_attention.cu with wgmma. One TMA
// box is one page.
// Shapes: as in paged_attention.cu. dim is HD and all rows start at multiples of 16 bytes. k and v are read through
// tensor maps of shape [blocks * kv, 128, dim].
// Grid: persistent CTAs, which loop over the tiles of common/attend_sm90a.cuh. Two math warpgroups with 64 rows each,
// and one producer warpgroup.
// Bound: prefill by the tensor cores, 4 * rows * keys * dim flops; decode by memory, with 128 KB in flight at HD 128.
// Reference: attention_sm90a.cu and paged_attention.cu; tests/runtime/kernels/attention_sm90a.rs.
// Benchmark: `omr bench paged_attention`.
#include "common/attend_sm90a.cuh"

namespace paged_attention_sm90a {

// Returns the box of a key head's page for key block `block`.
template <class Args>
__device__ __forceinline__ attend::Box page_of(const Args& args, const uint32_t* table, int head, int block) {
    return {0, (int)table[block] * args.kv_heads + head};
}

struct Prefill {
    static constexpr bool TURNS = true;
    using Args = attend::WideArgs<attend::PagedArgs>;
    const Args& args;

    __device__ __forceinline__ int items() const { return args.slots * args.in.kv_heads; }
    __device__ __forceinline__ int next(int) const { return attend::take_item(args.counter); }
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

// Decode does not alternate warpgroups: one of them does most of an item alone, and it waits for memory, not for the
// tensor cores.
struct Decode {
    static constexpr bool TURNS = false;
    using Args = attend::WideItemArgs;
    const Args& args;

    __device__ __forceinline__ int items() const { return attend::count_of(args.in) * args.in.kv_heads; }
    __device__ __forceinline__ int next(int i) const { return i + gridDim.x; }
    // Returns the first query row that is cleared at the start. All rows are cleared, because the rows beyond the heads
    // of a token are never loaded and must be zero.
    __device__ __forceinline__ int cleared() const { return 0; }
    __device__ __forceinline__ attend::Item tile(int i) const {
        // Rows per token: 8, which is the period of the swizzle pattern, or a multiple of a warp's 16 rows if the group
        // has more than 8 heads.
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
