// Emulation of clusters: CTAs that run at the same time and can access each other's shared memory.
#pragma once
#include "emu/tma.h"

namespace emu {

uint32_t cluster_rank();
uint32_t cluster_size();
void cluster_arrive(const Where& where);
void cluster_wait(const Where& where);
void mbarrier_arrive_at(const void* at, uint32_t rank, const Where& where);
void tile_load_multicast(const void* destination, const Tile& tile, const void* mbarrier, uint32_t ranks,
                         const Where& where);

}  // namespace emu

namespace isa {

inline uint32_t cluster_rank() { return emu::cluster_rank(); }
inline uint32_t cluster_size() { return emu::cluster_size(); }

inline void cluster_arrive(emu::Where where = emu::Where::current()) {
    if (emu::pass("cluster_arrive", where)) emu::cluster_arrive(where);
}

inline void cluster_wait(emu::Where where = emu::Where::current()) {
    if (emu::pass("cluster_wait", where)) emu::cluster_wait(where);
}

inline void mbarrier_arrive_at(Mbarrier* at, uint32_t rank, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_arrive_at", where)) emu::mbarrier_arrive_at(at, rank, where);
}

template <class T>
inline void tma_load_multicast(Shared<T>* destination, const TensorMap* map, Mbarrier* at, uint32_t ranks, int x, int y,
                               emu::Where where = emu::Where::current()) {
    emu::tile_load_multicast(destination, {map->words, 2, {x, y}}, at, ranks, where);
}

}  // namespace isa
