// Epilogues of common/gemm_sm90a.cuh whose tensors move by TMA through the pipeline stages. The tensor that is added
// (residual) loads during the tile's own main loop, and the results are stored during the main loop of the next tile.
// Between the two loops there are only arithmetic and shared memory accesses.
//
// Each warpgroup has one pipeline stage for the results of its 64 rows, or two if they are fp32. A stage has memory for x and for W. A tensor
// that is as wide as the tile uses the memory of W. A tensor that is half as wide (y of SwiGLU) uses the memory of x.
// Both tensors are stored in panels of 64 columns, or in one narrower panel. Rows of a panel are swizzled, so that
// neither stmatrix nor ldmatrix has bank conflicts. Each warp stores its own 16 rows. TMA clips boxes at the last row
// and column of the tensor.
#pragma once

#include "common/gemm_sm90a.cuh"
#include "common/linear.cuh"

namespace gemm {

struct StagedMaps {
    // Boxes of y: the columns of a panel by 16 rows, or by all rows of y if it has fewer.
    isa::TensorMap y;
    isa::TensorMap more;  // SwiGLU: gate_up, in boxes as those of y; linear: the residual, in boxes of 16 to 64 rows
    isa::TensorMap bias;  // boxes: the columns of a tile
};

// Columns per panel of a tensor with COLUMNS columns.
template <int COLUMNS>
constexpr int PANEL = COLUMNS < 64 ? COLUMNS : COLUMNS % 64 == 0 ? 64 : 32;

// Addresses that a lane passes to ldmatrix and stmatrix for a warp's 16 rows in panels of WIDTH columns.
template <int WIDTH>
struct Panels {
    isa::Shared<bf16>* start;
    int mine;

    __device__ __forceinline__ Panels(isa::Shared<bf16>* start, int warp, int lane) : start(start) {
        int row = warp * 16 + lane % 16;
        mine = row * WIDTH + (lane / 16 ^ row * WIDTH / 64 % (WIDTH / 8)) * 8;
    }
    // Returns the address for the 16 columns that start at `column`.
    __device__ __forceinline__ isa::Shared<bf16>* at(int column) const {
        return start + column / WIDTH * 64 * WIDTH + (mine ^ column % WIDTH);
    }
};

// A lane's part of 16 rows by 16 columns: four pairs in fragment layout.
struct Part {
    float v[8];

    // Takes 16 columns of a thread's accumulators, starting at `column`.
    template <class S>
    __device__ __forceinline__ Part(S& sums, int column) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = sums[column / 2 + i];
    }
    // Adds the bias. `bias` points to the bias of the first of the 16 columns.
    __device__ __forceinline__ void add_bias(const isa::Shared<bf16>* bias, int lane) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            uint32_t b = isa::load<uint32_t>(bias + i * 2 + lane % 4 * 2);
            v[i] += isa::lo(b);
            v[i + 1] += isa::hi(b);
            v[i + 2] += isa::lo(b);
            v[i + 3] += isa::hi(b);
        }
    }
    __device__ __forceinline__ void add(const isa::Shared<bf16>* from) {
        isa::Frag<4> pairs;
        isa::ldmatrix(pairs, from);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] += isa::lo(pairs[i]);
            v[2 * i + 1] += isa::hi(pairs[i]);
        }
    }
    __device__ __forceinline__ void store(isa::Shared<bf16>* to) const {
        isa::Frag<4> pairs;
#pragma unroll
        for (int i = 0; i < 4; i++) pairs[i] = isa::pack(v[2 * i], v[2 * i + 1]);
        isa::stmatrix(to, pairs);
    }
};

// Stores a warp's 16 rows of COLUMNS columns to position (`row`, `column`) of the tensor.
template <int COLUMNS>
__device__ __forceinline__ void send_panels(const isa::TensorMap* map, isa::Shared<bf16>* panels, int warp, int row,
                                            int column) {
    constexpr int WIDTH = PANEL<COLUMNS>;
#pragma unroll 1
    for (int i = 0; i < COLUMNS; i += WIDTH) {
        isa::tma_store(map, panels + i * 64 + warp * 16 * WIDTH, column + i, row);
    }
}

// y = sums (+ bias) (+ residual). The gradient of an input uses this epilogue, too. If the gradient is added to an
// existing dx, this dx is the residual.
struct StagedLinear : Linear {
    static constexpr bool STAGED = true;
    using Maps = StagedMaps;

    // Returns the number of bytes of residual and bias that TMA loads into the stage of a warpgroup.
    template <int N>
    __device__ __forceinline__ static int bytes(const Args& to, const Operands& in) {
        return (to.residual ? min(64, (in.rows + 15) / 16 * 16) * N * 2 : 0) + (to.bias ? N * 2 : 0);
    }
    template <int N>
    __device__ __forceinline__ static void fetch(const Maps& maps, const Args& to, Slot slot, isa::Mbarrier* full, int row,
                                                 int column) {
        if (to.bias) isa::tma_load(slot.bias, &maps.bias, full, column, 0);
        if (!to.residual) return;
#pragma unroll 1
        for (int i = 0; i < N; i += PANEL<N>) {
            isa::tma_load(slot.w + i * 64, &maps.more, full, column + i, row);
        }
    }
    template <int N>
    __device__ __forceinline__ static void stage(const Args& to, Slot slot, isa::WgmmaAcc<N>& sums, int warp, int lane,
                                                 int) {
        Panels<PANEL<N>> place(slot.w, warp, lane);
#pragma unroll
        for (int column = 0; column < N; column += 16) {
            Part y(sums, column);
            if (to.bias) y.add_bias(slot.bias + column, lane);
            if (to.residual) y.add(place.at(column));
            y.store(place.at(column));
        }
    }
    template <int N>
    __device__ __forceinline__ static void send(const Maps& maps, const Args&, Slot slot, int warp, int row, int column) {
        send_panels<N>(&maps.y, slot.w, warp, row, column);
    }
};

struct StagedSwiGlu : SwiGlu {
    static constexpr bool STAGED = true;
    using Maps = StagedMaps;

    template <int N>
    __device__ __forceinline__ static int bytes(const Args& to, const Operands&) {
        return to.bias ? N * 2 : 0;
    }
    template <int N>
    __device__ __forceinline__ static void fetch(const Maps& maps, const Args& to, Slot slot, isa::Mbarrier* full, int,
                                                 int column) {
        if (to.bias) isa::tma_load(slot.bias, &maps.bias, full, column, 0);
    }
    template <int N>
    __device__ __forceinline__ static void stage(const Args& to, Slot slot, isa::WgmmaAcc<N>& sums, int warp, int lane,
                                                 int) {
        Panels<64> both(slot.w, warp, lane);
        Panels<PANEL<N / 2>> one(slot.x, warp, lane);
        // This loop over groups is not unrolled: 64 unrolled exponentials would be most of the kernel's code.
#pragma unroll 1
        for (int n = 0; n < N; n += GROUP) {
            float group[GROUP / 2];
#pragma unroll
            for (int i = 0; i < N; i += GROUP) {
                if (i != n) continue;
#pragma unroll
                for (int j = 0; j < GROUP / 2; j++) group[j] = sums[i / 2 + j];
            }
#pragma unroll
            for (int i = 0; i < GROUP / 2; i += 16) {
                Part gate(group, i), up(group, i + 32);
                if (to.bias) {
                    gate.add_bias(slot.bias + n + i, lane);
                    up.add_bias(slot.bias + n + i + 32, lane);
                }
                if (to.gate_up) {
                    gate.store(both.at(n + i));
                    up.store(both.at(n + i + 32));
                }
#pragma unroll
                for (int j = 0; j < 8; j++) gate.v[j] = math::silu(gate.v[j]) * up.v[j];
                gate.store(one.at(n / 2 + i));
            }
        }
    }
    template <int N>
    __device__ __forceinline__ static void send(const Maps& maps, const Args& to, Slot slot, int warp, int row, int column) {
        if (to.gate_up) send_panels<N>(&maps.more, slot.w, warp, row, column);
        send_panels<N / 2>(&maps.y, slot.x, warp, row, column / 2);
    }
};

// dw += sums: each sum is complete before it is added to dw. In the operands x is dy, W is x, rows = N, cols = K, depth is
// the tokens, and ld is that of dw. A stage holds panels of 32 columns of dw.
struct StagedSums : InOrder {
    static constexpr bool STAGED = true;
    using Maps = StagedMaps;  // y: dw in boxes of a panel by 16 rows; more: by 16 to 64 rows
    struct Args {
        float* dw;  // [N][ld]; columns from K on are not written
    };
    // The memory of W holds 64 rows of half of a tile's columns, or of all if a stage has two blocks of terms.
    template <class T>
    static constexpr int PIECES = 2 / T::DEPTH;
    static constexpr int COLUMNS = 32;
    // bf16 elements of memory per panel, and per row of a panel.
    static constexpr int PANEL_SIZE = 64 * COLUMNS * 2, ROW = COLUMNS * 2;

    template <int N>
    __device__ __forceinline__ static int bytes(const Args&, const Operands& in) {
        return min(64, (in.rows + 15) / 16 * 16) * N * 4;
    }
    template <int N>
    __device__ __forceinline__ static void fetch(const Maps& maps, const Args&, Slot slot, isa::Mbarrier* full, int row,
                                                 int column) {
#pragma unroll 1
        for (int i = 0; i < N / COLUMNS; i++) {
            isa::tma_load(slot.w + i * PANEL_SIZE, &maps.more, full, (column + i * COLUMNS) * 2, row);
        }
    }
    // Adds the sums of WIDTH columns from column `first` of the tile on. Columns of a panel are swizzled in chunks of 16
    // bytes, so that a warp's pairs have no bank conflicts.
    template <int WIDTH, int N>
    __device__ __forceinline__ static void stage(const Args&, Slot slot, isa::WgmmaAcc<N>& sums, int warp, int lane,
                                                 int first) {
        isa::Shared<bf16>* mine = slot.w + (warp * 16 + lane / 4) * ROW + lane % 2 * 4;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j++) {
            int chunk = (j % 4 * 2 + lane % 4 / 2) ^ lane / 4;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                isa::Shared<bf16>* at = mine + j / 4 * PANEL_SIZE + half * 8 * ROW + chunk * 8;
                float2 v = isa::load<float2>(at);
                v.x += sums[(first / 8 + j) * 4 + half * 2];
                v.y += sums[(first / 8 + j) * 4 + half * 2 + 1];
                isa::store(at, v);
            }
        }
    }
    template <int N>
    __device__ __forceinline__ static void send(const Maps& maps, const Args&, Slot slot, int warp, int row, int column) {
#pragma unroll 1
        for (int i = 0; i < N / COLUMNS; i++) {
            isa::tma_store(&maps.y, slot.w + i * PANEL_SIZE + warp * 16 * ROW, (column + i * COLUMNS) * 2, row);
        }
    }
};

}  // namespace gemm
