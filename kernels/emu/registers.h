// Emulation of setmaxnreg, which moves registers from one warpgroup of a CTA to another.
#pragma once
#include "emu/thread.h"

namespace emu {

void registers(uint32_t count, bool increase, const Where& where);

}  // namespace emu

namespace isa {

template <int N>
inline void registers_decrease(emu::Where where = emu::Where::current()) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes multiples of 8 from 24 to 256");
    emu::registers(N, false, where);
}

template <int N>
inline void registers_increase(emu::Where where = emu::Where::current()) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes multiples of 8 from 24 to 256");
    emu::registers(N, true, where);
}

}  // namespace isa
