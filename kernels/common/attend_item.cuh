// Work items of decode attention, which fill the GPU even with few sequences. An item is one of:
// - own item: the rows of a sequence's single new token with one chunk of its keys.
// - shared item: the rows of several sequences with one chunk of a key prefix that they have in common. The state of a
// row goes through global memory in two cases. If a sequence has several own items, the last of them to arrive folds
// the states of all chunks. A shared item passes its states to the own items that continue the same chunk.
// src/runtime/ops/paged_attention/split.rs makes the list of items.
#pragma once

#include "common/attend.cuh"

namespace attend {

// Floats of a row's state in global memory: outputs, then base and sum once per warp.
template <int HD>
constexpr int KEPT = HD + 2 * WARPS;

// Returns true if the warp is the last of `arrivals` warps to arrive at a ticket. That warp then sees everything that
// the others wrote before. The ticket is zero before and after.
__device__ __forceinline__ bool last_to_arrive(uint32_t* ticket, int arrivals) {
    isa::sync_warp();
    int last = 0;
    if (lane() == 0) {
        isa::threadfence();
        last = isa::atomic_add(ticket, 1u) + 1 == (uint32_t)arrivals;
        if (last) {
            isa::threadfence();
            isa::store(ticket, 0u);
        }
    }
    last = isa::shfl(last, 0);
    isa::sync_warp();
    return last;
}

// Arguments of paged attention for one new token per sequence: the arguments of PagedArgs, and the list of work items.
struct DecodeArgs {
    const bf16* qkv;
    const bf16* k;
    const bf16* v;
    const uint32_t* block_tables;
    const uint32_t* cu_seqlens_q;
    // item 0: x = number of items; then per item: first member, tokens | arrivals << 16, first key, keys
    const uint4* items;
    const uint32_t* members;  // sequence numbers that the items refer to
    uint32_t* tickets;        // [sequences][kv heads][each], all zero between launches
    float* states;            // [sequences][kv heads][chunks][heads of a group][KEPT<HD>]
    bf16* out;
    int columns, q_heads, kv_heads, dim;
    int chunks, each;
    int wide;  // 1 if dim is a multiple of 8, and qkv, k, v and out start at multiples of 16 bytes
    float scale_log2e;
};

__device__ __forceinline__ int count_of(const DecodeArgs& args) { return isa::load<uint4>(args.items).x; }

// Work item of decode: the rows of `tokens` sequences, `pitch` rows each, with their common keys `begin` .. `end` of
// one chunk. `arrivals` is 0 for a shared item. For an own item it is the number of own items of its sequence: one for
// each chunk that no shared item of an earlier launch has done completely.
struct Item {
    const DecodeArgs& args;
    int head, group, pitch;
    int first, tokens, arrivals;
    int begin, end, keys;
    static constexpr bool any = true;

    // Reads item `i` for key head `head`. A token has `pitch` rows, of which `group` are real.
    __device__ __forceinline__ Item(const DecodeArgs& args, int i, int head, int pitch)
        : args(args), head(head), group(args.q_heads / args.kv_heads), pitch(pitch) {
        uint4 item = isa::load<uint4>(args.items + 1 + i);
        first = item.x;
        tokens = item.y & 0xffff;
        arrivals = item.y >> 16;
        begin = item.z;
        keys = item.w;
        end = min(begin / CHUNK * CHUNK + CHUNK, keys);
    }

    __device__ __forceinline__ int sequence(int token) const { return args.members[first + token]; }
    // Returns the index of item token `token` among all new tokens.
    __device__ __forceinline__ int64_t token(int token) const { return args.cu_seqlens_q[sequence(token)]; }
    __device__ __forceinline__ const uint32_t* table() const {
        return args.block_tables + (int64_t)sequence(0) * args.columns;
    }
    __device__ __forceinline__ bool real(int row) const { return row / pitch < tokens && row % pitch < group; }
    // Returns the query head of a row within its token.
    __device__ __forceinline__ int query(int row) const { return head * group + row % pitch; }

    // Stores in `rows` the addresses of the states of a lane's two rows for a chunk, or null for a row that does not
    // exist. `from` is the first row of the warp.
    template <int HD>
    __device__ __forceinline__ void kept(int from, int chunk, float* (&rows)[2]) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = from + lane() / 4 + 8 * i;
            rows[i] = nullptr;
            if (real(row)) {
                int64_t of = ((int64_t)sequence(row / pitch) * args.kv_heads + head) * args.chunks + chunk;
                rows[i] = args.states + (of * group + row % pitch) * KEPT<HD>;
            }
        }
    }

    // Returns true if this item alone produces the output of its rows.
    __device__ __forceinline__ bool alone() const { return arrivals > 0 && keys <= CHUNK && begin == 0; }
};

// Sets the initial state of a warp's rows: empty, or the state in which an earlier shared item left this chunk.
template <int HD, class F>
__device__ __forceinline__ void resume_state(State<F>& state, const Item& item, int from, int first_tile, int copy) {
    state.reset();
    if (item.begin % CHUNK > 0) {
        float* rows[2];
        item.template kept<HD>(from, item.begin / CHUNK, rows);
        state.template take<HD>(rows, first_tile, copy);
    }
}

// Returns true if the state now covers all keys of the warp's rows, which start at `from`. Otherwise the warp only
// stores its state of the chunk. The last warp to arrive for a sequence, which the ticket determines, folds the states
// of the chunks from left to right.
template <int HD, class F>
__device__ __forceinline__ bool fold_if_last(State<F>& state, const Item& item, int from, int first_tile, int copy, int ticket) {
    if (item.alone()) {
        return true;
    }
    float* rows[2];
    item.template kept<HD>(from, item.begin / CHUNK, rows);
    state.template keep<HD>(rows, first_tile, copy);
    if (item.arrivals == 0) {
        return false;
    }
    uint32_t* at = item.args.tickets + ((int64_t)item.sequence(0) * item.args.kv_heads + item.head) * item.args.each;
    if (!last_to_arrive(at + ticket, item.arrivals)) {
        return false;
    }
    for (int chunk = 0; chunk * CHUNK < item.keys; chunk++) {
        item.template kept<HD>(from, chunk, rows);
        if (chunk == 0) {
            state.template take<HD>(rows, first_tile, copy);
        } else {
            state.template append<HD>(rows, first_tile, copy);
        }
    }
    return true;
}

// Writes out = o / l as bf16 directly to global memory: a warp's rows of one sequence, starting at `from`.
template <int HD, class F>
__device__ __forceinline__ void write_out(State<F>& state, const Item& item, int from, int first_tile) {
    int64_t heads = item.token(0) * item.args.q_heads;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = from + lane() / 4 + 8 * i;
        if (item.real(row)) {
            bf16* out = item.args.out + (heads + item.query(row)) * item.args.dim;
            float inverse = 1.0f / state.l[i];
            state.template each_pair<HD>(i, first_tile, [&](int column, float& x, float& y) {
                if (column < item.args.dim) {
                    isa::store<uint32_t>(out + column, pack(x * inverse + 0.0f, y * inverse + 0.0f));
                }
            });
        }
    }
}
}  // namespace attend
