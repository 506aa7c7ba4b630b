// What the gradients of attention are called with and where they go, in both bodies. dQ is one chain over ascending keys,
// dK and dV are one over ascending rows (token, head of the group) in steps of 16, which begin anew with each stage of
// whole tokens: a chain's bits on tensor cores depend on where its steps begin, and TMA brings whole tokens.
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
    float* delta;  // D: dq writes it, dkv reads it
    int sequences, q_heads, kv_heads, dim;
    int causal;
    int wide;  // dim is a multiple of 8 and all rows of bf16 start at 16 bytes
    float scale, scale_log2e;
    uint32_t inverse;  // 2^31 / group, rounded up: a quotient
    int step;          // rows of a stage of dkv: whole tokens, at most 64, where a group is no larger
};

// A sequence and one key head: its rows (token, head of the group), heads fastest, and its keys.
struct Place {
    int group, tokens, rows;
    int stride, out_stride;  // elements between tokens
    int64_t q, k, v;         // where they begin in qkv and dqkv
    int64_t out, sums;       // where the rows begin in out and dout; in lse and delta

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

// Sums of a warp's sixteen rows times `scale`, by way of `staged`, to the rows of dqkv from `from` on.
template <int HD, class F>
__device__ __forceinline__ void write(F& sums, float scale, isa::Shared<bf16>* staged, bf16* to, const Place& place,
                                      int group, int from, int rows, const Args& args) {
    float factor[2] = {scale, scale};
    attend::stage<HD>(sums, factor, staged, 0);
    isa::sync_warp();
    attend::Rows out{nullptr, to, nullptr, 0, place.stride, 0, group, args.dim, 0, 0, 0, 0, 0.0f, (bool)args.wide};
    attend::write_rows<HD>(out, staged, from, rows, attend::lane(), attend::WARP);
}

// The dot product of two rows, a lane's part: its pairs, every fourth, ascending; the quad's tree is the caller's.
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
