// Emulation of mbarriers: objects of 8 bytes in shared memory that only these functions may access.
#pragma once
#include "emu/memory.h"

namespace emu {

void mbarrier_init(const void* at, int count, const Where& where);
void mbarrier_inval(const void* at, const Where& where);
void mbarrier_arrive(const void* at, int count, bool drop, const Where& where);
void mbarrier_expect(const void* at, int bytes, bool arrive, const Where& where);
void mbarrier_complete(const void* at, int bytes, const Where& where);
bool mbarrier_test(const void* at, uint32_t parity, const Where& where);
bool mbarrier_try(const void* at, uint32_t parity, const Where& where);
void mbarrier_wait(const void* at, uint32_t parity, const Where& where);

}  // namespace emu

namespace isa {

class alignas(8) Mbarrier {
    [[maybe_unused]] unsigned char opaque[8];
};

inline void mbarrier_init(Mbarrier* at, int count, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_init", where)) emu::mbarrier_init(at, count, where);
}

inline void mbarrier_inval(Mbarrier* at, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_inval", where)) emu::mbarrier_inval(at, where);
}

inline void mbarrier_arrive(Mbarrier* at, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_arrive", where)) emu::mbarrier_arrive(at, 1, false, where);
}

inline void mbarrier_arrive(Mbarrier* at, int count, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_arrive", where)) emu::mbarrier_arrive(at, count, false, where);
}

inline void mbarrier_arrive_drop(Mbarrier* at, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_arrive_drop", where)) emu::mbarrier_arrive(at, 1, true, where);
}

inline void mbarrier_expect_tx(Mbarrier* at, int bytes, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_expect_tx", where)) emu::mbarrier_expect(at, bytes, false, where);
}

inline void mbarrier_arrive_expect_tx(Mbarrier* at, int bytes, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_arrive_expect_tx", where)) emu::mbarrier_expect(at, bytes, true, where);
}

inline void mbarrier_complete_tx(Mbarrier* at, int bytes, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_complete_tx", where)) emu::mbarrier_complete(at, bytes, where);
}

inline bool mbarrier_test_wait(Mbarrier* at, uint32_t parity, emu::Where where = emu::Where::current()) {
    return !emu::pass("mbarrier_test_wait", where) || emu::mbarrier_test(at, parity, where);
}

inline bool mbarrier_try_wait(Mbarrier* at, uint32_t parity, emu::Where where = emu::Where::current()) {
    return !emu::pass("mbarrier_try_wait", where) || emu::mbarrier_try(at, parity, where);
}

inline void mbarrier_wait(Mbarrier* at, uint32_t parity, emu::Where where = emu::Where::current()) {
    if (emu::pass("mbarrier_wait", where)) emu::mbarrier_wait(at, parity, where);
}

}  // namespace isa
