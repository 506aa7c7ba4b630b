// Prefill over the pages of a cache on compute capability 9.0: that of paged_attention.cu by wgmma, a page a box of TMA.
// As in paged_attention.cu; dim is HD, all rows start at 16 bytes. k and v by tensor maps [blocks kv, 128, dim].
// CTA: persistent, tiles of common/attend_sm90a.cuh in turn; two math warpgroups of 64 rows, one that copies.
// Bound by the tensor cores: 4 rows keys dim flops.
// Reference: attention_sm90a.cu and paged_attention.cu; tests/kernels/attention_sm90a.rs; bench: omr bench, paged_attention.
#include "common/attend_sm90a.cuh"

namespace paged_attention_sm90a {

using Args = attend::WideArgs<attend::PagedArgs>;

struct Call {
    const Args& args;

    __device__ __forceinline__ bool tile(int slot, attend::WideTile& tile) const {
        return attend::place_of(args.in, slot, tile.head, args.tile_rows, tile.place);
    }
    // The page of a key head.
    __device__ __forceinline__ attend::Box keys(const attend::WideTile& tile, int block) const {
        uint32_t page = args.in.block_tables[(int64_t)tile.place.sequence * args.in.columns + block];
        return {0, (int)page * args.in.kv_heads + tile.head};
    }
    __device__ __forceinline__ attend::Box values(const attend::WideTile& tile, int block) const {
        return keys(tile, block);
    }
};
}  // namespace paged_attention_sm90a

// registers paged_attention_prefill_wide_hd80 <= 168
// registers paged_attention_prefill_wide_hd128 <= 168
// instructions paged_attention_prefill_wide_*: HGMMA UTMALDG USETMAXREG
// main loop paged_attention_prefill_wide_hd80: 13 HGMMA over 66 MUFU
// main loop paged_attention_prefill_wide_hd128: 16 HGMMA over 66 MUFU
KERNEL_SM90A(paged_attention_prefill_wide_hd80, paged_attention_sm90a::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<80>(paged_attention_sm90a::Call{args});
}
KERNEL_SM90A(paged_attention_prefill_wide_hd128, paged_attention_sm90a::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<128>(paged_attention_sm90a::Call{args});
}
