// What a wgmma is told of an operand in shared memory (PTX ISA, warpgroup-level matrix instructions, matrix descriptor).
#pragma once

namespace isa {

// Whether neighbours in memory are neighbours along k, or along the operand's rows.
enum class Major : uint32_t { k = 0, mn = 1 };

// The span in which 16-byte chunks are permuted: chunk ^ (address / 128) % 8, 4 or 2, on addresses of shared memory, so
// tiles begin at multiples of 1024, 512 or 256. The numbers are the descriptor's; a tensor map has others.
enum class Swizzle : uint32_t { none = 0, b128 = 1, b64 = 2, b32 = 3 };

// The 64 bits, of byte addresses and distances that are multiples of 16. Of an operand of `span` swizzled bytes:
//   K-major: rows are `span` bytes apart, eight of them `stride`; a k16 step further is `start` + 32 in the span, and
//   `leading` says nothing (CUTLASS writes 16). Not swizzled: eight rows of 16 bytes are one block, blocks are
//   `leading` apart along k and `stride` along rows.
//   MN-major: `span` bytes of rows for one k, eight k are one block; blocks are `stride` apart along k and `leading`
//   along rows. Not swizzled: 8 rows x 8 k are one block, `leading` apart along k and `stride` along rows.
// `base_offset` is 0 where the pattern begins at a multiple of its 8 rows.
__device__ __forceinline__ constexpr uint64_t descriptor(uint32_t start, uint32_t leading, uint32_t stride,
                                                         uint32_t base_offset, Swizzle swizzle) {
    return uint64_t((start & 0x3ffffu) >> 4) | uint64_t((leading & 0x3ffffu) >> 4) << 16 |
           uint64_t((stride & 0x3ffffu) >> 4) << 32 | uint64_t(base_offset & 7u) << 49 | uint64_t(swizzle) << 62;
}

// Of a tile that begins a swizzle pattern.
template <class T>
__device__ __forceinline__ uint64_t matrix_descriptor(const Shared<T>* start, int leading, int stride, Swizzle swizzle) {
    return descriptor(shared_address(start), uint32_t(leading), uint32_t(stride), 0, swizzle);
}

// The same operand `bytes` further (a multiple of 16): addresses stay below 2^18, so nothing carries out of the field.
__device__ __forceinline__ constexpr uint64_t advance(uint64_t descriptor, int bytes) {
    return descriptor + uint64_t(int64_t(bytes) / 16);
}

}  // namespace isa
