// Linear layers: y = x W^T with bias and residual, GELU, SwiGLU, or rope and the KV store of packed qkv; fp32 logits.
// x [T, K] unpadded; W [N][ld], ld = K rounded up to 64; bias [N]; y and residual [T, N]; SwiGLU y [T, N / 2].
// CTA: one tile of common/gemm.cuh (grid x = row tiles x column tiles), of 16, 64 or 128 rows; 4 warps.
// Bound: T >= 256 the tensor cores (2 T N K flops; mma.sync reaches about 60 % of wgmma on Hopper), below W's bytes.
// Reference: src/ops/linear.rs, src/ops/rope.rs; tests/kernels/gemm.rs; bench: omr bench ops.
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
