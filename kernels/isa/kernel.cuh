// KERNEL(name, Args, threads, min_ctas) { ... } defines a kernel with `threads` threads per CTA and at least `min_ctas`
// CTAs per SM. Its code receives `args`. The function is in namespace `kernel`, so that a namespace with the kernel's
// name can hold its types. The symbol is the plain name.
#pragma once

#define KERNEL(name, Args, threads, min_ctas)                                                          \
    namespace kernel {                                                                                 \
    extern "C" __global__ void __launch_bounds__(threads, min_ctas) name(const __grid_constant__ Args args); \
    }                                                                                                  \
    __global__ void __launch_bounds__(threads, min_ctas) kernel::name(const __grid_constant__ Args args)

// Defines a kernel whose result bits may depend on the order of its threads (atomics on floats).
#define KERNEL_UNORDERED(name, Args, threads, min_ctas) KERNEL(name, Args, threads, min_ctas)
