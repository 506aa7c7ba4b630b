// Instructions that only compute capability 9.0 has, for kernels declared by KERNEL_SM90A.
#pragma once
#include "isa/isa.cuh"
#include "isa/kernel_sm90a.cuh"
#ifdef __CUDACC__
#include "isa/fence.cuh"
#include "isa/mbarrier.cuh"
#include "isa/tma.cuh"
#include "isa/elect.cuh"
#include "isa/registers.cuh"
#include "isa/cluster.cuh"
#include "isa/wgmma.cuh"
#else
#include "emu/fence.h"
#include "emu/mbarrier.h"
#include "emu/tma.h"
#include "emu/elect.h"
#include "emu/registers.h"
#include "emu/cluster.h"
#include "emu/wgmma.h"
#endif
