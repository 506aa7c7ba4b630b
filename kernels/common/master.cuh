// Halves of an exact fp32 master: bf16 `hi`, rounded, and its signed rest `lo`. src/runtime/ops/adamw/master.rs has the same.
#pragma once

#include "isa/isa.cuh"

namespace master {

// Joins the halves, which are the low bits of both words.
__device__ __forceinline__ float join(uint32_t hi, uint32_t lo) {
    return __uint_as_float((hi << 16) + (uint32_t)(int32_t)(int16_t)lo);
}

// Returns the rounded upper half. Ties round away from zero, so that the rest fits in 16 signed bits.
__device__ __forceinline__ uint32_t upper(float value) { return (__float_as_uint(value) + 0x8000u) >> 16; }

}  // namespace master
