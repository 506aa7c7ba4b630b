// State of global memory during one launch: which thread stored each word through isa/, and what CTAs have published to
// each other. Plain accesses (p[i]) are not tracked. A store after another thread's load is not checked.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "emu/shadow.h"

namespace emu {

// Everything that happened before one fence: what the fence's thread had done and knew of its CTA, and what that CTA
// had acquired.
struct Publication {
    uint64_t cta;
    uint32_t thread;
    Clocks clocks;
    std::vector<std::shared_ptr<const Publication>> parents;
};

using Published = std::shared_ptr<const Publication>;

// A publication of another CTA that a thread of this CTA has acquired, with the thread and the time.
struct Acquired {
    Published publication;
    uint32_t by, time;
};

// Last store to 4 bytes of global memory.
struct GlobalCell {
    uint32_t cta;
    uint32_t time;
    int32_t place;
    uint16_t thread;
    uint8_t valid, atomic;
};

constexpr uint32_t kPage = 4096, kWord = 4;

struct GlobalPage {
    uint64_t launch;
    GlobalCell cells[kPage / kWord];
};

struct Global {
    uint64_t launch = 0;
    std::unordered_map<uintptr_t, std::unique_ptr<GlobalPage>> pages;
    uintptr_t last_number = 0;
    GlobalPage* last = nullptr;
    // Per address, the fences that were followed by a store or an atomic at that address.
    std::unordered_map<uintptr_t, std::vector<Published>> sync;

    void begin();
};

}  // namespace emu
