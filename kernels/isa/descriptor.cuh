// Matrix descriptor: the 64 bits that describe a wgmma operand in shared memory (PTX ISA, warpgroup-level matrix
// instructions, matrix descriptor).
#pragma once

namespace isa {

// Major dimension of an operand: elements that are adjacent in memory are adjacent along k, or along the operand's rows
// (mn).
enum class Major : uint32_t { k = 0, mn = 1 };

// Span of bytes in which the 16-byte chunks are permuted. In spans of 128, 64 or 32 bytes, the chunk number is XORed
// with (address / 128) % 8, 4 or 2, where `address` is the shared memory address. Tiles must therefore begin at
// multiples of 1024, 512 or 256. The values are those of the descriptor; a tensor map uses other values.
enum class Swizzle : uint32_t { none = 0, b128 = 1, b64 = 2, b32 = 3 };

// Encodes a descriptor. Addresses and distances are in bytes and multiples of 16. For a swizzle span of `span` bytes:
// - K-major: rows are `span` bytes apart, groups of eight rows are `stride` apart. The next k16 step is at `start` + 32
//   within the span. `leading` is ignored (CUTLASS writes 16). Without swizzle: eight rows of 16 bytes are one block;
//   blocks are `leading` apart along k and `stride` apart along rows.
// - MN-major: `span` bytes hold consecutive rows for one k, and eight k are one block. Blocks are `stride` apart along
//   k and `leading` apart along rows. Without swizzle: 8 rows x 8 k are one block; blocks are `leading` apart along k
//   and `stride` apart along rows. `base_offset` is 0 if the swizzle pattern begins at a multiple of its size, which is
//   8 rows.
__device__ __forceinline__ constexpr uint64_t descriptor(uint32_t start, uint32_t leading, uint32_t stride,
                                                         uint32_t base_offset, Swizzle swizzle) {
    return uint64_t((start & 0x3ffffu) >> 4) | uint64_t((leading & 0x3ffffu) >> 4) << 16 |
           uint64_t((stride & 0x3ffffu) >> 4) << 32 | uint64_t(base_offset & 7u) << 49 | uint64_t(swizzle) << 62;
}

// Returns the descriptor of a tile that starts at the beginning of a swizzle pattern.
template <class T>
__device__ __forceinline__ uint64_t matrix_descriptor(const Shared<T>* start, int leading, int stride, Swizzle swizzle) {
    return descriptor(shared_address(start), uint32_t(leading), uint32_t(stride), 0, swizzle);
}

// Returns the descriptor of the same operand `bytes` later (a multiple of 16). Addresses stay below 2^18, so the
// addition does not carry out of the address field.
__device__ __forceinline__ constexpr uint64_t advance(uint64_t descriptor, int bytes) {
    return descriptor + uint64_t(int64_t(bytes) / 16);
}

}  // namespace isa
