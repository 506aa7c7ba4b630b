// What the emulator knows of shared memory: who wrote and read it last, and what orders whom.
#pragma once
#include <stdint.h>
#include <string.h>

#include <vector>

#include "emu/thread.h"

namespace emu {

// Per warp the time before which all its accesses are known to have happened.
struct Known {
    uint32_t warp[kMaxWarps];
};

// What a thread knows. Accesses carry the `now` of their thread; one by another is ordered before this thread if it
// is older than what this thread knows of the other's lane or warp. Times come from one counter of the CTA.
struct Clocks {
    uint32_t now;
    Known known;
    uint32_t lane[kLanes];  // the same for the lanes of its own warp

    void begin() {
        memset(this, 0, sizeof *this);
        now = 1;
    }
    void join(const Clocks& other) {
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            known.warp[i] = known.warp[i] < other.known.warp[i] ? other.known.warp[i] : known.warp[i];
            lane[i] = lane[i] < other.lane[i] ? other.lane[i] : lane[i];
        }
    }
    // At a barrier of the CTA, at which the whole warp arrives at `time`.
    void release(Known& to, uint32_t time) {
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            to.warp[i] = to.warp[i] < known.warp[i] ? known.warp[i] : to.warp[i];
        }
        now = time;
    }
    void acquire(const Known& from, uint32_t own_warp) {
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            known.warp[i] = known.warp[i] < from.warp[i] ? from.warp[i] : known.warp[i];
            lane[i] = lane[i] < from.warp[own_warp] ? from.warp[own_warp] : lane[i];
        }
    }
};

static_assert(kMaxWarps == kLanes, "the loops above run over both");

struct Shadow {
    uint32_t time = 1;  // the CTA's clock: one tick a synchronisation

    void begin(uint32_t bytes, bool on);
};

}  // namespace emu
