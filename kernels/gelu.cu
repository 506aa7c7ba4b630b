// Backward of GELU, exact or with tanh: dpre = dy * gelu'(pre).
// Shapes: pre, dy, dpre [len] bf16.
// Grid: ceil(len / 2048). Each thread handles eight elements with 16-byte accesses, and the last few one by one.
// Bound: memory, 6 bytes read or written per element, at the copy bandwidth.
// Reference: src/runtime/ops/gelu.rs, bitwise identical.
// Benchmark: `omr bench gelu`.
#include "common/math.cuh"
#include "isa/isa.cuh"

namespace gelu {

struct Args {
    const bf16* pre;
    const bf16* dy;
    bf16* dpre;
    int64_t len;
};

constexpr int THREADS = 256;
constexpr int EACH = 8;

template <bool TANH>
__device__ __forceinline__ float slope(float x) {
    return TANH ? math::gelu_tanh_grad(x) : math::gelu_grad(x);
}

template <bool TANH>
__device__ __forceinline__ uint32_t two(uint32_t x, uint32_t d) {
    return pack(lo(d) * slope<TANH>(lo(x)), hi(d) * slope<TANH>(hi(x)));
}

template <bool TANH>
__device__ __forceinline__ void bwd(const Args& args) {
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    if (at + EACH <= args.len) {
        uint4 x = isa::load<uint4>(args.pre + at), d = isa::load<uint4>(args.dy + at);
        uint4 out = make_uint4(two<TANH>(x.x, d.x), two<TANH>(x.y, d.y), two<TANH>(x.z, d.z), two<TANH>(x.w, d.w));
        isa::store<uint4>(args.dpre + at, out);
        return;
    }
    for (int64_t i = at; i < args.len; i++) {
        args.dpre[i] = to_bf16(to_float(args.dy[i]) * slope<TANH>(to_float(args.pre[i])));
    }
}

}  // namespace gelu

KERNEL(gelu_bwd, gelu::Args, gelu::THREADS, 4) { gelu::bwd<false>(args); }
KERNEL(gelu_tanh_bwd, gelu::Args, gelu::THREADS, 4) { gelu::bwd<true>(args); }
