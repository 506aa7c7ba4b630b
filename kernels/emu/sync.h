// Emulation of the barriers of a CTA and of a warp.
#pragma once
#include "emu/thread.h"

namespace emu {

// All threads of a warp arrive together at barrier `id`. threads = 0 means the complete CTA.
void barrier(uint32_t id, uint32_t threads, bool wait, const Where& where);
void warp_barrier(uint32_t mask, const Where& where);

}  // namespace emu

namespace isa {

inline void sync_cta(emu::Where where = emu::Where::current()) {
    if (emu::pass("sync_cta", where)) emu::barrier(0, 0, true, where);
}

inline void sync_named(int id, int threads, emu::Where where = emu::Where::current()) {
    if (emu::pass("sync_named", where)) emu::barrier(uint32_t(id), uint32_t(threads), true, where);
}

inline void arrive_named(int id, int threads, emu::Where where = emu::Where::current()) {
    if (emu::pass("arrive_named", where)) emu::barrier(uint32_t(id), uint32_t(threads), false, where);
}

inline void sync_warp(uint32_t mask = 0xffffffffu, emu::Where where = emu::Where::current()) {
    if (emu::pass("sync_warp", where)) emu::warp_barrier(mask, where);
}

}  // namespace isa
