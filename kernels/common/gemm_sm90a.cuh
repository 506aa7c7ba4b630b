// The body of matrix products on compute capability 9.0: sums[T, N] = x[T, K] W[N, K]^T by wgmma, the same chain of k16
// steps over ascending K for each output as in common/gemm.cuh, and its epilogues.
//
// A CTA is persistent. One thread of the last warpgroup keeps TMA copying the stages of one tile after the other into a
// ring: rows of 128 bytes, swizzled as wgmma reads them. The warpgroups before it compute 64 rows of the tile each. A
// stage is `full` when its bytes have come, and `empty` when one lane of each math warp has seen its products end.
// Finished sums go through shared memory in slices of a warp, eight rows by 16 to 128 columns, which the epilogue takes
// as tiles; or, of an epilogue that is STAGED, through stages of the ring by TMA (common/staged.cuh).
//
// An operand lies along its terms (K-major: a tile's rows of 64 terms each) or across them (MN-major: panels of 64 terms
// by 64 of its rows, as gradients have W, dy and x in memory). Where chains resume, an epilogue also has
//     void start<N>(const Args&, const Operands&, isa::WgmmaAcc<N>& sums, int m, int n)
// which fills a warp's sums of 16 rows from m on, while the first stages are on their way.
#pragma once

#include "common/gemm.cuh"
#include "isa/hopper.cuh"

namespace gemm {

// What a warp gives the epilogue at a time.
template <int COLUMNS>
struct Slice {
    static constexpr int BLOCK_M = 8, BLOCK_N = COLUMNS, THREADS = 32;
    __device__ __forceinline__ static uint32_t thread() { return threadIdx.x % 32; }
};

// 64 GROUPS x N outputs a CTA.
template <int GROUPS, int N, int RING, int COLUMNS = GROUP>
struct WideTile {
    using Part = Slice<COLUMNS>;
    static constexpr int BLOCK_M = 64 * GROUPS, BLOCK_N = N, STAGES = RING;
    static constexpr int MATH = 128 * GROUPS, THREADS = MATH + 128;
    static constexpr int STAGE_BYTES = (BLOCK_M + BLOCK_N) * BLOCK_K * 2;
    // Of a thread at the launch, 65,536 of a CTA; the copying warpgroup gives away what the sums need.
    static constexpr int REGISTERS_COPY = 40, REGISTERS_MATH = 232;
};

// The widest fits 227 KiB. Which is taken says src/ops/gemm/config.rs; where rows are few the ring is for reading W.
using TileWide = WideTile<2, 256, 4>;
using TileSquare = WideTile<2, 128, 4>;
using TileHalf = WideTile<1, 128, 8>;
using TileShort = WideTile<1, 64, 8>;
using TileNarrow = WideTile<1, 32, 12, 32>;
using TileSlim = WideTile<1, 16, 16, 16>;

// Where sums end: in slices, or in stages, with a bias of their columns each.
template <class T, bool STAGED>
struct Results {
    Sums<typename T::Part> slices[T::MATH / 32];
};
template <class T>
struct Results<T, true> {
    isa::Shared<bf16> bias[T::STAGES][T::BLOCK_N < 64 ? 64 : T::BLOCK_N];
};

template <class T, bool STAGED>
struct WideSmem {
    isa::Shared<bf16> x[T::STAGES][T::BLOCK_M * BLOCK_K];
    isa::Shared<bf16> w[T::STAGES][T::BLOCK_N * BLOCK_K];
    Results<T, STAGED> results;
    isa::Mbarrier full[T::STAGES], empty[T::STAGES];
};

// A stage of the ring as a warpgroup has it for its 64 rows of results.
struct Slot {
    isa::Shared<bf16>*x, *w, *bias;
};

// How a product's operands lie, and whether its chains go on from sums of before.
template <isa::Major X, isa::Major W, bool RESUMES>
struct Roles {
    static constexpr isa::Major OF_X = X, OF_W = W;
    static constexpr bool RESUMED = RESUMES;
};
using Forward = Roles<isa::Major::k, isa::Major::k, false>;

template <class E>
struct WideArgs : E::Maps {
    isa::TensorMap x;  // boxes of 64 terms by BLOCK_M, or panels
    isa::TensorMap w;  // boxes of 64 terms by box, or panels
    Operands in;
    typename E::Args out;
    int box;    // rows of W that are adjacent for adjacent columns, and divides them
    int steps;  // stages of terms
};

// A slot of the ring and the parity of its present round.
template <class T>
struct Turn {
    int slot = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next() {
        slot++;
        if (slot == T::STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// Waits until a stage is empty, for that many bytes.
template <class T, bool STAGED>
__device__ __forceinline__ void claim(WideSmem<T, STAGED>& smem, Turn<T> turn, int bytes) {
    // In the first round that of the phase before the first, which is over.
    isa::mbarrier_wait(&smem.empty[turn.slot], turn.parity ^ 1);
    isa::mbarrier_arrive_expect_tx(&smem.full[turn.slot], bytes);
}

// Panels of `count` rows of an operand from `first` on, for 64 terms from k on.
template <int COUNT>
__device__ __forceinline__ void copy_panels(isa::Shared<bf16>* to, const isa::TensorMap* from, isa::Mbarrier* full,
                                            int first, int k) {
#pragma unroll 1
    for (int i = 0; i < COUNT; i += GROUP) {
        isa::tma_load(to + i * BLOCK_K, from, full, first + i, k);
    }
}

template <class T, class E, class R>
__device__ __forceinline__ void copy_stage(WideSmem<T, E::STAGED>& smem, int slot, const WideArgs<E>& args, Corner at, int k) {
    if constexpr (R::OF_X == isa::Major::k) {
        isa::tma_load(smem.x[slot], &args.x, &smem.full[slot], k, at.row);
    } else {
        copy_panels<T::BLOCK_M>(smem.x[slot], &args.x, &smem.full[slot], at.row, k);
    }
    if constexpr (R::OF_W == isa::Major::mn) {
        copy_panels<T::BLOCK_N>(smem.w[slot], &args.w, &smem.full[slot], at.column, k);
    } else {
#pragma unroll 1
        for (int column = 0; column < T::BLOCK_N; column += args.box) {
            int row = E::weight_row(args.out, args.in, at.column + column);
            // A box past the last row is zeros.
            isa::tma_load(smem.w[slot] + column * BLOCK_K, &args.w, &smem.full[slot], k, row < 0 ? args.in.cols : row);
        }
    }
}

// An operand of a stage. Along the terms eight rows of 128 bytes are one swizzle pattern; across them eight terms are, and
// panels lie one behind the other.
template <isa::Major M>
__device__ __forceinline__ uint64_t stage_descriptor(const isa::Shared<bf16>* start) {
    return isa::matrix_descriptor(start, M == isa::Major::k ? 16 : GROUP * BLOCK_K * 2, 1024, isa::Swizzle::b128);
}

// Bytes to the operand `k` terms further.
template <isa::Major M>
__device__ __forceinline__ constexpr int terms_further(int k) {
    return M == isa::Major::k ? 2 * k : 2 * GROUP * k;
}

// sums += one stage.
template <class T, class R, bool STAGED>
__device__ __forceinline__ void multiply_stage(const WideSmem<T, STAGED>& smem, int slot, int group,
                                               isa::WgmmaAcc<T::BLOCK_N>& sums, bool accumulate) {
    uint64_t x = stage_descriptor<R::OF_X>(&smem.x[slot][group * 64 * BLOCK_K]);
    uint64_t w = stage_descriptor<R::OF_W>(&smem.w[slot][0]);
#pragma unroll
    for (int k = 0; k < BLOCK_K; k += 16) {
        uint64_t x_at = isa::advance(x, terms_further<R::OF_X>(k)), w_at = isa::advance(w, terms_further<R::OF_W>(k));
        isa::wgmma<R::OF_X, R::OF_W>(sums, x_at, w_at, accumulate || k > 0);
    }
}

// A warp's sums of 16 rows from m on, and of columns from n on, from what `from` holds [rows][ld]; zeros outside, and
// where it is null: a branch around the loads makes ptxas serialise the products. A quarter of a warp takes a whole
// sector of 32 bytes.
template <int N>
__device__ __forceinline__ void resume(const float* from, const Operands& in, isa::WgmmaAcc<N>& sums, int m, int n) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 2; i += 2) {
        int row = m + lane / 4 + i / 2 % 2 * 8, column = n + i / 4 * 8 + lane % 4 * 2;
        bool inside = from && row < in.rows && column < in.cols;
        float2 v = inside ? isa::load<float2>(from + (size_t)row * in.ld + column) : make_float2(0.0f, 0.0f);
        sums[i] = v.x;
        sums[i + 1] = v.y;
    }
}

// Slice `number` of a warp's sums: COLUMNS after COLUMNS, of each the upper eight rows and the lower.
template <int COLUMNS, int N>
__device__ __forceinline__ void put_slice(Sums<Slice<COLUMNS>>& slice, isa::WgmmaAcc<N>& sums, int number, int lane) {
#pragma unroll
    for (int i = 0; i < N / COLUMNS * 2; i++) {
        if (i == number) {
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                int first = (i / 2 * (COLUMNS / 8) + j) * 4 + i % 2 * 2;
                isa::store(&slice.at[lane / 4][j * 8 + lane % 4 * 2], make_float2(sums[first], sums[first + 1]));
            }
        }
    }
}

// The epilogue of a warp's 16 rows from m on, slice by slice.
template <class T, class E>
__device__ __forceinline__ void put_slices(Sums<typename T::Part>& slice, const WideArgs<E>& args,
                                           isa::WgmmaAcc<T::BLOCK_N>& sums, int m, int n, int lane) {
    const Operands& in = args.in;
    int columns = E::columns(args.out, in);
#pragma unroll 1
    for (int i = 0; i < T::BLOCK_N / T::Part::BLOCK_N * 2; i++) {
        int row = m + i % 2 * 8, column = n + i / 2 * T::Part::BLOCK_N;
        // An epilogue may count on a tile that has something of the product.
        if (row >= in.rows || column >= columns) continue;
        put_slice(slice, sums, i, lane);
        isa::sync_warp();
        E::template finish<typename T::Part>(args.out, in, slice, row, column);
        isa::sync_warp();
    }
}

template <class T, class E, class R = Forward>
__device__ __forceinline__ void run_wide(const WideArgs<E>& args) {
    auto& smem = isa::smem<WideSmem<T, E::STAGED>>();
    const Operands& in = args.in;
    int columns = E::columns(args.out, in), steps = args.steps;
    int tiles = ((in.rows + T::BLOCK_M - 1) / T::BLOCK_M) * ((columns + T::BLOCK_N - 1) / T::BLOCK_N);
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; i++) {
            isa::mbarrier_init(&smem.full[i], 1);
            isa::mbarrier_init(&smem.empty[i], T::MATH / 32);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
    Turn<T> turn;
    if (threadIdx.x >= T::MATH) {
        if constexpr (T::MATH > 128) isa::registers_decrease<T::REGISTERS_COPY>();
        if (threadIdx.x > T::MATH) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            Corner at = corner<T>(tile, in.rows, columns);
            for (int step = 0; step < steps; step++) {
                claim(smem, turn, T::STAGE_BYTES);
                copy_stage<T, E, R>(smem, turn.slot, args, at, step * BLOCK_K);
                turn.next();
            }
            if constexpr (E::STAGED) {
                // A stage for each warpgroup's results, with what they add to.
                for (int group = 0; group < T::MATH / 128; group++) {
                    Slot slot{smem.x[turn.slot], smem.w[turn.slot], smem.results.bias[turn.slot]};
                    claim(smem, turn, E::template bytes<T::BLOCK_N>(args.out));
                    E::template fetch<T::BLOCK_N>(args, args.out, slot, &smem.full[turn.slot], at.row + group * 64,
                                                  at.column);
                    turn.next();
                }
            }
        }
        return;
    }
    if constexpr (T::MATH > 128) isa::registers_increase<T::REGISTERS_MATH>();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    isa::WgmmaAcc<T::BLOCK_N> sums;
    // What is to be given back next: a stage of terms, or the results of the tile before.
    int before = -1;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        Corner at = corner<T>(tile, in.rows, columns);
        if constexpr (R::RESUMED) E::start(args.out, in, sums, at.row + warp * 16, at.column);
        for (int step = 0; step < steps; step++) {
            isa::mbarrier_wait(&smem.full[turn.slot], turn.parity);
            isa::wgmma_fence();
            multiply_stage<T, R>(smem, turn.slot, warp / 4, sums, R::RESUMED || step > 0);
            isa::wgmma_commit();
            // The step before has ended; this one runs on.
            isa::wgmma_wait<1>();
            if (before >= 0 && lane == 0) {
                if (E::STAGED && step == 0) isa::bulk_wait_read<0>();
                isa::mbarrier_arrive(&smem.empty[before]);
            }
            before = turn.slot;
            turn.next();
        }
        isa::wgmma_wait<0>();
        if (lane == 0) {
            isa::mbarrier_arrive(&smem.empty[before]);
        }
        before = -1;
        if constexpr (E::STAGED) {
#pragma unroll 1
            for (int group = 0; group < T::MATH / 128; group++) {
                Slot slot{smem.x[turn.slot], smem.w[turn.slot], smem.results.bias[turn.slot]};
                bool mine = group == warp / 4;
                isa::mbarrier_wait(&smem.full[turn.slot], turn.parity);
                if (mine) {
                    E::stage(args.out, slot, sums, warp % 4, lane);
                    isa::fence_proxy_async();
                    before = turn.slot;
                }
                // No lane waits for a stage any more that another gives back.
                isa::sync_warp();
                if (lane == 0 && mine) {
                    E::template send<T::BLOCK_N>(args, args.out, slot, warp % 4, at.row + warp * 16, at.column);
                    isa::bulk_commit();
                } else if (lane == 0) {
                    isa::mbarrier_arrive(&smem.empty[turn.slot]);
                }
                turn.next();
            }
        } else {
            put_slices<T, E>(smem.results.slices[warp], args, sums, at.row + warp * 16, at.column, lane);
        }
    }
    // The ring outlives what is still on its way out of it.
    if (E::STAGED && lane == 0) isa::bulk_wait_read<0>();
}

}  // namespace gemm
