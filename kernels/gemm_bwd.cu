// Gradients of linear layers: dx = dy W, or dx + dy W rounded once; dw = dy^T x, or dw + dy^T x; dbias += the sum of dy
// over tokens.
// Shapes: x, dx [T, K] not padded, dy [T][stride >= N]; W bf16 and dw f32 [N][ld] with ld = K rounded up to 64; dbias
// f32 [N].
// Grid: one tile per CTA, 4 warps. dx: tokens x K as in the forward pass. dw: N x K, each CTA over all tokens; 784 (o)
// to 8,288 (gate_up) CTAs in the 7B model.
// Bound: the tensor cores (2 T N K flops each; mma.sync reaches about 60 % of wgmma on Hopper).
// Reference: src/runtime/ops/linear.rs; tests/runtime/kernels/gemm_bwd.rs.
// Benchmark: `omr bench ops`.
#include "common/gemm.cuh"
#include "isa/isa.cuh"

// The rows of some operands are the terms of the chain: W for dx, and dy and x for dw. They are copied into a stage in
// their memory layout: 64 rows of 64 columns, panel by panel, with chunks permuted as in common/gemm.cuh. ldmatrix
// transposes them on the way to registers; nothing is transposed in memory. Each output is one chain of k16 steps over
// its ascending terms.
namespace gemm {

// Elements of a panel: 64 rows by 64 columns of a stage.
constexpr int PANEL = BLOCK_K * GROUP;
// A bf16x2 register with the number one in both halves.
constexpr uint32_t ONES = 0x3f803f80;

// A matrix [rows, columns] with `stride` elements between rows.
struct Matrix {
    const bf16* data;
    int rows, columns, stride;
};

// Copies BLOCK_K rows from `row` and COLUMNS columns from `column` as panels, PART elements at a time. Elements outside
// the matrix become zeros.
template <class T, int COLUMNS, int PART>
__device__ __forceinline__ void load_panels_by(isa::Shared<bf16>* to, const Matrix& from, int row, int column) {
    constexpr int ROW_STEP = T::THREADS / 8;
    constexpr int COPIES = COLUMNS / GROUP * (BLOCK_K / ROW_STEP);
    constexpr int UNROLL = PART == 8 ? COPIES : 1;
    int chunk = threadIdx.x % 8;
#pragma unroll UNROLL
    for (int i = 0; i < COPIES; i++) {
        int panel = i / (BLOCK_K / ROW_STEP);
        int in_panel = threadIdx.x / 8 + i % (BLOCK_K / ROW_STEP) * ROW_STEP;
        int r = row + in_panel, c = column + panel * GROUP + chunk * 8;
        int left = r < from.rows ? from.columns - c : 0;
        const bf16* p = from.data + (size_t)r * from.stride + c;
#pragma unroll
        for (int j = 0; j < 8; j += PART) {
            isa::Shared<bf16>* cell = to + panel * PANEL + swizzled(in_panel, chunk) + j;
            bool inside = left > j;
            if constexpr (PART == 1) {
                *cell = inside ? p[j] : bf16{0};
            } else {
                isa::cp_async<PART * 2>(cell, inside ? p + j : from.data, inside ? PART * 2 : 0);
            }
        }
    }
}

template <class T, int COLUMNS>
__device__ __forceinline__ void load_panels(isa::Shared<bf16>* to, const Matrix& from, int row, int column) {
    if (from.stride % 8 == 0) {
        load_panels_by<T, COLUMNS, 8>(to, from, row, column);
    } else if (from.stride % 4 == 0) {
        load_panels_by<T, COLUMNS, 4>(to, from, row, column);
    } else if (from.stride % 2 == 0) {
        load_panels_by<T, COLUMNS, 2>(to, from, row, column);
    } else {
        load_panels_by<T, COLUMNS, 1>(to, from, row, column);
    }
}

// Returns the position of the row that this lane passes to ldmatrix, to read the warp's columns as operand B from
// panels. Lanes 0-15 address the k16 step of one fragment, lanes 16-31 that of the next fragment. XOR with bits of the
// position reaches other fragments; other steps are rows further down.
template <class T>
__device__ __forceinline__ int columns_at(const Warp<T>& warp) {
    int chunk = warp.column % GROUP / 8 + warp.lane / 16 * Warp<T>::SHARING;
    return warp.column / GROUP * PANEL + swizzled(warp.lane % 16, chunk);
}

// Returns the position of the row that this lane passes to ldmatrix, to read the warp's rows as operand A from panels.
// Lanes 0-7 and 8-15 address eight outputs each for the first eight terms of the step, lanes 16-31 for the next eight.
template <class T>
__device__ __forceinline__ int rows_at(const Warp<T>& warp) {
    int chunk = warp.row % GROUP / 8 + warp.lane / 8 % 2;
    return warp.row / GROUP * PANEL + swizzled(warp.lane / 16 * 8 + warp.lane % 8, chunk);
}

// Multiplies two adjacent column fragments at a time with all row fragments.
template <class T>
__device__ __forceinline__ void multiply_columns(const isa::Shared<bf16>* panels, int at, int k, Step<T>& step,
                                                 isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
#pragma unroll
    for (int j = 0; j < T::FRAGS_N; j += 2) {
        isa::ldmatrix_trans(step.w, panels + (at ^ j * Warp<T>::SHARING * 8) + k * GROUP);
#pragma unroll
        for (int i = 0; i < T::FRAGS_M; i++) {
            isa::mma<0>(sums[i][j], step.x[i], step.w);
            isa::mma<1>(sums[i][j + 1], step.x[i], step.w);
        }
    }
}

// fp32 sums [rows][ld]; ld is even and at least `columns`.
struct Floats {
    float* data;
    int rows, columns, ld;
};

// Calls f(fragment, index of the pair's first element, address, true if the second element is also a column of `all`)
// for the pairs of a warp's fragments that lie in `all`.
template <class T, class F>
__device__ __forceinline__ void each_pair(const Floats& all, Corner at, const Warp<T>& warp,
                                          isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N], F f) {
#pragma unroll
    for (int i = 0; i < T::FRAGS_M; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = at.row + warp.row + i * 16 + warp.lane / 4 + half * 8;
#pragma unroll
            for (int j = 0; j < T::FRAGS_N; j++) {
                int column = at.column + warp.column + j * Warp<T>::SHARING * 8 + warp.lane % 4 * 2;
                if (row < all.rows && column < all.columns) {
                    f(sums[i][j], half * 2, all.data + (size_t)row * all.ld + column, column + 1 < all.columns);
                }
            }
        }
    }
}

// Fills the accumulators with the values of `all`, so that their chains continue. If the number of columns is odd, the
// value behind the last column goes into an accumulator that is never stored.
template <class T>
__device__ __forceinline__ void resume(const Floats& all, Corner at, const Warp<T>& warp,
                                       isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
    each_pair<T>(all, at, warp, sums, [](isa::Acc& acc, int i, const float* p, bool) {
        float2 v = isa::load<float2>(p);
        acc[i] = v.x;
        acc[i + 1] = v.y;
    });
}

template <class T>
__device__ __forceinline__ void keep(const Floats& all, Corner at, const Warp<T>& warp,
                                     isa::Acc (&sums)[T::FRAGS_M][T::FRAGS_N]) {
    each_pair<T>(all, at, warp, sums, [](isa::Acc& acc, int i, float* p, bool second) {
        if (second) {
            isa::store(p, make_float2(acc[i], acc[i + 1]));
        } else {
            *p = acc[i];
        }
    });
}

// Arguments of dx. x is dy [rows = T, depth >= terms], zero from column `terms` = N on; w is W [terms][ld]; cols = K.
// A second pair adds in.more.x in.more.w, whose right operand has more.depth rows.
// If `from` is given, the chains continue from its sums [T][ld]. If `to` is given, the sums are written to it in fp32,
// and dx is not written.
struct DgradArgs {
    Operands in;
    bf16* dx;
    float* from;
    float* to;
    int accumulate, terms;
};

template <class T, bool CHAIN>
__device__ __forceinline__ void dgrad(const DgradArgs& args) {
    const Operands& in = args.in;
    Corner at = corner<T>(blockIdx.x, in.rows, in.cols);
    auto& ring = isa::smem<Stages<T>>();
    Loader<T> loader{in};
    loader.row = threadIdx.x / 8;
    loader.chunk = threadIdx.x % 8;
    loader.m = at.row;
    Warp<T> warp;
    Step<T> operands;
    isa::Acc sums[T::FRAGS_M][T::FRAGS_N];
    clear<T>(sums);
    if constexpr (CHAIN) {
        if (args.from) {
            resume<T>(Floats{args.from, in.rows, in.cols, in.ld}, at, warp, sums);
        }
    }
    int x_at = swizzled(warp.row + warp.lane % 16, warp.lane / 16), w_at = columns_at<T>(warp);
    int steps = (in.depth + BLOCK_K - 1) / BLOCK_K;
    stream<T>(
        steps + (in.more.depth + BLOCK_K - 1) / BLOCK_K,
        [&](int slot, int step) {
            bool first = step < steps;
            Pair pair = in.at(step, steps);
            Matrix weight{pair.w, first ? args.terms : pair.depth, in.ld, in.ld};
            int term = (first ? step : step - steps) * BLOCK_K;
            loader.load_x(ring.x[slot], pair, term);
            load_panels_by<T, T::BLOCK_N, 8>(ring.w[slot], weight, term, at.column);
        },
        [&](int slot) {
#pragma unroll
            for (int k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
                for (int i = 0; i < T::FRAGS_M; i++) {
                    isa::ldmatrix(operands.x[i], &ring.x[slot][(x_at ^ k) + i * 16 * BLOCK_K]);
                }
                multiply_columns<T>(ring.w[slot], w_at, k, operands, sums);
            }
        });
    if constexpr (CHAIN) {
        if (args.to) {
            keep<T>(Floats{args.to, in.rows, in.cols, in.ld}, at, warp, sums);
            return;
        }
    }
    // The tile of sums overwrites the ring.
    isa::sync_cta();
    auto& tile = isa::smem<Sums<T>>();
    put<T>(tile, warp, sums);
    isa::sync_cta();
    bool whole = in.cols % 4 == 0;
    each_quad<T>(in, at.row, at.column, [&](int row, int column, int count, size_t place) {
        Quad sum = sums_at<T>(tile, row, column);
        bf16* dx = args.dx + place;
        store_quad(dx, args.accumulate ? sum + load_quad(dx, whole, count) : sum, whole, count);
    });
}

struct WgradArgs {
    const bf16* x;   // [tokens, k]
    const bf16* dy;  // [tokens][dy_stride]
    float* from;     // dw, or null: the chains start at zero
    float* dw;       // [n][ld]; columns from k on are not written
    float* dbias;    // [n], or null
    int tokens, n, k, ld;
    int dy_stride;
    int adds;  // 1 if complete sums are added to dw
};

// Computes dw. A warp's accumulators start with the values of `from`, and are written or added to dw. A quarter of a warp accesses a
// complete sector of 32 bytes.
template <class T>
__device__ __forceinline__ void wgrad(const WgradArgs& args) {
    Corner at = corner<T>(blockIdx.x, args.n, args.k);
    auto& ring = isa::smem<Stages<T>>();
    Matrix dy{args.dy, args.tokens, args.n, args.dy_stride}, x{args.x, args.tokens, args.k, args.k};
    Warp<T> warp;
    Step<T> operands;
    isa::Acc sums[T::FRAGS_M][T::FRAGS_N];
    clear<T>(sums);
    if (args.from) {
        resume<T>(Floats{args.from, args.n, args.k, args.ld}, at, warp, sums);
    }
    int dy_at = rows_at<T>(warp), x_at = columns_at<T>(warp);
    stream<T>(
        (args.tokens + BLOCK_K - 1) / BLOCK_K,
        [&](int slot, int step) {
            load_panels<T, T::BLOCK_M>(ring.x[slot], dy, step * BLOCK_K, at.row);
            load_panels<T, T::BLOCK_N>(ring.w[slot], x, step * BLOCK_K, at.column);
        },
        [&](int slot) {
#pragma unroll
            for (int k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
                for (int i = 0; i < T::FRAGS_M; i++) {
                    isa::ldmatrix_trans(operands.x[i], &ring.x[slot][(dy_at ^ i * 16) + k * GROUP]);
                }
                multiply_columns<T>(ring.w[slot], x_at, k, operands, sums);
            }
        });
    Floats dw{args.dw, args.n, args.k, args.ld};
    if (args.adds) {
        each_pair<T>(dw, at, warp, sums, [](isa::Acc& acc, int i, const float* p, bool) {
            float2 v = isa::load<float2>(p);
            acc[i] += v.x;
            acc[i + 1] += v.y;
        });
    }
    keep<T>(dw, at, warp, sums);
}

// Tile of dbias. dbias is a product of dy^T with ones, so its chain is the one that a column of ones in x would give. A
// warp handles 16 of the CTA's 64 columns of dy.
using TileBias = Tile<64, 64, 4, 1, 8>;

struct BiasRing {
    isa::Shared<bf16> dy[TileBias::STAGES][PANEL];
};

__device__ __forceinline__ void dbias(const WgradArgs& args) {
    int column = blockIdx.x * GROUP;
    auto& ring = isa::smem<BiasRing>();
    Matrix dy{args.dy, args.tokens, args.n, args.dy_stride};
    Warp<TileBias> warp;
    isa::Frag<4> rows;
    isa::Frag<2> ones;
    isa::Acc sums;
    ones[0] = ONES;
    ones[1] = ONES;
    sums.zero();
    // All columns of the fragment hold the same sum. The first lane of each quad uses the first column.
    int n = column + warp.row + warp.lane / 4;
    bool first = warp.lane % 4 == 0;
    if (first && n < args.n) {
        sums[0] = args.dbias[n];
    }
    if (first && n + 8 < args.n) {
        sums[2] = args.dbias[n + 8];
    }
    int dy_at = rows_at<TileBias>(warp);
    stream<TileBias>(
        (args.tokens + BLOCK_K - 1) / BLOCK_K,
        [&](int slot, int step) { load_panels<TileBias, GROUP>(ring.dy[slot], dy, step * BLOCK_K, column); },
        [&](int slot) {
#pragma unroll
            for (int k = 0; k < BLOCK_K; k += 16) {
                isa::ldmatrix_trans(rows, &ring.dy[slot][dy_at + k * GROUP]);
                isa::mma(sums, rows, ones);
            }
        });
    if (first && n < args.n) {
        args.dbias[n] = sums[0];
    }
    if (first && n + 8 < args.n) {
        args.dbias[n + 8] = sums[2];
    }
}

}  // namespace gemm

// registers linear_dgrad_m16 <= 80
// registers linear_dgrad_m64 <= 112
// registers linear_dgrad_m128 <= 255
// registers linear_dgrad_chain_m16 <= 80
// registers linear_dgrad_chain_m64 <= 128
// registers linear_dgrad_chain_m128 <= 255
// registers linear_wgrad_m64 <= 128
// registers linear_wgrad_m128 <= 255
// registers linear_dbias <= 80
KERNEL(linear_dgrad_m16, gemm::DgradArgs, gemm::TileM16::THREADS, 2) { gemm::dgrad<gemm::TileM16, false>(args); }
KERNEL(linear_dgrad_m64, gemm::DgradArgs, gemm::TileM64::THREADS, 2) { gemm::dgrad<gemm::TileM64, false>(args); }
KERNEL(linear_dgrad_m128, gemm::DgradArgs, gemm::TileM128::THREADS, 2) { gemm::dgrad<gemm::TileM128, false>(args); }
KERNEL(linear_dgrad_chain_m16, gemm::DgradArgs, gemm::TileM16::THREADS, 2) { gemm::dgrad<gemm::TileM16, true>(args); }
KERNEL(linear_dgrad_chain_m64, gemm::DgradArgs, gemm::TileM64::THREADS, 2) { gemm::dgrad<gemm::TileM64, true>(args); }
KERNEL(linear_dgrad_chain_m128, gemm::DgradArgs, gemm::TileM128::THREADS, 2) { gemm::dgrad<gemm::TileM128, true>(args); }
KERNEL(linear_wgrad_m64, gemm::WgradArgs, gemm::TileM64::THREADS, 2) { gemm::wgrad<gemm::TileM64>(args); }
KERNEL(linear_wgrad_m128, gemm::WgradArgs, gemm::TileM128::THREADS, 2) { gemm::wgrad<gemm::TileM128>(args); }
KERNEL(linear_dbias, gemm::WgradArgs, gemm::TileBias::THREADS, 2) { gemm::dbias(args); }
