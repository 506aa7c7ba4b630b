// Operands of a wgmma as matrices: the places of a descriptor's 16-byte chunks, and the product.
#pragma once
#include <stdint.h>

#include "emu/api.h"

namespace emu {

// Fields of a descriptor, in bytes.
struct Descriptor {
    uint32_t start, leading, stride;
    uint32_t base_offset;
    uint32_t layout;  // 0: not swizzled; 1, 2, 3: swizzled in spans of 128, 64, 32 bytes

    explicit Descriptor(uint64_t bits)
        : start(uint32_t(bits & 0x3fff) << 4),
          leading(uint32_t(bits >> 16 & 0x3fff) << 4),
          stride(uint32_t(bits >> 32 & 0x3fff) << 4),
          base_offset(uint32_t(bits >> 49 & 7)),
          layout(uint32_t(bits >> 62)) {}

    uint32_t span() const { return layout == 0 ? 16 : 256u >> layout; }
    // Row, of 128 bytes, of the swizzle pattern in which an address lies.
    uint32_t pattern_row(uint32_t address) const { return layout == 0 ? 0 : address >> 7 & ((16u >> layout) - 1); }
    // Applies the swizzle, which permutes absolute addresses.
    uint32_t permuted(uint32_t address) const { return address ^ pattern_row(address) << 4; }
    // Returns the address of the chunk with eight k of row `row` of a K-major operand, where k / 8 = `half`.
    uint32_t along_k(uint32_t row, uint32_t half) const {
        uint32_t at = start + row / 8 * stride + row % 8 * span() + half * (layout == 0 ? leading : 16);
        return permuted(at);
    }
    // Returns the address of the chunk with eight rows of column `k` of an MN-major operand, where row / 8 = `group`.
    uint32_t along_rows(uint32_t group, uint32_t k) const {
        if (layout == 0) return start + group * stride + k / 8 * leading + k % 8 * 16;
        uint32_t groups = span() / 16;  // chunks per span
        return permuted(start + group / groups * leading + group % groups * 16 + k / 8 * stride + k % 8 * span());
    }
};

// Calls use(number, address) for each chunk of a k16 step of `rows` rows. The numbers are those that widen_chunks
// expects.
template <class F>
void each_chunk(const Descriptor& descriptor, uint32_t rows, bool mn, F use) {
    if (mn) {
        for (uint32_t k = 0; k < 16; k++) {
            for (uint32_t g = 0; g < rows / 8; g++) use(k * (rows / 8) + g, descriptor.along_rows(g, k));
        }
    } else {
        for (uint32_t row = 0; row < rows; row++) {
            for (uint32_t half = 0; half < 2; half++) use(row * 2 + half, descriptor.along_k(row, half));
        }
    }
}

constexpr uint32_t kMaxColumns = 256, kStep = 16, kTileRows = 64;

// Converts chunks to [k][row] floats; consecutive k are `stride` floats apart.
void widen_chunks(const unsigned char* const* chunks, uint32_t rows, bool mn, float* to, uint32_t stride);
// Computes sums [64][columns] += a [16][64]^T b [16][columns], as one chain of fused products over ascending k.
void multiply_step(const float* a, const float* b, float* sums, uint32_t columns);

// Rule by which a generation of tensor cores adds a k16 step. Each block of products is one sum with the accumulator:
// every term is aligned to the largest exponent and truncated to `bits` fractional bits, the terms are added exactly,
// and the total is truncated to f32. The exponent of a product is the sum of its factors' exponents; it is not
// normalised. Subnormal numbers and zero have the exponent -126. tests/goldens/isa/sums holds examples, and
// tests/runtime/kernels/calibrate_sums.rs compares the rules with a GPU.
struct SumRule {
    uint32_t block;
    int bits;
};
constexpr SumRule kHopper{16, 25}, kAmpere{8, 24};
inline SumRule sum_rule(uint32_t sums) { return sums == EMU_HOPPER ? kHopper : kAmpere; }
// Operand of multiply_aligned: element k of row (or column) i is at[i * row + k * step].
struct Floats {
    const float* at;
    uint32_t row, step;
};
// Computes sums [rows][columns] += a b for one k16 step by `rule`. The columns of b are adjacent, their number is a
// multiple of 8, and there are at most kTileRows rows.
void multiply_aligned(Floats a, uint32_t rows, const float* b, uint32_t columns, float* sums, SumRule rule);

}  // namespace emu
