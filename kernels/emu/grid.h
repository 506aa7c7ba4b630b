// Emulation of programmatic dependent launch. Kernels of a stream run one after the other here, so there is nothing to
// wait for.
#pragma once
#include "emu/thread.h"

namespace isa {

inline void grid_dependency_wait(emu::Where where = emu::Where::current()) { emu::pass("grid_dependency_wait", where); }

inline void grid_dependency_launch() {}

}  // namespace isa
