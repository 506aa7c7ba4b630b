// Counts bank conflicts: the cycles that accesses of a warp to shared memory cost beyond one pass over the 32 banks of
// 4 bytes. In the emulator, lanes run one after the other. The accesses that a warp would make together are those with
// the same place in the source and the same count of earlier accesses of their lane at that place. A lane that skips an
// access is matched wrongly from then on.
#include <algorithm>

#include "emu/runtime.h"

namespace emu {

namespace {

constexpr uint32_t kBanks = 32, kWord = 4;

// Returns the extra cycles of one access. One pass over the banks serves as many lanes as fit in 128 bytes. Several
// lanes that access the same word count once.
uint32_t conflicts(const Together& together, uint32_t bytes) {
    uint32_t lanes = std::min(kLanes, kBanks * kWord / std::max(bytes, kWord)), extra = 0;
    for (uint32_t first = 0; first < kLanes; first += lanes) {
        std::vector<uint32_t> words;
        for (uint32_t lane = first; lane < first + lanes; lane++) {
            if ((together.lanes >> lane & 1) == 0) continue;
            for (uint32_t at = 0; at < std::max(bytes, kWord); at += kWord) {
                words.push_back((together.offset[lane] + at) / kWord);
            }
        }
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        uint32_t hits[kBanks] = {}, worst = 1;
        for (uint32_t word : words) worst = std::max(worst, ++hits[word % kBanks]);
        extra += worst - 1;
    }
    return extra;
}

}  // namespace

void count_banks(Fiber& fiber, int32_t place, bool write, uint32_t offset, uint32_t bytes) {
    uint64_t key = uint64_t(uint32_t(place)) << 8 | bytes << 1 | uint32_t(write);
    Lockstep& lockstep = fiber.warp->lockstep[key];
    uint32_t number = lockstep.accesses[fiber.lane]++ - lockstep.counted;
    if (lockstep.open.size() <= number) lockstep.open.resize(number + 1);
    lockstep.open[number].lanes |= 1u << fiber.lane;
    lockstep.open[number].offset[fiber.lane] = offset;
    while (!lockstep.open.empty() && lockstep.open.front().lanes == ~0u) {
        instance().bank_conflicts += conflicts(lockstep.open.front(), bytes);
        lockstep.open.pop_front();
        lockstep.counted++;
    }
}

void count_last_banks(Warp& warp) {
    for (auto& [key, lockstep] : warp.lockstep) {
        for (const Together& together : lockstep.open) {
            warp.cta->emu->bank_conflicts += conflicts(together, uint32_t(key) >> 1 & 0x7f);
        }
    }
    warp.lockstep.clear();
}

}  // namespace emu
