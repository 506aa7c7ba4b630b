// Kernels that fail in the ways a wrong kernel can, to see what omr reports and whether its process ends.
// Arguments: the address of a store; the milliseconds of a wait.
// Grid: one thread.
// Bound: none. The kernels run once on each new kind of GPU.
// Reference: tests/runtime/kernels/faults.rs.
#include "isa/isa.cuh"

namespace faults {
struct Args {
    uint32_t* at;
    long long milliseconds;
};
}  // namespace faults

// Stores to an address that has no memory.
KERNEL(faults_store, faults::Args, 32, 1) {
    if (threadIdx.x == 0) *args.at = 1;
}

// Traps. The emulator has no such instruction.
KERNEL(faults_trap, faults::Args, 32, 1) {
#if defined(__CUDACC__)
    __trap();
#endif
}

// Ends only after `milliseconds`, so that a GPU is never lost even if the process cannot end it. The emulator does not wait.
KERNEL(faults_wait, faults::Args, 32, 1) {
#if defined(__CUDACC__)
    for (long long i = 0; i < args.milliseconds; i++) __nanosleep(1000000);
#endif
}
