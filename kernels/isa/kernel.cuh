// KERNEL(name, Args, threads, min_ctas) { ... } defines a kernel with `threads` threads per CTA. The compiler limits
// registers so that at least `min_ctas` CTAs fit on an SM. The code in the braces reads its arguments from `args`, of
// type `Args`. The function is `kernel::name`, because a namespace called `name` may contain the kernel's types. In PTX
// the kernel is called `name`, without the namespace.
#pragma once

#define KERNEL(name, Args, threads, min_ctas)                                                          \
    namespace kernel {                                                                                 \
    extern "C" __global__ void __launch_bounds__(threads, min_ctas) name(const __grid_constant__ Args args); \
    }                                                                                                  \
    __global__ void __launch_bounds__(threads, min_ctas) kernel::name(const __grid_constant__ Args args)

// Defines a kernel like KERNEL. Use it if the order in which threads run can change bits of the results, for example
// because of atomic additions of floats.
#define KERNEL_UNORDERED(name, Args, threads, min_ctas) KERNEL(name, Args, threads, min_ctas)
