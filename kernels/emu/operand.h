// The operands of a wgmma as matrices: where a descriptor's 16-byte chunks lie, and the product.
#pragma once
#include <stdint.h>

namespace emu {

// What the 64 bits of a descriptor say, in bytes.
struct Descriptor {
    uint32_t start, leading, stride;
    uint32_t base_offset;
    uint32_t layout;  // 0 not swizzled, 1, 2, 3: in spans of 128, 64, 32 bytes

    explicit Descriptor(uint64_t bits)
        : start(uint32_t(bits & 0x3fff) << 4),
          leading(uint32_t(bits >> 16 & 0x3fff) << 4),
          stride(uint32_t(bits >> 32 & 0x3fff) << 4),
          base_offset(uint32_t(bits >> 49 & 7)),
          layout(uint32_t(bits >> 62)) {}

    uint32_t span() const { return layout == 0 ? 16 : 256u >> layout; }
    // The permutation is one of absolute addresses.
    uint32_t permuted(uint32_t address) const {
        return layout == 0 ? address : address ^ (address >> 7 & ((8u >> (layout - 1)) - 1)) << 4;
    }
    // The chunk of eight k of row `row` of a K-major operand, k / 8 = `half`.
    uint32_t along_k(uint32_t row, uint32_t half) const {
        uint32_t at = start + row / 8 * stride + row % 8 * span() + half * (layout == 0 ? leading : 16);
        return permuted(at);
    }
    // The chunk of eight rows of column `k` of an MN-major operand, row / 8 = `group`.
    uint32_t along_rows(uint32_t group, uint32_t k) const {
        if (layout == 0) return start + group * stride + k / 8 * leading + k % 8 * 16;
        uint32_t groups = span() / 16;  // in one span
        return permuted(start + group / groups * leading + group % groups * 16 + k / 8 * stride + k % 8 * span());
    }
};

// Calls use(number, address) for each chunk of a k16 step of `rows` rows; the number as widen() expects it.
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

// Chunks to [k][row] floats, a row of them `stride` apart.
void widen_chunks(const unsigned char* const* chunks, uint32_t rows, bool mn, float* to, uint32_t stride);
// sums [64][columns] += a [16][64]^T b [16][columns]: one chain of fused products over ascending k.
void multiply_step(const float* a, const float* b, float* sums, uint32_t columns);

// Bits kept below the last of an f32 when the terms of a step are aligned: what is reported of Hopper's tensor cores.
// tests/kernels/calibrate_sums.rs asks a card.
constexpr int kGuardBits = 2;
// A step as tensor cores add it: products and the sum so far are exact, aligned to the largest of them, cut kGuardBits
// below an f32's last bit, added, and the whole is cut to f32. `a` and `b` are k16 apart by their strides.
float aligned_sum(const float* a, uint32_t a_stride, const float* b, uint32_t b_stride, float sum);
// multiply_step by such sums.
void multiply_aligned(const float* a, const float* b, float* sums, uint32_t columns);

}  // namespace emu
