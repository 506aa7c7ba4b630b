// Reads the clock of a multiprocessor. Two readings by one multiprocessor give its frequency between them.
#pragma once
#include "isa/isa.cuh"

namespace isa {

// Cycles of the multiprocessor, which counts on between launches, and a time that all multiprocessors share.
struct Clock { uint64_t cycles, nanoseconds, multiprocessor; };

#ifdef __CUDACC__
__device__ __forceinline__ Clock read_clock() {
    Clock now;
    asm volatile("{.reg .u32 n; mov.u64 %0, %%clock64; mov.u64 %1, %%globaltimer; mov.u32 n, %%smid; cvt.u64.u32 %2, n;}"
                 : "=l"(now.cycles), "=l"(now.nanoseconds), "=l"(now.multiprocessor));
    return now;
}
#else
// The emulator's cycles and nanoseconds are the cycles of the host, and each CTA counts as a multiprocessor.
inline Clock read_clock() {
    uint64_t now = __builtin_ia32_rdtsc();
    return {now, now, blockIdx.x};
}
#endif

}  // namespace isa
