// Matrix fragments, ldmatrix, stmatrix and mma.sync. Lane t holds these elements (row, column):
// - accumulator, 16 x 8: (t/4, 2(t%4) + {0, 1}), and the same columns 8 rows below.
// - A, 16 x 16, four registers: (t/4, 2(t%4) + {0, 1}); 8 rows below; 8 columns to the right; both.
// - B, 16 x 8, two registers: the pair k = 2(t%4) + {0, 1} and the pair at k + 8, in column t/4.
#pragma once

namespace isa {

// N 32-bit registers, each with two bf16.
template <int N>
struct Frag {
    uint32_t r[N];
    __device__ __forceinline__ uint32_t& operator[](int i) { return r[i]; }
    __device__ __forceinline__ uint32_t operator[](int i) const { return r[i]; }
};

// The four fp32 accumulators of m16n8. Undefined until zero() or a write.
struct Acc {
    float r[4];
    __device__ __forceinline__ float& operator[](int i) { return r[i]; }
    __device__ __forceinline__ float operator[](int i) const { return r[i]; }
    __device__ __forceinline__ void zero() { r[0] = r[1] = r[2] = r[3] = 0.0f; }
};

// Loads N 8 x 8 matrices. Lane 8j + i passes the address of row i (16 bytes) of matrix j. Register j of lane t receives
// row t/4, columns 2(t%4) and the next. With _trans it receives column t/4, rows 2(t%4) and the next.
__device__ __forceinline__ void ldmatrix(Frag<4>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d.r[0]), "=r"(d.r[1]), "=r"(d.r[2]), "=r"(d.r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix(Frag<2>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(d.r[0]), "=r"(d.r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix(Frag<1>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(d.r[0]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(Frag<4>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d.r[0]), "=r"(d.r[1]), "=r"(d.r[2]), "=r"(d.r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(Frag<2>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(d.r[0]), "=r"(d.r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(Frag<1>& d, const Shared<bf16>* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(d.r[0]) : "r"(shared_address(row)) : "memory");
}

// Stores N matrices, the reverse of ldmatrix. The instruction exists from sm_90 on. On older GPUs each lane gets the
// row addresses by shuffles and stores its pairs itself.
template <int N>
__device__ __forceinline__ void stmatrix(Shared<bf16>* row, const Frag<N>& s) {
    static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
    uint32_t mine = shared_address(row);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (N == 4) {
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(mine), "r"(s.r[0]),
                     "r"(s.r[1]), "r"(s.r[2]), "r"(s.r[3]) : "memory");
    } else if constexpr (N == 2) {
        asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(mine), "r"(s.r[0]), "r"(s.r[1])
                     : "memory");
    } else {
        asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(mine), "r"(s.r[0]) : "memory");
    }
#else
    uint32_t lane = threadIdx.x & 31u;
#pragma unroll
    for (int j = 0; j < N; j++) {
        uint32_t at = __shfl_sync(0xffffffffu, mine, 8 * j + lane / 4) + 4 * (lane & 3u);
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(s.r[j]) : "memory");
    }
#endif
}

template <int N>
__device__ __forceinline__ void stmatrix_trans(Shared<bf16>* row, const Frag<N>& s) {
    static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
    uint32_t mine = shared_address(row);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (N == 4) {
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(mine), "r"(s.r[0]),
                     "r"(s.r[1]), "r"(s.r[2]), "r"(s.r[3]) : "memory");
    } else if constexpr (N == 2) {
        asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(mine), "r"(s.r[0]),
                     "r"(s.r[1]) : "memory");
    } else {
        asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(mine), "r"(s.r[0]) : "memory");
    }
#else
    uint32_t lane = threadIdx.x & 31u;
#pragma unroll
    for (int j = 0; j < N; j++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t at = __shfl_sync(0xffffffffu, mine, 8 * j + 2 * (lane & 3u) + half) + 2 * (lane / 4);
            asm volatile("st.shared.b16 [%0], %1;" ::"r"(at), "h"(uint16_t(s.r[j] >> 16 * half)) : "memory");
        }
    }
#endif
}

__device__ __forceinline__ void mma_registers(Acc& d, const Frag<4>& a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d.r[0]), "+f"(d.r[1]), "+f"(d.r[2]), "+f"(d.r[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

// Computes d += a b: m16n8k16, A row-major, B column-major, exact bf16 products, fp32 accumulation.
__device__ __forceinline__ void mma(Acc& d, const Frag<4>& a, const Frag<2>& b) {
    mma_registers(d, a, b.r[0], b.r[1]);
}

// Computes d += a b with B in one half (0 or 1) of a Frag<4>, which one ldmatrix loaded for two operands.
template <int HALF>
__device__ __forceinline__ void mma(Acc& d, const Frag<4>& a, const Frag<4>& b) {
    static_assert(HALF == 0 || HALF == 1, "a Frag<4> holds two operands B");
    mma_registers(d, a, b.r[2 * HALF], b.r[2 * HALF + 1]);
}

}  // namespace isa
