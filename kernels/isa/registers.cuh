// Moves registers from one warpgroup of a CTA to another. All 128 threads of the warpgroup must call it.
#pragma once

namespace isa {

// Lowers the registers per thread to N, which must not exceed the current number.
template <int N>
__device__ __forceinline__ void registers_decrease() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes multiples of 8 from 24 to 256");
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// Raises the registers per thread to N. Waits until other warpgroups have released enough.
template <int N>
__device__ __forceinline__ void registers_increase() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes multiples of 8 from 24 to 256");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

}  // namespace isa
