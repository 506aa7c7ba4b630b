// Stores the k and v heads of new tokens in the pages of a KV cache.
// Shapes: qkv [sources, width] bf16, whose kv part starts at column `skip` (k heads, then v heads); slots [rows] u32 =
// block * 128 + position; from [rows] u32, the row of qkv for each slot, or null for row i in slot i; k, v
// [blocks][heads][128][dim]. A slot past the cache or a row past qkv stores nothing. Slots must be distinct.
// Grid: a thread moves 8 elements if dim % 8 == 0 (kv_store_vectors), else one (kv_store_elements).
// Bound: memory.
// Reference: src/runtime/ops/paged_attention/mod.rs (store).
// Benchmark: `omr bench kv_cache`.
#include "isa/isa.cuh"

namespace kv_cache {

struct Args {
    const bf16* qkv;
    const uint32_t* from;
    const uint32_t* slots;
    bf16* k;
    bf16* v;
    int rows, width, skip, heads, dim;
    uint32_t blocks, sources;
    int padding;
};

constexpr int THREADS = 256;
constexpr uint32_t BLOCK = 128;

struct Place {
    const bf16* from;
    bf16* to;
};

// Returns the source and destination of the thread's `count` elements; `to` is null if it has none.
__device__ __forceinline__ Place place(const Args& args, uint32_t count) {
    uint32_t each = args.dim / count;
    uint32_t in_row = 2 * args.heads * each;
    uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    uint32_t row = at / in_row;
    if (row >= (uint32_t)args.rows) return Place{nullptr, nullptr};
    uint32_t slot = args.slots[row];
    uint32_t block = slot / BLOCK;
    if (block >= args.blocks) return Place{nullptr, nullptr};
    uint32_t source = args.from == nullptr ? row : args.from[row];
    if (source >= args.sources) return Place{nullptr, nullptr};
    uint32_t column = at % in_row * count;
    uint32_t head = column / args.dim;
    bool key = head < (uint32_t)args.heads;
    uint32_t kv_head = key ? head : head - args.heads;
    int64_t cell = ((int64_t)block * args.heads + kv_head) * BLOCK + slot % BLOCK;
    bf16* pages = key ? args.k : args.v;
    return Place{args.qkv + (int64_t)source * args.width + args.skip + column, pages + cell * args.dim + column % args.dim};
}

}  // namespace kv_cache

KERNEL(kv_store_vectors, kv_cache::Args, kv_cache::THREADS, 4) {
    kv_cache::Place at = kv_cache::place(args, 8);
    if (at.to != nullptr) isa::store<uint4>(at.to, isa::load<uint4>(at.from));
}

KERNEL(kv_store_elements, kv_cache::Args, kv_cache::THREADS, 4) {
    kv_cache::Place at = kv_cache::place(args, 1);
    if (at.to != nullptr) at.to[0] = at.from[0];
}
