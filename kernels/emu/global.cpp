// Access to global memory through isa/: alignment. Faults beyond a buffer are the guard pages' business.
#include "emu/memory.h"
#include "emu/runtime.h"

namespace emu {

namespace {

void check(const void* p, uint32_t bytes, const char* what, const Where& where) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) [[unlikely]] {
        fail("%s of %u bytes at %p is not aligned to them, by %s at %s", what, bytes, p, thread_name(self()).c_str(),
             place_name(where).c_str());
    }
}

}  // namespace

void global_read(const void* p, uint32_t bytes, const Where& where) { check(p, bytes, "load", where); }

void global_write(void* p, const void* value, uint32_t bytes, const Where& where) {
    check(p, bytes, "store", where);
    memcpy(p, value, bytes);
}

}  // namespace emu
