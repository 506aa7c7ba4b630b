// Linear layers for few tokens with a quantised weight: y = x W^T with the epilogues and the sums of kernels/gemm.cu. The
// codes of W pass through a ring in shared memory and are widened to bf16 one step ahead of the product.
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

// Bytes of codes that a CTA has in flight while it waits, enough for the latency of memory at full bandwidth.
constexpr int IN_FLIGHT = 24 * 1024;

// Rings of tiles of x and of codes with their scales, both filled by cp.async, and two tiles of W: the one that is
// multiplied, and the next one, which is widened meanwhile.
template <class T, class Format>
struct CodeStages {
    static constexpr int STAGES = IN_FLIGHT / (T::BLOCK_N * Format::BLOCK_BYTES) + 2;
    isa::Shared<bf16> x[T::STAGES][T::BLOCK_M * BLOCK_K];
    isa::Shared<bf16> w[2][T::BLOCK_N * BLOCK_K];
    isa::Shared<uint32_t> codes[STAGES][T::BLOCK_N * Format::BLOCK_BYTES / 4];
    isa::Shared<uint32_t> scales[STAGES][T::BLOCK_N];
    // The wait for x of a step is also one for the codes of the next step.
    static_assert(STAGES > T::STAGES && T::BLOCK_N <= T::THREADS, "rings");
};

// The tiles of one step, as a ring of one slot.
template <class T>
struct StepTiles {
    const isa::Shared<bf16> (*x)[T::BLOCK_M * BLOCK_K];
    const isa::Shared<bf16> (*w)[T::BLOCK_N * BLOCK_K];
};

// Copies tiles of x as Loader does, and codes of W, which it widens. A second pair is not quantised: its tiles of W wait in
// registers for their step.
template <class T, class Format>
struct CodeLoader {
    using Ring = CodeStages<T, Format>;
    // 16-byte copies of a row's codes in a step, and of a thread.
    static constexpr int PARTS = Format::BLOCK_BYTES / 16;
    static constexpr int COPIES = T::BLOCK_N * PARTS / T::THREADS;
    Loader<T> plain;
    const uint8_t* scales;
    typename Format::Table table;
    int steps, all;         // numbers of steps of the first pair, and of both pairs
    int code_rows[COPIES];  // row of the weight of each copy, or -1
    int scale_row;          // row of the weight whose scale the thread copies, or -1
    uint4 pair[T::CHUNKS_W];

    template <class E>
    __device__ __forceinline__ void aim(const typename E::Args& out, int first_row, int first_column) {
        const Operands& in = plain.in;
        plain.template aim<E>(out, first_row, first_column);
        auto weight_row = [&](int row) {
            int column = first_column + row;
            return row < T::BLOCK_N && column < E::columns(out, in) ? E::weight_row(out, in, column) : -1;
        };
#pragma unroll
        for (int i = 0; i < COPIES; i++) code_rows[i] = weight_row((threadIdx.x + i * T::THREADS) / PARTS);
        scale_row = weight_row(threadIdx.x);
        table = Format::table();
        steps = in.ld / BLOCK_K;
        all = steps + in.more.ld / BLOCK_K;
        if (steps < all) fetch_pair(steps);
    }

    // Returns the number of the block of scales of a row in a step.
    __device__ __forceinline__ int64_t block(int row, int step) const { return (int64_t)row * steps + step; }

    __device__ __forceinline__ void copy_x(Ring& ring, int slot, int step) const {
        plain.load_x(ring.x[slot], plain.in.at(step, steps), (step < steps ? step : step - steps) * BLOCK_K);
    }

    __device__ __forceinline__ void copy_codes(Ring& ring, int slot, int step) const {
        const uint32_t* codes = (const uint32_t*)plain.in.w;
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            int at = threadIdx.x + i * T::THREADS, row = code_rows[i] < 0 ? 0 : code_rows[i];
            const uint32_t* from = codes + (block(row, step) * PARTS + at % PARTS) * 4;
            isa::cp_async<16>(&ring.codes[slot][at * 4], from, code_rows[i] < 0 ? 0 : 16);
        }
        if (threadIdx.x < T::BLOCK_N) {
            const uint32_t* from = Format::word(scales, block(scale_row < 0 ? 0 : scale_row, step));
            isa::cp_async<4>(&ring.scales[slot][threadIdx.x], from, scale_row < 0 ? 0 : 4);
        }
    }

    __device__ __forceinline__ void fetch_pair(int step) {
        const Pair& more = plain.in.more;
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            int64_t row = plain.weight_rows[i] < 0 ? 0 : plain.weight_rows[i];
            pair[i] = isa::load<uint4>(more.w + row * more.ld + (step - steps) * BLOCK_K + plain.chunk * 8);
        }
    }

    // Stores W of a step, whose codes are in slot `slot`, to its tile.
    __device__ __forceinline__ void put_w(Ring& ring, int slot, int step) {
        bool is_coded = step < steps;
#pragma unroll
        for (int i = 0; i < T::CHUNKS_W; i++) {
            int row = plain.row + i * Loader<T>::ROW_STEP;
            uint4 values = pair[i];
            if (is_coded) {
                int at = row * (Format::BLOCK_BYTES / 4) + plain.chunk * (Format::BLOCK_BYTES / 32);
                auto codes = isa::load<typename Format::Codes>(&ring.codes[slot][at]);
                float scale = Format::scale_in(ring.scales[slot][row], block(plain.weight_rows[i], step));
                values = Format::values(codes, scale, table);
            }
            isa::store(ring.w[step % 2] + swizzled(row, plain.chunk), values);
        }
        if (!is_coded && step + 1 < all) fetch_pair(step + 1);
    }
};

// Computes the product of one CTA. In each step, x and codes of later steps are copied, W of the next step is widened, and
// the present tiles are multiplied.
template <class T, class E, class Format>
__device__ __forceinline__ void run_codes(const CodeArgs<E>& args) {
    using Ring = CodeStages<T, Format>;
    constexpr int X = T::STAGES, C = Ring::STAGES;
    Corner at = corner<T>(blockIdx.x, args.in.rows, E::columns(args.out, args.in));
    auto& ring = isa::smem<Ring>();
    CodeLoader<T, Format> loader{{args.in}, args.scales};
    loader.template aim<E>(args.out, at.row, at.column);
    Warp<T> warp;
    Step<T> operands;
    isa::Acc sums[T::FRAGS_M][T::FRAGS_N];
    clear<T>(sums);
#pragma unroll 1
    for (int step = 0; step < C - 1; step++) {
        int of_x = step - (C - X);
        if (step < loader.steps) loader.copy_codes(ring, step, step);
        if (of_x >= 0 && of_x < loader.all) loader.copy_x(ring, of_x, of_x);
        isa::cp_async_commit();
    }
    isa::cp_async_wait<C - 2>();
    isa::sync_cta();
    loader.put_w(ring, 0, 0);
    int slot_x = 0, slot = 0;
#pragma unroll 1
    for (int step = 0; step < loader.all; step++) {
        isa::cp_async_wait<X - 2>();
        // x of this step and the codes of the next one have arrived, W of this step is widened, and all threads have
        // read the tiles that are overwritten next.
        isa::sync_cta();
        if (step + C - 1 < loader.steps) loader.copy_codes(ring, slot == 0 ? C - 1 : slot - 1, step + C - 1);
        if (step + X - 1 < loader.all) loader.copy_x(ring, slot_x == 0 ? X - 1 : slot_x - 1, step + X - 1);
        isa::cp_async_commit();
        int present = slot_x;
        slot_x = slot_x + 1 == X ? 0 : slot_x + 1;
        slot = slot + 1 == C ? 0 : slot + 1;
        if (step + 1 < loader.all) loader.put_w(ring, slot, step + 1);
        multiply<T>(StepTiles<T>{&ring.x[present], &ring.w[step % 2]}, 0, warp, operands, sums);
    }
    // The tile of sums overwrites the rings.
    isa::sync_cta();
    auto& tile = isa::smem<Sums<T>>();
    put<T>(tile, warp, sums);
    isa::sync_cta();
    E::template finish<T>(args.out, args.in, tile, at.row, at.column);
}

// The tile of few rows, whose ring of x need not cover the latency of memory.
using CodesM16 = Tile<16, 64, 1, 4, 6>;

}  // namespace gemm

#define CODE_KERNELS(name, E, format, Format)                                        \
    KERNEL(name##_##format##_m16, gemm::CodeArgs<gemm::E>, gemm::CodesM16::THREADS, 2) { \
        gemm::run_codes<gemm::CodesM16, gemm::E, codes::Format>(args);                   \
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
