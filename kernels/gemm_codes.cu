// Linear layers for few tokens with a quantised weight: y = x W^T with the epilogues and the sums of kernels/gemm.cu. W is
// read as codes, widened to bf16 in registers and stored to the stages of the ring.
// Shapes: those of kernels/gemm.cu; codes and scales as in kernels/dequantize.cu.
// Grid: row tiles x column tiles of 16 or 64 rows; 4 warps.
// Bound: reading the codes, 1 (int8) or 0.56 (nf4) bytes per weight.
// Reference: src/runtime/ops/linear.rs with the widened weight, bitwise identical to kernels/gemm.cu; tests/runtime/kernels/gemm_codes.rs.
// Benchmark: `omr bench dequantize`.
#include "common/codes.cuh"
#include "common/gemm.cuh"
#include "common/linear.cuh"
#include "isa/isa.cuh"

namespace gemm {

template <class E>
struct CodeArgs {
    Operands in;  // w is the codes
    const uint8_t* scales;
    typename E::Args out;
};

// Copies tiles of x as Loader does, and widens tiles of W. The codes of the next step are fetched while the present one is
// multiplied. A second pair is not quantised.
template <class T, class Format>
struct CodeLoader {
    Loader<T> plain;
    const uint8_t* scales;
    codes::Eight<Format> next[T::CHUNKS_W];

    template <class E>
    __device__ __forceinline__ void aim(const typename E::Args& out, int first_row, int first_column) {
        plain.template aim<E>(out, first_row, first_column);
        fetch(0);
    }

    __device__ __forceinline__ void fetch(int step) {
        const Operands& in = plain.in;
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            int row = plain.weight_rows[i] < 0 ? 0 : plain.weight_rows[i];
            int64_t at = (int64_t)row * in.ld + step * BLOCK_K + plain.chunk * 8;
            next[i] = codes::Eight<Format>::load((const uint8_t*)in.w, scales, at);
        }
    }

    __device__ __forceinline__ void load(Stages<T>& ring, int slot, int step, int steps) {
        if (step >= steps) {
            plain.load(ring, slot, step, steps);
            return;
        }
        plain.load_x(ring.x[slot], plain.in.at(step, steps), step * BLOCK_K);
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            uint4 values = plain.weight_rows[i] < 0 ? make_uint4(0, 0, 0, 0) : next[i].values();
            isa::store(ring.w[slot] + swizzled(plain.row + i * Loader<T>::ROW_STEP, plain.chunk), values);
        }
        if (step + 1 < steps) {
            fetch(step + 1);
        }
    }
};

template <class T, class E, class Format>
__device__ __forceinline__ void run_codes(const CodeArgs<E>& args) {
    CodeLoader<T, Format> loader{{args.in}, args.scales};
    run_from<T, E>(loader, args.in, args.out);
}

}  // namespace gemm

#define CODE_KERNELS(name, E, format, Format)                                        \
    KERNEL(name##_##format##_m16, gemm::CodeArgs<gemm::E>, gemm::TileM16::THREADS, 2) { \
        gemm::run_codes<gemm::TileM16, gemm::E, codes::Format>(args);                   \
    }                                                                                   \
    KERNEL(name##_##format##_m64, gemm::CodeArgs<gemm::E>, gemm::TileM64::THREADS, 2) { \
        gemm::run_codes<gemm::TileM64, gemm::E, codes::Format>(args);                   \
    }

CODE_KERNELS(linear, Linear, int8, Int8)
CODE_KERNELS(linear, Linear, nf4, Nf4)
CODE_KERNELS(linear_swiglu, SwiGlu, int8, Int8)
CODE_KERNELS(linear_swiglu, SwiGlu, nf4, Nf4)
CODE_KERNELS(linear_qkv, Qkv, int8, Int8)
CODE_KERNELS(linear_qkv, Qkv, nf4, Nf4)
