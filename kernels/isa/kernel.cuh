// KERNEL(name, Args, threads a CTA, min CTAs an SM) { body that sees `args` }
// The function lives in namespace `kernel`, so that a namespace of the same name may hold its types; its symbol is
// the bare name.
#pragma once

#define KERNEL(name, Args, threads, min_ctas)                                                          \
    namespace kernel {                                                                                 \
    extern "C" __global__ void __launch_bounds__(threads, min_ctas) name(const __grid_constant__ Args args); \
    }                                                                                                  \
    __global__ void __launch_bounds__(threads, min_ctas) kernel::name(const __grid_constant__ Args args)

// A kernel whose bits may depend on the order of its threads (atomics on floats).
#define KERNEL_UNORDERED(name, Args, threads, min_ctas) KERNEL(name, Args, threads, min_ctas)
