// Rotary position embedding in place: the halves (a, b) of a head become (a cos - b sin, b cos + a sin).
// Shapes: qkv [rows, width] bf16, of which the first `heads` heads of 2 * half elements are rotated; cos, sin [rows,
// half] f32. sign -1 rotates back.
// Grid: over rows * heads * pairs. A thread rotates 8 pairs in 16-byte accesses if half % 8 == 0 (rope_vectors), else
// one pair (rope_pairs).
// Bound: memory. Heads are read and written once; the tables come from cache.
// Reference: src/runtime/ops/rope.rs.
// Benchmark: `omr bench rope`.
#include "isa/isa.cuh"

namespace rope {

struct Args {
    bf16* qkv;
    const float* cos;
    const float* sin;
    int rows, width, heads, half;
    float sign;
    int pad;
};

constexpr int THREADS = 256;

struct Place {
    bf16* a;
    const float* cos;
    const float* sin;
    bool inside;
};

// Returns the addresses of the thread's `pairs` pairs.
__device__ __forceinline__ Place place(const Args& args, int pairs) {
    uint32_t each = args.half / pairs;
    uint32_t in_row = each * args.heads;
    uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    uint32_t row = at / in_row;
    uint32_t head = at % in_row / each;
    uint32_t j = at % each * pairs;
    return Place{args.qkv + (int64_t)row * args.width + head * 2 * args.half + j, args.cos + (int64_t)row * args.half + j,
                 args.sin + (int64_t)row * args.half + j, row < (uint32_t)args.rows};
}

__device__ __forceinline__ float turned_a(float a, float b, float c, float s) { return fmaf(a, c, -(b * s)); }
__device__ __forceinline__ float turned_b(float a, float b, float c, float s) { return fmaf(b, c, a * s); }

// Rotates two pairs: a and b hold two elements each.
__device__ __forceinline__ void rotate(uint32_t& a, uint32_t& b, float c0, float c1, float s0, float s1) {
    float a0 = lo(a), a1 = hi(a), b0 = lo(b), b1 = hi(b);
    a = pack(turned_a(a0, b0, c0, s0), turned_a(a1, b1, c1, s1));
    b = pack(turned_b(a0, b0, c0, s0), turned_b(a1, b1, c1, s1));
}

}  // namespace rope

KERNEL(rope_vectors, rope::Args, rope::THREADS, 4) {
    rope::Place at = rope::place(args, 8);
    if (!at.inside) return;
    uint4 a = isa::load<uint4>(at.a);
    uint4 b = isa::load<uint4>(at.a + args.half);
    float4 c0 = isa::load<float4>(at.cos);
    float4 c1 = isa::load<float4>(at.cos + 4);
    float4 s0 = isa::load<float4>(at.sin);
    float4 s1 = isa::load<float4>(at.sin + 4);
    float sign = args.sign;
    rope::rotate(a.x, b.x, c0.x, c0.y, s0.x * sign, s0.y * sign);
    rope::rotate(a.y, b.y, c0.z, c0.w, s0.z * sign, s0.w * sign);
    rope::rotate(a.z, b.z, c1.x, c1.y, s1.x * sign, s1.y * sign);
    rope::rotate(a.w, b.w, c1.z, c1.w, s1.z * sign, s1.w * sign);
    isa::store<uint4>(at.a, a);
    isa::store<uint4>(at.a + args.half, b);
}

KERNEL(rope_pairs, rope::Args, rope::THREADS, 4) {
    rope::Place at = rope::place(args, 1);
    if (!at.inside) return;
    float a = to_float(at.a[0]);
    float b = to_float(at.a[args.half]);
    float c = at.cos[0];
    float s = at.sin[0] * args.sign;
    at.a[0] = to_bf16(rope::turned_a(a, b, c, s));
    at.a[args.half] = to_bf16(rope::turned_b(a, b, c, s));
}
