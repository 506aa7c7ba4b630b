// KERNEL_SM90A: a kernel of compute capability 9.0 alone. The image for the others has an entry that traps; its body,
// a template that nothing instantiates there, may call instructions they lack.
#pragma once

#if !defined(__CUDACC__)
#define KERNEL_SM90A(name, Args, threads, min_ctas) EMU_KERNEL(name, Args, threads, min_ctas, 0)
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KERNEL_SM90A(name, Args, threads, min_ctas) KERNEL(name, Args, threads, min_ctas)
#else
#define KERNEL_SM90A(name, Args, threads, min_ctas)                   \
    namespace kernel {                                                \
    template <int>                                                    \
    __device__ __forceinline__ void name##_sm90a(const Args& args);   \
    }                                                                 \
    KERNEL(name, Args, threads, min_ctas) { __trap(); }               \
    template <int>                                                    \
    __device__ __forceinline__ void kernel::name##_sm90a(const Args& args)
#endif
