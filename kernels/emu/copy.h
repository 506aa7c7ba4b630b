// Emulation of cp.async: the destination is in flight from issue until the issuing thread waits for its group.
#pragma once
#include "emu/memory.h"

namespace emu {

void async_copy(void* destination, const void* source, uint32_t bytes, uint32_t source_bytes, const Where& where);
void async_commit();
void async_wait(uint32_t newest);

}  // namespace emu

namespace isa {

template <int BYTES, class T>
inline void cp_async(Shared<T>* destination, const T* source, int source_bytes,
                     emu::Where where = emu::Where::current()) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
    emu::async_copy(destination, source, BYTES, uint32_t(source_bytes), where);
}

inline void cp_async_commit(emu::Where where = emu::Where::current()) {
    if (emu::pass("cp_async_commit", where)) emu::async_commit();
}

template <int N>
inline void cp_async_wait(emu::Where where = emu::Where::current()) {
    if (emu::pass("cp_async_wait", where)) emu::async_wait(N);
}

}  // namespace isa
