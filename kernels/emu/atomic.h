// Emulation of atomics, fences, and acquire/release accesses.
#pragma once
#include "emu/memory.h"

namespace emu {

// Must be called before an atomic access. The schedule may switch to another thread first.
void atomic_begin(const void* p, uint32_t bytes, bool shared, const Where& where);
void fence();
void relaxed_load(const void* p, uint32_t bytes, const Where& where);
// Publishes a release store. If `ordering` is false (the site is skipped), the store is only atomic and publishes
// nothing.
void release(void* p, uint32_t bytes, bool ordering, const Where& where);
void acquire(const void* p, uint32_t bytes, const Where& where);
// Called after pred() was false. Returns when another call of pred() may have a different result.
void spin_again(const Where& where);
void spin_done();

template <class T, class F>
inline T atomic(T* p, bool shared, F change, const Where& where) {
    atomic_begin(p, sizeof(T), shared, where);
    T old;
    memcpy(&old, p, sizeof(T));
    T now = change(old);
    memcpy(p, &now, sizeof(T));
    return old;
}

// Adds like the instruction: integers wrap around.
template <class T>
inline T added(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
        return T(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b));
    } else {
        return a + b;
    }
}

}  // namespace emu

namespace isa {

inline void threadfence(emu::Where where = emu::Where::current()) {
    if (emu::pass("threadfence", where)) emu::fence();
}

#define EMU_ATOMIC(name, expression)                                                                        \
    template <class T>                                                                                      \
    inline T name(T* p, std::type_identity_t<T> v, emu::Where where = emu::Where::current()) {              \
        return emu::atomic(p, false, [v]([[maybe_unused]] T old) { return T(expression); }, where);         \
    }                                                                                                       \
    template <class T>                                                                                      \
    inline T name(Shared<T>* p, std::type_identity_t<T> v, emu::Where where = emu::Where::current()) {      \
        return emu::atomic(&p->raw, true, [v]([[maybe_unused]] T old) { return T(expression); }, where);    \
    }
EMU_ATOMIC(atomic_add, emu::added(old, v))
EMU_ATOMIC(atomic_max, old < v ? v : old)
EMU_ATOMIC(atomic_min, v < old ? v : old)
EMU_ATOMIC(atomic_exch, v)
#undef EMU_ATOMIC

template <class T>
inline T atomic_cas(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired,
                    emu::Where where = emu::Where::current()) {
    return emu::atomic(p, false, [=](T old) { return old == expected ? desired : old; }, where);
}
template <class T>
inline T atomic_cas(Shared<T>* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired,
                    emu::Where where = emu::Where::current()) {
    return emu::atomic(&p->raw, true, [=](T old) { return old == expected ? desired : old; }, where);
}

template <class T>
inline T load_volatile(const T* p, emu::Where where = emu::Where::current()) {
    emu::relaxed_load(p, sizeof(T), where);
    return *static_cast<const volatile T*>(p);
}

template <class T>
inline void store_release(T* p, std::type_identity_t<T> v, emu::Where where = emu::Where::current()) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "store_release of 4 or 8 bytes");
    // If the site is skipped, the store still happens; only its ordering is lost.
    emu::release(p, sizeof(T), emu::pass("store_release", where), where);
    *static_cast<volatile T*>(p) = v;
}

template <class T>
inline T load_acquire(const T* p, emu::Where where = emu::Where::current()) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "load_acquire of 4 or 8 bytes");
    emu::acquire(p, sizeof(T), where);
    return *static_cast<const volatile T*>(p);
}

template <class F>
inline void spin_until(F pred, emu::Where where = emu::Where::current()) {
    if (!emu::pass("spin_until", where)) return;
    while (!pred()) emu::spin_again(where);
    emu::spin_done();
}

}  // namespace isa
