// Adapters of linear layers (LoRA):
// - lora_t: t = x A^T, rounded once. K is cut every 1,024 terms, each slice is a chain from zero, and the slices are added
//   in ascending order in fp32.
// - lora_scaled: out = scale * master, rounded once.
// - lora_spread: copies the rows of a compact B to their parts of S. lora_collect: adds scale times the parts of dS to dB.
// Shapes: x [T, K] not padded; A [R][ld] with ld = K rounded up to 64; t [T, R], R a multiple of 16. masters and out
// [len] bf16, lo [len] i16. B bf16 and dB fp32 [N, rank]; S bf16 and dS fp32 [N][ld]; part [N] u8.
// Grid of lora_t: (row tiles x column tiles of 16 or 64 rows by 64 columns, slices), 4 warps. If there are few tiles
// (split), a CTA computes one slice of a tile, and the last CTA of a tile adds the slices. Otherwise a CTA computes all
// slices of its tile. Grid of the others: one thread per element.
// Bound: lora_t by memory, x and A are read once per column of tiles; the others by memory.
// Reference: src/runtime/ops/lora/mod.rs, bitwise identical where sums are exact; tests/runtime/kernels/lora.rs.
// Benchmark: `omr bench lora`.
#include "common/gemm.cuh"
#include "common/master.cuh"
#include "isa/isa.cuh"

namespace lora {

// Steps of BLOCK_K terms in a slice.
constexpr int SLICE = 1024 / gemm::BLOCK_K;
constexpr int THREADS = 256;
// Marks a row of the weight that no adapter changes.
constexpr uint8_t NO_PART = 255;

struct Reduced : gemm::InOrder {
    struct Args {
        bf16* t;
        float* slices;      // [slices][T][R] if split, otherwise null
        uint32_t* tickets;  // one per tile, zero between launches; used if split
    };
};

struct TArgs {
    gemm::Operands in;  // x and A
    Reduced::Args out;
};

// Returns true in all threads of the CTA that is the last of `arrivals` to arrive at the ticket. It then sees what the
// others wrote. The ticket is zero before and after.
__device__ __forceinline__ bool last_to_arrive(uint32_t* ticket, int arrivals, isa::Shared<uint32_t>* last) {
    // Every thread has written its part of the slice.
    isa::sync_cta();
    if (threadIdx.x == 0) {
        isa::threadfence();
        *last = isa::atomic_add(ticket, 1u) + 1 == (uint32_t)arrivals;
        if (*last) {
            isa::threadfence();
            isa::store(ticket, 0u);
        }
    }
    isa::sync_cta();
    return *last;
}

// Adds a finished chain to the sum of the chains before it.
template <class T>
__device__ __forceinline__ void fold(isa::Acc (&total)[T::FRAGS_M][T::FRAGS_N], isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N],
                                     bool first) {
#pragma unroll
    for (int i = 0; i < T::FRAGS_M; i++) {
#pragma unroll
        for (int j = 0; j < T::FRAGS_N; j++) {
#pragma unroll
            for (int v = 0; v < 4; v++) total[i][j][v] = first ? sums[i][j][v] : total[i][j][v] + sums[i][j][v];
        }
    }
    gemm::clear<T>(sums);
}

template <class T>
struct Tail {
    gemm::Sums<T> tile;
    isa::Shared<uint32_t> last;
};

template <class T>
__device__ __forceinline__ void product(const TArgs& args) {
    const gemm::Operands& in = args.in;
    int steps = in.ld / gemm::BLOCK_K, slices = (steps + SLICE - 1) / SLICE;
    gemm::Corner at = gemm::corner<T>(blockIdx.x, in.rows, in.cols);
    int first = blockIdx.y * SLICE, count = args.out.slices ? min(SLICE, steps - first) : steps;
    auto& ring = isa::smem<gemm::Stages<T>>();
    gemm::Loader<T> loader{in};
    loader.template aim<Reduced>(args.out, at.row, at.column);
    gemm::Warp<T> warp;
    gemm::Step<T> operands;
    isa::Acc sums[T::FRAGS_M][T::FRAGS_N], total[T::FRAGS_M][T::FRAGS_N];
    gemm::clear<T>(sums);
    int done = 0;
    gemm::stream<T>(
        count, [&](int slot, int step) { loader.load(ring, slot, first + step, steps); },
        [&](int slot) {
            gemm::multiply<T>(ring, slot, warp, operands, sums);
            done++;
            if (done % SLICE == 0 || done == count) fold<T>(total, sums, done <= SLICE);
        });
    // The tile of sums overwrites the ring.
    isa::sync_cta();
    auto& tail = isa::smem<Tail<T>>();
    gemm::put<T>(tail.tile, warp, total);
    isa::sync_cta();
    // R is a multiple of 16, so every quad is complete.
    if (!args.out.slices) {
        gemm::each_quad<T>(in, at.row, at.column, [&](int row, int column, int, size_t place) {
            gemm::store_quad(args.out.t + place, gemm::sums_at<T>(tail.tile, row, column), true, 4);
        });
        return;
    }
    size_t size = (size_t)in.rows * in.cols;
    gemm::each_quad<T>(in, at.row, at.column, [&](int row, int column, int, size_t place) {
        gemm::store_quad(args.out.slices + blockIdx.y * size + place, gemm::sums_at<T>(tail.tile, row, column), true, 4);
    });
    if (!last_to_arrive(args.out.tickets + blockIdx.x, slices, &tail.last)) return;
    gemm::each_quad<T>(in, at.row, at.column, [&](int, int, int, size_t place) {
        gemm::Quad sum;
        for (int s = 0; s < slices; s++) {
            float4 v = isa::load<float4>(args.out.slices + s * size + place);
            gemm::Quad one = {{v.x, v.y, v.z, v.w}};
            sum = s == 0 ? one : sum + one;
        }
        gemm::store_quad(args.out.t + place, sum, true, 4);
    });
}

struct ScaledArgs {
    const bf16* w;
    const int16_t* lo;  // null if w is the master itself
    bf16* out;
    int64_t len;
    float scale;
};

struct RowsArgs {
    void* compact;  // [N, rank]
    void* wide;     // [N][ld]
    const uint8_t* part;
    int n, rank, ld;
    float scale;
};

// Calls f(position in the compact matrix, position in the wide one) for the element of this thread, if its row has a
// part. A part has the rank rounded up to 16 columns.
template <class F>
__device__ __forceinline__ void each_element(const RowsArgs& args, F f) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t row = at / args.rank;
    int column = at % args.rank;
    if (row >= args.n || args.part[row] == NO_PART) return;
    int first = args.part[row] * ((args.rank + 15) / 16 * 16);
    f(at, row * args.ld + first + column);
}

}  // namespace lora

// registers lora_t_m16 <= 112
// registers lora_t_m64 <= 128
KERNEL(lora_t_m16, lora::TArgs, gemm::TileM16::THREADS, 2) { lora::product<gemm::TileM16>(args); }
KERNEL(lora_t_m64, lora::TArgs, gemm::TileM64::THREADS, 2) { lora::product<gemm::TileM64>(args); }

KERNEL(lora_scaled, lora::ScaledArgs, lora::THREADS, 4) {
    int64_t at = (int64_t)blockIdx.x * lora::THREADS + threadIdx.x;
    if (at >= args.len) return;
    float value = args.lo ? master::join(args.w[at].bits, (uint16_t)args.lo[at]) : to_float(args.w[at]);
    args.out[at] = to_bf16(args.scale * value);
}

KERNEL(lora_spread, lora::RowsArgs, lora::THREADS, 4) {
    lora::each_element(args, [&](int64_t compact, int64_t wide) {
        static_cast<bf16*>(args.wide)[wide] = static_cast<const bf16*>(args.compact)[compact];
    });
}

KERNEL(lora_collect, lora::RowsArgs, lora::THREADS, 4) {
    lora::each_element(args, [&](int64_t compact, int64_t wide) {
        static_cast<float*>(args.compact)[compact] += args.scale * static_cast<const float*>(args.wide)[wide];
    });
}
