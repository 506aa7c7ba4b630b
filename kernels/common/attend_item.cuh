// Decode's work, cut into items that fill the card: the rows of a sequence's one new token with one chunk of its keys, or the
// rows of several sequences with a chunk of the keys that begin all of them. A row's state of a chunk goes through global
// memory, to the last of its sequence's items to arrive, which folds all chunks, and from an item of several sequences to
// those of each that go on behind it. src/ops/paged_attention/split.rs makes the list.
#pragma once

#include "common/attend.cuh"

namespace attend {

// Numbers of a row's state in global memory.
template <int HD>
constexpr int KEPT = HD + 2 * WARPS;

// Whether the warp is the last of so many to come to a ticket, which is zero before and after; it then sees what all of them
// wrote before.
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

// What paged attention of one new token a sequence is called with: as PagedArgs, and what each CTA is to do of it.
struct DecodeArgs {
    const bf16* qkv;
    const bf16* k;
    const bf16* v;
    const uint32_t* block_tables;
    const uint32_t* cu_seqlens_q;
    const uint4* items;       // how many, then of each the first member, tokens and arrivals << 16, first key, keys
    const uint32_t* members;  // of items: sequences
    uint32_t* tickets;        // [sequences][kv heads][each], zeros between launches
    float* states;            // [sequences][kv heads][chunks][heads of a group][KEPT<HD>]
    bf16* out;
    int columns, q_heads, kv_heads, dim;
    int chunks, each;
    int wide;  // dim is a multiple of 8 and qkv, k, v and out start at 16 bytes
    float scale_log2e;
};

__device__ __forceinline__ int count_of(const DecodeArgs& args) { return isa::load<uint4>(args.items).x; }

// A work item of decode: the rows of `tokens` sequences, `pitch` of each, with keys `begin` .. `end` of one chunk, which they
// have in common. Of a sequence's own item `arrivals` is how many there are: one for each chunk, or one for each that no
// item of many sequences has done whole before, in an earlier launch.
struct Item {
    const DecodeArgs& args;
    int head, group, pitch;
    int first, tokens, arrivals;
    int begin, end, keys;
    static constexpr bool any = true;

    // Item `i` of key head `head`; rows of a token are `pitch`, of which `group` are real.
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
    // Its token among all new ones.
    __device__ __forceinline__ int64_t token(int token) const { return args.cu_seqlens_q[sequence(token)]; }
    __device__ __forceinline__ const uint32_t* table() const {
        return args.block_tables + (int64_t)sequence(0) * args.columns;
    }
    __device__ __forceinline__ bool real(int row) const { return row / pitch < tokens && row % pitch < group; }
    // The number of a row's query head among those of its token.
    __device__ __forceinline__ int query(int row) const { return head * group + row % pitch; }

    // Where a lane's rows of a warp's, which begin at `from`, keep their state of a chunk; null: no row.
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

    // Whether a row's output is this item's alone.
    __device__ __forceinline__ bool alone() const { return arrivals > 0 && keys <= CHUNK && begin == 0; }
};

// The state that a warp's rows go on from: nothing, or what an item before has of the chunk.
template <int HD, class F>
__device__ __forceinline__ void go_on(State<F>& state, const Item& item, int from, int first_tile, int copy) {
    state.reset();
    if (item.begin % CHUNK > 0) {
        float* rows[2];
        item.template kept<HD>(from, item.begin / CHUNK, rows);
        state.template take<HD>(rows, first_tile, copy);
    }
}

// Whether a warp's state, of its rows from `from` on, is then that of all their keys: it puts aside what it has of its
// chunk, and the last of a sequence to do so, told by the ticket, folds the chunks' states left to right.
template <int HD, class F>
__device__ __forceinline__ bool joined(State<F>& state, const Item& item, int from, int first_tile, int copy, int ticket) {
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

// out = o / l in bf16, straight to global memory: a warp's rows of one sequence, from `from` on.
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
