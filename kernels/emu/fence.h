// Emulation of the fences between the accesses of threads and those of asynchronous units.
#pragma once
#include "emu/thread.h"

namespace emu {

void fence_proxy();
void fence_inits();

}  // namespace emu

namespace isa {

inline void fence_proxy_async(emu::Where where = emu::Where::current()) {
    if (emu::pass("fence_proxy_async", where)) emu::fence_proxy();
}

inline void fence_mbarrier_init(emu::Where where = emu::Where::current()) {
    if (emu::pass("fence_mbarrier_init", where)) emu::fence_inits();
}

}  // namespace isa
