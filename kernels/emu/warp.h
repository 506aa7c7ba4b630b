// Emulation of shuffles and votes among the 32 lanes of a warp, as a rendezvous of all lanes.
#pragma once
#include "emu/matrix_kind.h"
#include "emu/cuda.h"

namespace emu {

// Returns the value of the lane that `operand` selects. For ballot: the mask of the lanes with a non-zero value.
uint64_t exchange(Exchange kind, uint64_t value, int operand, const Where& where);

template <class T>
inline T exchange_as(Exchange kind, T v, int operand, const Where& where) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "lanes exchange 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof(T));
    bits = exchange(kind, bits, operand, where);
    memcpy(&v, &bits, sizeof(T));
    return v;
}

}  // namespace emu

namespace isa {

template <class T>
inline T shfl(T v, int source, emu::Where where = emu::Where::current()) {
    return emu::exchange_as(emu::Exchange::index, v, source, where);
}

template <class T>
inline T shfl_xor(T v, int mask, emu::Where where = emu::Where::current()) {
    return emu::exchange_as(emu::Exchange::bitwise_xor, v, mask, where);
}

template <class T>
inline T shfl_down(T v, int delta, emu::Where where = emu::Where::current()) {
    return emu::exchange_as(emu::Exchange::down, v, delta, where);
}

template <class T>
inline T shfl_up(T v, int delta, emu::Where where = emu::Where::current()) {
    return emu::exchange_as(emu::Exchange::up, v, delta, where);
}

inline uint32_t ballot(bool v, emu::Where where = emu::Where::current()) {
    return uint32_t(emu::exchange(emu::Exchange::ballot, v, 0, where));
}

inline bool any(bool v, emu::Where where = emu::Where::current()) { return ballot(v, where) != 0; }
inline bool all(bool v, emu::Where where = emu::Where::current()) { return ballot(v, where) == 0xffffffffu; }

}  // namespace isa
