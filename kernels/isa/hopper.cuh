// The instructions that compute capability 9.0 alone has, for kernels declared by KERNEL_SM90A.
#pragma once
#include "isa/isa.cuh"
#ifdef __CUDACC__
#include "isa/fence.cuh"
#else
#include "emu/fence.h"
#endif
