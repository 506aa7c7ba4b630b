// Arguments of the gradients of attention and the places of their results, for both kernel variants. dQ is one
// accumulation chain over ascending keys. dK and dV are one chain over ascending rows (token, head of the group) in
// steps of 16 rows, and the steps restart at each stage of full tokens. On tensor cores the bits of a chain depend on
// where its steps begin. TMA can only load full tokens, so the stages of both variants contain full tokens.
//
// The keys of a sequence that shares a prompt are those of the prompt, which all of its rows see, followed by its own.
// In dq the prompt fills stages of its own, whose last keys may be absent: they add exact zeros. In dkv each sequence
// that reads the keys of a prompt adds a chain of its own, and the chains are added in the order of the sequences.
#pragma once

#include "common/attend.cuh"

namespace attention_bwd {

struct Args {
    const bf16* qkv;
    const bf16* out;
    const bf16* dout;
    const float* lse;
    const uint32_t* cu_seqlens;
    bf16* dqkv;
    float* delta;  // D: written by dq, read by dkv
    const uint32_t* prompt_of;  // [S]: index of each sequence's prompt, or null if no sequences share a prompt
    float* partial;             // [T, 2 kv heads, dim]: sums of dK and dV of a prompt; null if prompt_of is null
    int sequences, q_heads, kv_heads, dim;
    int causal;
    int wide;  // 1 if dim is a multiple of 8 and all bf16 rows start at multiples of 16 bytes
    float scale, scale_log2e;
    uint32_t inverse;  // 2^31 / group, rounded up: replaces a division by a multiplication
    int step;          // rows per stage of dkv: full tokens that fit in 64 rows, or 64 if one token has more rows
};

// Rows (token, head of the group; heads vary fastest) and keys of one sequence and one key head.
struct Place {
    int group, tokens, rows;
    int stride, out_stride;  // elements between tokens
    int64_t q, k, v;         // offsets of queries, keys and values in qkv and dqkv
    int64_t out, sums;       // offsets of the rows in out and dout, and in lse and delta

    __device__ __forceinline__ Place(const Args& args, int sequence, int head, int group) : group(group) {
        int start = args.cu_seqlens[sequence];
        tokens = (int)args.cu_seqlens[sequence + 1] - start;
        rows = tokens * group;
        stride = (args.q_heads + 2 * args.kv_heads) * args.dim;
        out_stride = args.q_heads * args.dim;
        q = (int64_t)start * stride + head * group * args.dim;
        k = (int64_t)start * stride + (args.q_heads + head) * args.dim;
        v = k + args.kv_heads * args.dim;
        out = (int64_t)start * out_stride + head * group * args.dim;
        sums = (int64_t)start * args.q_heads + head * group;
    }
};

// Rows of the prompt whose keys come before a sequence's own keys; none if the sequence has no prompt.
struct Prompt {
    int start = 0, tokens = 0;

    __device__ __forceinline__ Prompt(const Args& args, int sequence) {
        int prompt = args.prompt_of == nullptr ? sequence : (int)args.prompt_of[sequence];
        if (prompt != sequence) {
            start = args.cu_seqlens[prompt];
            tokens = (int)args.cu_seqlens[prompt + 1] - start;
        }
    }

    // Returns the position at which the own keys begin, if the keys of the prompt fill stages of `size` keys.
    __device__ __forceinline__ int padded(int size) const { return (tokens + size - 1) / size * size; }
};

// Returns the sequence whose rows follow those of `reader` in the gradients of the keys of `sequence`: first the
// sequences whose prompt it is, then itself. The first reader is the one after `sequence`.
__device__ __forceinline__ int next_reader(const Args& args, int sequence, int reader) {
    int next = reader + 1;
    bool shares = args.prompt_of != nullptr && next < args.sequences && (int)args.prompt_of[next] == sequence;
    return shares ? next : sequence;
}

// Adds the chain that one reader contributed to sixteen keys of a prompt to the sum of the previous readers in
// `partial`. Afterwards the accumulators are the sum if the reader is the last one, and zero otherwise. `count`: keys
// that exist; `at`: offset of the first one.
template <int HD, class F>
__device__ __forceinline__ void add_reader(F& sums, const Args& args, int64_t at, int count, bool first, bool last) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = attend::lane() / 4 + 8 * i;
        float* sum = args.partial + at + (int64_t)row * 2 * args.kv_heads * args.dim + attend::lane() % 4 * 2;
#pragma unroll
        for (int tile = 0; tile < HD / 8; tile++) {
            float &x = tile::at(sums, 4 * tile + 2 * i), &y = tile::at(sums, 4 * tile + 2 * i + 1);
            bool real = row < count && tile * 8 + attend::lane() % 4 * 2 < args.dim;
            float2 before = real && !first ? isa::load<float2>(sum + tile * 8) : make_float2(0.0f, 0.0f);
            x += before.x;
            y += before.y;
            if (real && !last) {
                isa::store(sum + tile * 8, make_float2(x, y));
            }
        }
    }
    if (!last) {
        tile::clear(sums);
    }
}

// Adds the chains of one reader to the sums of dK and dV of a warp's sixteen keys from `mine` on, if others read the
// keys of `sequence` too.
template <int HD, class F>
__device__ __forceinline__ void end_reader(F& dk, F& dv, const Args& args, int sequence, int reader, int head, int mine) {
    if (next_reader(args, sequence, sequence) == sequence) {
        return;
    }
    int start = args.cu_seqlens[sequence], count = (int)args.cu_seqlens[sequence + 1] - start - mine;
    int64_t at = ((int64_t)(start + mine) * 2 * args.kv_heads + head) * args.dim;
    bool first = reader == sequence + 1, last = reader == sequence;
    add_reader<HD>(dk, args, at, count, first, last);
    add_reader<HD>(dv, args, at + args.kv_heads * args.dim, count, first, last);
}

// Writes the accumulators of a warp's sixteen rows times `scale`, through `staged`, to the rows of dqkv from `from` on.
template <int HD, class F>
__device__ __forceinline__ void write(F& sums, float scale, isa::Shared<bf16>* staged, bf16* to, const Place& place,
                                      int group, int from, int rows, const Args& args) {
    float factor[2] = {scale, scale};
    attend::stage<HD>(sums, factor, staged, 0);
    isa::sync_warp();
    attend::Rows out{nullptr, to, nullptr, 0, place.stride, 0, group, args.dim, 0, 0, 0, 0, 0.0f, (bool)args.wide};
    attend::write_rows<HD>(out, staged, from, rows, attend::lane(), attend::WARP);
}

// Returns a lane's part of the dot product of two rows: every fourth pair of elements, in ascending order. The caller
// sums the quad.
template <int UNROLL>
__device__ __forceinline__ float dot(const bf16* a, const bf16* b, int dim) {
    float sum = 0.0f;
#pragma unroll UNROLL
    for (int at = attend::lane() % 4 * 2; at < dim; at += 8) {
        uint32_t x = isa::load<uint32_t>(a + at), y = isa::load<uint32_t>(b + at);
        sum = fmaf(lo(x), lo(y), sum);
        sum = fmaf(hi(x), hi(y), sum);
    }
    return sum;
}
}  // namespace attention_bwd
