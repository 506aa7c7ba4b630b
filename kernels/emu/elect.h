// Emulation of the election of a lane of a warp, as a rendezvous of all lanes.
#pragma once
#include "emu/warp.h"

namespace isa {

inline bool elect(emu::Where where = emu::Where::current()) {
    ballot(true, where);
    return threadIdx.x % 32 == 0;
}

}  // namespace isa
