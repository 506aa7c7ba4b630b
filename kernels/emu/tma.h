// Emulation of bulk copies between global and shared memory: boxes of a tensor, or plain bytes.
#pragma once
#include "emu/mbarrier.h"

namespace emu {

// Box of a tensor map at these coordinates, innermost first.
struct Tile {
    const uint64_t* map;
    uint32_t rank;
    int32_t at[5];
};

void tile_load(const void* destination, const Tile& tile, const void* mbarrier, const Where& where);
void tile_store(const Tile& tile, const void* source, const Where& where);
void tile_prefetch(const uint64_t* map, const Where& where);
void bulk_load(const void* destination, const void* source, int bytes, const void* mbarrier, const Where& where);
void bulk_store(void* destination, const void* source, int bytes, const Where& where);
void bulk_commit();
void bulk_wait(uint32_t newest, bool read);

}  // namespace emu

namespace isa {

// Tensor map in the encoding of Driver::tensor_map; a member of a kernel's Args.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

template <class T>
inline void tma_load(Shared<T>* destination, const TensorMap* map, Mbarrier* at, int x, int y,
                     emu::Where where = emu::Where::current()) {
    emu::tile_load(destination, {map->words, 2, {x, y}}, at, where);
}

template <class T>
inline void tma_load(Shared<T>* destination, const TensorMap* map, Mbarrier* at, int x, int y, int z,
                     emu::Where where = emu::Where::current()) {
    emu::tile_load(destination, {map->words, 3, {x, y, z}}, at, where);
}

template <class T>
inline void tma_load(Shared<T>* destination, const TensorMap* map, Mbarrier* at, int x, int y, int z, int w,
                     emu::Where where = emu::Where::current()) {
    emu::tile_load(destination, {map->words, 4, {x, y, z, w}}, at, where);
}

template <class T>
inline void tma_store(const TensorMap* map, const Shared<T>* source, int x, int y,
                      emu::Where where = emu::Where::current()) {
    emu::tile_store({map->words, 2, {x, y}}, source, where);
}

template <class T>
inline void tma_store(const TensorMap* map, const Shared<T>* source, int x, int y, int z,
                      emu::Where where = emu::Where::current()) {
    emu::tile_store({map->words, 3, {x, y, z}}, source, where);
}

inline void tma_prefetch(const TensorMap* map, emu::Where where = emu::Where::current()) {
    emu::tile_prefetch(map->words, where);
}

template <class T>
inline void bulk_load(Shared<T>* destination, const T* source, int bytes, Mbarrier* at,
                      emu::Where where = emu::Where::current()) {
    emu::bulk_load(destination, source, bytes, at, where);
}

template <class T>
inline void bulk_store(T* destination, const Shared<T>* source, int bytes, emu::Where where = emu::Where::current()) {
    emu::bulk_store(destination, source, bytes, where);
}

inline void bulk_commit(emu::Where where = emu::Where::current()) {
    if (emu::pass("bulk_commit", where)) emu::bulk_commit();
}

template <int N>
inline void bulk_wait(emu::Where where = emu::Where::current()) {
    if (emu::pass("bulk_wait", where)) emu::bulk_wait(N, false);
}

template <int N>
inline void bulk_wait_read(emu::Where where = emu::Where::current()) {
    if (emu::pass("bulk_wait_read", where)) emu::bulk_wait(N, true);
}

}  // namespace isa
