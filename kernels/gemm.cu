// Linear layers: y = x W^T with one of these epilogues: bias and residual, GELU, SwiGLU, rope and KV cache store of
// packed qkv, fp32 logits.
// Shapes: x [T, K] not padded; W [N][ld] with ld = K rounded up to 64; bias [N]; y and residual [T, N]; y of SwiGLU [T,
// N / 2].
// Grid: row tiles x column tiles. A CTA computes one tile of common/gemm.cuh with 16, 64 or 128 rows; 4 warps.
// Bound: from T = 256 on the tensor cores (2 T N K flops; mma.sync reaches about 60 % of wgmma on Hopper); for fewer
// tokens, reading W.
// Reference: src/runtime/ops/linear.rs, src/runtime/ops/rope.rs; tests/runtime/kernels/gemm.rs.
// Benchmark: `omr bench ops`.
#include "common/gemm.cuh"
#include "common/linear.cuh"
#include "isa/isa.cuh"

namespace gemm {

template <class E>
struct Args {
    Operands in;
    typename E::Args out;
};

}  // namespace gemm

#define GEMM_KERNELS(name, E)                                              \
    KERNEL(name##_m16, gemm::Args<gemm::E>, gemm::TileM16::THREADS, 2) {   \
        gemm::run<gemm::TileM16, gemm::E>(args.in, args.out);              \
    }                                                                      \
    KERNEL(name##_m64, gemm::Args<gemm::E>, gemm::TileM64::THREADS, 2) {   \
        gemm::run<gemm::TileM64, gemm::E>(args.in, args.out);              \
    }                                                                      \
    KERNEL(name##_m128, gemm::Args<gemm::E>, gemm::TileM128::THREADS, 2) { \
        gemm::run<gemm::TileM128, gemm::E>(args.in, args.out);             \
    }

// registers linear_m16 <= 80
// registers linear_m64 <= 112
// registers linear_m128 <= 255
// registers linear_f32_m16 <= 80
// registers linear_f32_m64 <= 112
// registers linear_f32_m128 <= 255
// registers linear_gelu_m16 <= 80
// registers linear_gelu_m64 <= 112
// registers linear_gelu_m128 <= 255
// registers linear_gelu_tanh_m16 <= 80
// registers linear_gelu_tanh_m64 <= 112
// registers linear_gelu_tanh_m128 <= 255
// registers linear_swiglu_m16 <= 80
// registers linear_swiglu_m64 <= 112
// registers linear_swiglu_m128 <= 255
// registers linear_qkv_m16 <= 80
// registers linear_qkv_m64 <= 112
// registers linear_qkv_m128 <= 255
GEMM_KERNELS(linear, Linear)
GEMM_KERNELS(linear_f32, Logits)
GEMM_KERNELS(linear_gelu, Gelu)
GEMM_KERNELS(linear_swiglu, SwiGlu)
GEMM_KERNELS(linear_qkv, Qkv)
GEMM_KERNELS(linear_gelu_tanh, GeluTanh)
