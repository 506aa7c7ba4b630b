// Attention over packed sequences for compute capability 9.0: attention.cu with wgmma, and with operands loaded by TMA.
// Shapes: as in attention.cu. dim is HD and rows of qkv start at multiples of 16 bytes. qkv is read through tensor
// maps, whose second dimension is the heads.
// Grid: persistent CTAs, which loop over the tiles of common/attend_sm90a.cuh. Two math warpgroups with 64 rows each,
// and one producer warpgroup.
// Bound: tensor cores. 4 * rows * keys * dim flops (half of it under a causal mask).
// Reference: attention.cu and src/runtime/ops/attention/mod.rs; tests/runtime/kernels/attention_sm90a.rs.
// Benchmark: `omr bench "attention fwd"`.
#include "common/attend_sm90a.cuh"

namespace attention_sm90a {

using Args = attend::WideArgs<attend::PackedArgs>;

struct Call {
    static constexpr bool TURNS = true;
    const Args& args;

    __device__ __forceinline__ int items() const { return args.slots * args.in.kv_heads; }
    __device__ __forceinline__ int next(int) const { return attend::take_item(args.counter); }
    __device__ __forceinline__ int cleared() const { return args.tile_rows; }
    __device__ __forceinline__ attend::WideTile tile(int i) const { return attend::tile_of(args, i); }
    // Returns the box of a key block: the key head within a row of qkv, and the first token of the block.
    __device__ __forceinline__ attend::Box keys(const attend::WideTile& tile, int block) const {
        return {args.in.q_heads + tile.head, tile.place.start + block * attend::BLOCK};
    }
    __device__ __forceinline__ attend::Box values(const attend::WideTile& tile, int block) const {
        return {args.in.q_heads + args.in.kv_heads + tile.head, tile.place.start + block * attend::BLOCK};
    }
};
}  // namespace attention_sm90a

// registers attention_fwd_wide_hd80 <= 168
// registers attention_fwd_wide_hd128 <= 168
// instructions attention_fwd_wide_*: HGMMA UTMALDG USETMAXREG
// main loop attention_fwd_wide_hd80: 13 HGMMA over 66 MUFU
// main loop attention_fwd_wide_hd128: 16 HGMMA over 66 MUFU
KERNEL_SM90A(attention_fwd_wide_hd80, attention_sm90a::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<80>(attention_sm90a::Call{args});
}
KERNEL_SM90A(attention_fwd_wide_hd128, attention_sm90a::Args, attend::WIDE_THREADS, 1) {
    attend::attend_wide<128>(attention_sm90a::Call{args});
}
