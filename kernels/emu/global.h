// What the emulator knows of global memory during one launch: who stored through isa/ what, and what CTAs have
// published to each other. Plain accesses (p[i]) are not seen, nor is a store after another's load.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "emu/shadow.h"

namespace emu {

// All that happened before one fence: what its thread had done and knew of its CTA, and what its CTA had acquired.
struct Publication {
    uint64_t cta;
    uint32_t thread;
    Clocks clocks;
    std::vector<std::shared_ptr<const Publication>> parents;
};

using Published = std::shared_ptr<const Publication>;

// A publication of another CTA that a thread of this one has acquired, and when.
struct Acquired {
    Published publication;
    uint32_t by, time;
};

// The last store to 4 bytes.
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
    // What fences have been followed by a store or an atomic at each address.
    std::unordered_map<uintptr_t, std::vector<Published>> sync;

    void begin();
};

}  // namespace emu
