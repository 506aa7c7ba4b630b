// KERNEL_SM90A defines a kernel that only compute capability 9.0 can run. In images for other GPUs its entry traps.
// There its code is a template that is never instantiated, so it may call instructions that those GPUs do not have.
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
