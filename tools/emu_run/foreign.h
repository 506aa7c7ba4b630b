// Substitutes for PTX and CUDA names that foreign kernels use and omr's do not, for tools/emu-run. The table in
// docs/dev/design/foreign_kernels.md says what replaces what.
#pragma once
#include <assert.h>

#include "isa/hopper.cuh"

using CUtensorMap = isa::TensorMap;
#define __cvta_generic_to_shared(p) isa::shared_address(p)
#define __cluster_dims__(...)

namespace foreign {

// Returns %clusterid.x.
inline uint32_t cluster_index() { return blockIdx.x / isa::cluster_size(); }

// Loads a box of a map of three dimensions to the same offset in each CTA of `ranks`.
template <class T>
inline void tma_load_multicast(isa::Shared<T>* destination, const CUtensorMap* map, isa::Mbarrier* at, uint32_t ranks,
                               int x, int y, int z, emu::Where where = emu::Where::current()) {
    emu::tile_load_multicast(destination, {map->words, 3, {x, y, z}}, at, ranks, where);
}

// Accumulators of a wgmma of N columns for kernels that declare them as float [N / 16][8].
template <int N>
struct Rows {
    isa::WgmmaAcc<N> sums;
    struct Row {
        isa::WgmmaAcc<N>* sums;
        int row;
        float& operator[](int i) { return (*sums)[row * 8 + i]; }
    };
    Row operator[](int row) { return {&sums, row}; }
};

}  // namespace foreign
