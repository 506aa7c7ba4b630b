// Epilogues of common/gemm_sm90a.cuh whose tensors go by TMA through the ring's stages: what a tile adds to comes under its
// main loop, its results leave under the next tile's, and between the two stand only arithmetic and shared memory.
//
// A warpgroup has a stage for its 64 rows: in W's part of it lies a tensor of the tile's columns, in x's part one of half as
// many, both in panels of 64 columns or of as many as there are, swizzled by their rows so that neither stmatrix nor
// ldmatrix meets bank conflicts. A warp stores its 16 rows itself. Boxes are clipped at the tensor's last row and column.
#pragma once

#include "common/gemm_sm90a.cuh"
#include "common/linear.cuh"

namespace gemm {

struct StagedMaps {
    isa::TensorMap y;     // boxes of a panel's columns by 16 rows
    isa::TensorMap more;  // the same of gate_up; of a residual by 64 rows
    isa::TensorMap bias;  // boxes of a tile's columns
};

// Columns of a panel of COLUMNS.
template <int COLUMNS>
constexpr int PANEL = COLUMNS < 64 ? COLUMNS : 64;

// What a lane names to ldmatrix and stmatrix of a warp's 16 rows in panels of WIDTH columns.
template <int WIDTH>
struct Panels {
    isa::Shared<bf16>* start;
    int mine;

    __device__ __forceinline__ Panels(isa::Shared<bf16>* start, int warp, int lane) : start(start) {
        int row = warp * 16 + lane % 16;
        mine = row * WIDTH + (lane / 16 ^ row * WIDTH / 64 % (WIDTH / 8)) * 8;
    }
    // For 16 columns from `column` on.
    __device__ __forceinline__ isa::Shared<bf16>* at(int column) const {
        return start + column / WIDTH * 64 * WIDTH + (mine ^ column % WIDTH);
    }
};

// A lane's part of 16 rows by 16 columns: four pairs, as a fragment has them.
struct Part {
    float v[8];

    // From column `column` on of a thread's sums.
    template <class S>
    __device__ __forceinline__ Part(S& sums, int column) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = sums[column / 2 + i];
    }
    // `bias` is that of the first column.
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

// A warp's rows of COLUMNS columns, to where `row` and `column` stand in the tensor.
template <int COLUMNS>
__device__ __forceinline__ void send_panels(const isa::TensorMap* map, isa::Shared<bf16>* panels, int warp, int row,
                                            int column) {
    constexpr int WIDTH = PANEL<COLUMNS>;
#pragma unroll 1
    for (int i = 0; i < COLUMNS; i += WIDTH) {
        isa::tma_store(map, panels + i * 64 + warp * 16 * WIDTH, column + i, row);
    }
}

// y = sums (+ bias) (+ residual): also an input's gradient, which may go on from what is there.
struct StagedLinear : Linear {
    static constexpr bool STAGED = true;
    using Maps = StagedMaps;

    // That come into a stage.
    template <int N>
    __device__ __forceinline__ static int bytes(const Args& to) {
        return (to.residual ? 64 * N * 2 : 0) + (to.bias ? N * 2 : 0);
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
    __device__ __forceinline__ static void stage(const Args& to, Slot slot, isa::WgmmaAcc<N>& sums, int warp, int lane) {
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
    __device__ __forceinline__ static int bytes(const Args& to) {
        return to.bias ? N * 2 : 0;
    }
    template <int N>
    __device__ __forceinline__ static void fetch(const Maps& maps, const Args& to, Slot slot, isa::Mbarrier* full, int,
                                                 int column) {
        if (to.bias) isa::tma_load(slot.bias, &maps.bias, full, column, 0);
    }
    template <int N>
    __device__ __forceinline__ static void stage(const Args& to, Slot slot, isa::WgmmaAcc<N>& sums, int warp, int lane) {
        Panels<64> both(slot.w, warp, lane);
        Panels<PANEL<N / 2>> one(slot.x, warp, lane);
        // One group after the other: 64 exponentials in a row would be most of a kernel.
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

}  // namespace gemm
