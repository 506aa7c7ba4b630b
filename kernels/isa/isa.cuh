// The header that every kernel includes: GPU instructions as functions. For nvcc they are inline PTX, which only this
// folder contains. For a host compiler they are the emulator's versions of the same functions (emu/). See
// docs/design/kernels.md and docs/design/emulator.md.
#pragma once
#include <stdint.h>
#ifdef __CUDACC__
#include "isa/kernel.cuh"
#include "isa/bf16.cuh"
#include "isa/memory.cuh"
#include "isa/sync.cuh"
#include "isa/warp.cuh"
#include "isa/copy.cuh"
#include "isa/matrix.cuh"
#include "isa/atomic.cuh"
#else
#include "emu/cuda.h"
#include "isa/bf16.cuh"
#include "emu/kernel.h"
#include "emu/memory.h"
#include "emu/sync.h"
#include "emu/warp.h"
#include "emu/copy.h"
#include "emu/matrix.h"
#include "emu/atomic.h"
#endif
