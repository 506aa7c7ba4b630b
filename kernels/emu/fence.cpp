// Emulation of proxy fences. Each one is recorded as a time of its thread. Asynchronous units see the writes that the
// thread made before that time.
#include "emu/fence.h"

#include "emu/runtime.h"

namespace emu {

namespace {

void tick(std::vector<uint32_t>& moments) {
    Fiber& me = self();
    me.clocks.now = ++me.cta->shadow.time;
    moments.push_back(me.clocks.now);
}

}  // namespace

void fence_proxy() { tick(self().fences); }
void fence_inits() { tick(self().init_fences); }

}  // namespace emu
