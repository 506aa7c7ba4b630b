// Atomics and fences. Fibers share one host thread, so an access is atomic by itself; what is left is when others run.
#include "emu/atomic.h"

#include "emu/runtime.h"

namespace emu {

namespace {

// Under a seed any access that others can watch is a moment to let them run.
void maybe_yield(uint32_t one_in) {
    Instance& emu = instance();
    if (emu.options.seed != 0 && emu.below(one_in) == 0) yield();
}

}  // namespace

void atomic_begin(const void* p, uint32_t bytes, bool shared, const Where& where) {
    if (shared) {
        shared_atomic(p, bytes, where);
    } else {
        global_read(p, bytes, where);
    }
    maybe_yield(2);
}

void fence() { maybe_yield(2); }

void release(void* p, uint32_t bytes, const Where& where) {
    global_read(p, bytes, where);
    maybe_yield(2);
}

void acquire(const void* p, uint32_t bytes, const Where& where) {
    global_read(p, bytes, where);
    maybe_yield(4);
}

}  // namespace emu
