// Arguments of the gradients of attention and the places of their results, for both kernel variants. dQ is one
// accumulation chain over ascending keys. dK and dV are one chain over ascending rows (token, head of the group) in
// steps of 16 rows, and the steps restart at each stage of full tokens. On tensor cores the bits of a chain depend on
// where its steps begin. TMA can only load full tokens, so the stages of both variants contain full tokens.
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
