// Backward of y = silu(gate) * up: dgate = dy * up * silu'(gate), dup = dy * silu(gate).
// Shapes: gate_up, dgate_up [T, 2 F] bf16 in blocks of 32 (gate, up, gate, ...), dy [T, F] bf16; F is a multiple of 32.
// Grid: ceil(T F / 2048). Each thread handles eight columns of dy in 16-byte accesses.
// Bound: memory, 10 bytes read or written per element of dy, at the copy bandwidth.
// Reference: src/runtime/ops/swiglu.rs, bitwise identical.
// Benchmark: `omr bench swiglu`.
#include "common/math.cuh"
#include "isa/isa.cuh"

namespace swiglu {

struct Args {
    const bf16* gate_up;
    const bf16* dy;
    bf16* dgate_up;
    int64_t len;  // elements of dy
};

constexpr int THREADS = 256;
constexpr int EACH = 8;
constexpr int BLOCK = 32;

// Computes the gradients of two gates and two ups.
__device__ __forceinline__ void two(uint32_t gate, uint32_t up, uint32_t dy, uint32_t& dgate, uint32_t& dup) {
    float g[2] = {lo(gate), hi(gate)}, u[2] = {lo(up), hi(up)}, d[2] = {lo(dy), hi(dy)};
    dgate = pack(d[0] * u[0] * math::silu_grad(g[0]), d[1] * u[1] * math::silu_grad(g[1]));
    dup = pack(d[0] * math::silu(g[0]), d[1] * math::silu(g[1]));
}

}  // namespace swiglu

KERNEL(swiglu_bwd, swiglu::Args, swiglu::THREADS, 4) {
    using namespace swiglu;
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    if (at >= args.len) return;
    // Column f of dy has its gate at f / 32 * 64 + f % 32, in every row, because a row consists of complete blocks.
    int64_t gate = at / BLOCK * (2 * BLOCK) + at % BLOCK;
    uint4 g = isa::load<uint4>(args.gate_up + gate), u = isa::load<uint4>(args.gate_up + gate + BLOCK);
    uint4 d = isa::load<uint4>(args.dy + at);
    uint4 dg, du;
    two(g.x, u.x, d.x, dg.x, du.x);
    two(g.y, u.y, d.y, dg.y, du.y);
    two(g.z, u.z, d.z, dg.z, du.z);
    two(g.w, u.w, d.w, dg.w, du.w);
    isa::store<uint4>(args.dgate_up + gate, dg);
    isa::store<uint4>(args.dgate_up + gate + BLOCK, du);
}
