// Kinds of warp instructions that a lane posts.
#pragma once
#include <stdint.h>

namespace emu {

// Parts of the kind of a matrix load or store: a mask of its number of matrices (1, 2 or 4), and flags.
constexpr uint32_t kMatrices = 7, kTransposed = 8, kStore = 16;
constexpr uint32_t kMma = 32;

enum class Exchange : uint32_t { index, bitwise_xor, down, up, ballot };

// Offset of Exchange kinds in the kind of an Op; matrix instructions come first.
constexpr uint32_t kExchange = 64;

}  // namespace emu
