// What a kernel includes: instructions as functions. For nvcc they are inline PTX (this folder, the only place with
// any); for a host compiler they are the emulator's twins (emu/). DESIGN section 4 and 5.
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
