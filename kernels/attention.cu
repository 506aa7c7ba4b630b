// Attention over packed sequences, causal or full, with grouped query heads: out = softmax(scale q k^T) v, and its
// log-sum-exp.
// Shapes: qkv [T, (q + 2 kv) * dim] bf16, cu_seqlens [S + 1] u32, out [T, q * dim] bf16, lse [T, q] f32; dim is even
// and at most HD.
// Grid: (slots, kv heads), 4 warps with 16 rows each. attend::sequence_of maps a slot to a sequence and a tile. A CTA
// computes a tile of 64 rows (token, head of the group). The last tiles of a sequence start first.
// Bound: mma.sync. 4 * rows * keys * dim flops (half of it under a causal mask); the floor is the sm_80 tensor core
// rate.
// Reference: src/runtime/ops/attention/mod.rs on the CPU.
// Benchmark: `omr bench "attention fwd"`.
// registers attention_fwd_hd16 <= 168, stack 48
// registers attention_fwd_hd32 <= 255, stack 80
// registers attention_fwd_hd64 <= 255, stack 144
// registers attention_fwd_hd80 <= 255, stack 176
// registers attention_fwd_hd128 <= 255, stack 272
#include "common/attend_calls.cuh"
#include "common/attend_tile.cuh"

namespace attention {

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
__device__ __forceinline__ void run(const attend::PackedArgs& args) {
    // Under a causal mask the last tiles of a sequence have the most keys, so they start first.
    int slot = gridDim.x - 1 - blockIdx.x, head = blockIdx.y;
    attend::Place place;
    if (!attend::place_of(args, slot, head, attend::TILE_ROWS, place)) {
        return;
    }
    int64_t stride = place.rows.q_stride;
    const bf16* k = args.qkv + place.start * stride + (args.q_heads + head) * args.dim;
    attend::attend_rows<HD>(place.rows, PackedKeys{k, k + args.kv_heads * args.dim, stride});
}
}  // namespace attention

KERNEL(attention_fwd_hd16, attend::PackedArgs, attend::THREADS, 2) { attention::run<16>(args); }
KERNEL(attention_fwd_hd32, attend::PackedArgs, attend::THREADS, 2) { attention::run<32>(args); }
KERNEL(attention_fwd_hd64, attend::PackedArgs, attend::THREADS, 2) { attention::run<64>(args); }
KERNEL(attention_fwd_hd80, attend::PackedArgs, attend::THREADS, 2) { attention::run<80>(args); }
KERNEL(attention_fwd_hd128, attend::PackedArgs, attend::THREADS, 2) { attention::run<128>(args); }
