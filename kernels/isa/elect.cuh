// The election of a lane of a warp.
#pragma once

namespace isa {

// Returns true in one lane of the warp. All 32 lanes call this, and each call chooses the same lane. In a branch on the
// result, the compiler knows that one thread runs. It then issues the bulk copies of the branch directly. In a branch
// on the number of the lane it issues each in a loop over the lanes.
__device__ __forceinline__ bool elect() {
    uint32_t chosen;
    asm volatile("{\n .reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.u32 %0, 1, 0, p;\n}" : "=r"(chosen));
    return chosen != 0;
}

}  // namespace isa
