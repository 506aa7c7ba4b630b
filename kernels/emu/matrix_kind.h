// Kinds of warp instructions that a lane posts.
#pragma once
#include <stdint.h>

namespace emu {

enum class Matrix : uint32_t {
    load1, load2, load4, load1_trans, load2_trans, load4_trans,
    store1, store2, store4, store1_trans, store2_trans, store4_trans,
    mma,
};
enum class Exchange : uint32_t { index, bitwise_xor, down, up, ballot };

// Offset of Exchange kinds in the kind of an Op; matrix instructions come first.
constexpr uint32_t kExchange = 16;

}  // namespace emu
