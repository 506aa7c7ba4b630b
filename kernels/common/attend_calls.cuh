// Arguments of attention over packed sequences and over the pages of a KV cache, and the tile of rows that belongs to a
// slot of the grid. Both kernel variants use them.
#pragma once

#include "common/attend.cuh"

namespace attend {

struct PackedArgs {
    const bf16* qkv;
    const uint32_t* cu_seqlens;
    bf16* out;
    float* lse;
    int sequences, q_heads, kv_heads, dim;
    int causal;
    int wide;  // 1 if dim is a multiple of 8, and qkv and out start at multiples of 16 bytes
    float scale_log2e;
    int padding;
};

struct PagedArgs {
    const bf16* qkv;
    const bf16* k;
    const bf16* v;
    const uint32_t* block_tables;
    const uint32_t* cu_seqlens_q;
    const uint32_t* context_lens;
    bf16* out;
    float* lse;  // null if the log-sum-exps are not requested
    int sequences, columns;
    int q_heads, kv_heads, dim;
    int wide;  // 1 if dim is a multiple of 8, and qkv, k, v and out start at multiples of 16 bytes
    float scale_log2e;
    int padding;
};

// A tile: its rows, the number of its sequence, the sequence's first token among all new tokens, and its number of
// keys.
struct Place {
    Rows rows;
    int sequence, start, keys;
};

// Finds the tile of `size` rows that belongs to slot `slot`, for key head `head`. Returns false if the slot has no
// rows.
template <class Args>
__device__ __forceinline__ bool rows_of(const Args& args, const uint32_t* cu, int slot, int head, int size, Place& place) {
    int group = args.q_heads / args.kv_heads, tile;
    place.sequence = sequence_of(slot, cu, args.sequences, group, size, tile);
    place.start = cu[place.sequence];
    int end = ((int)cu[place.sequence + 1] - place.start) * group;
    place.rows = packed_rows(args, place.start, head, group);
    place.rows.from = tile * size;
    place.rows.to = min(place.rows.from + size, end);
    return place.rows.from < end;
}

__device__ __forceinline__ bool place_of(const PackedArgs& args, int slot, int head, int size, Place& place) {
    bool any = rows_of(args, args.cu_seqlens, slot, head, size, place);
    Rows& rows = place.rows;
    place.keys = (int)args.cu_seqlens[place.sequence + 1] - place.start;
    rows.lse = args.lse + (int64_t)place.start * args.q_heads + head * rows.group;
    rows.lse_stride = args.q_heads;
    rows.first = args.causal ? 1 : place.keys;
    rows.step = args.causal ? 1 : 0;
    return any;
}

__device__ __forceinline__ bool place_of(const PagedArgs& args, int slot, int head, int size, Place& place) {
    bool any = rows_of(args, args.cu_seqlens_q, slot, head, size, place);
    place.keys = args.context_lens[place.sequence];
    int tokens = (int)args.cu_seqlens_q[place.sequence + 1] - place.start;
    Rows& rows = place.rows;
    rows.lse = args.lse == nullptr ? nullptr : args.lse + (int64_t)place.start * args.q_heads + head * rows.group;
    rows.lse_stride = args.q_heads;
    rows.first = place.keys - tokens + 1;
    rows.step = 1;
    return any;
}
}  // namespace attend
