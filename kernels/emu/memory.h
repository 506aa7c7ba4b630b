// Emulation of shared memory with checked accesses, and of vector accesses.
#pragma once
#include <type_traits>

#include "emu/cuda.h"

namespace emu {

// Every access of a thread to shared memory calls one of these. They check bounds, alignment, poison and races.
void shared_read(const void* p, uint32_t bytes, const Where& where);
void shared_write(const void* p, uint32_t bytes, const Where& where);
void shared_read(const void* p, uint32_t bytes);
void shared_write(const void* p, uint32_t bytes);
// Vector accesses to memory that is not known to be shared.
void global_read(const void* p, uint32_t bytes, const Where& where);
void global_write(void* p, const void* value, uint32_t bytes, const Where& where);
[[noreturn]] void smem_too_small(uint32_t needed);
// Returns the result of ex2.approx for x in [-126, 128) as it was measured on a GPU, or NaN if no measurement is given.
float exp2_measured(float x);

}  // namespace emu

namespace isa {

// A T in shared memory with the same size and layout; each access is checked.
template <class T>
struct Shared {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) >= 2, "shadow state knows pairs of bytes");
    T raw;

    operator T() const {
        emu::shared_read(&raw, sizeof(T));
        return raw;
    }
    Shared& operator=(T v) {
        emu::shared_write(&raw, sizeof(T));
        raw = v;
        return *this;
    }
    Shared& operator=(const Shared& other) { return *this = T(other); }
    Shared& operator+=(T v) { return *this = T(T(*this) + v); }
    Shared& operator-=(T v) { return *this = T(T(*this) - v); }
    Shared& operator*=(T v) { return *this = T(T(*this) * v); }
    Shared& operator|=(T v) { return *this = T(T(*this) | v); }
    Shared& operator&=(T v) { return *this = T(T(*this) & v); }
    Shared& operator^=(T v) { return *this = T(T(*this) ^ v); }
};

// Returns the CTA's dynamic shared memory as one struct.
template <class S>
inline S& smem() {
    static_assert(alignof(S) <= 1024, "dynamic shared memory starts at a multiple of 1024");
    emu::Thread& t = *emu::current;
    if (sizeof(S) > t.smem_bytes) emu::smem_too_small(sizeof(S));
    return *reinterpret_cast<S*>(t.smem);
}

template <class V, class T>
inline V load(const T* p, emu::Where where = emu::Where::current()) {
    emu::global_read(p, sizeof(V), where);
    V v;
    memcpy(&v, p, sizeof(V));
    return v;
}

template <class V, class T>
inline void store(T* p, V v, emu::Where where = emu::Where::current()) {
    emu::global_write(p, &v, sizeof(V), where);
}

template <class V, class T>
inline V load(const Shared<T>* p, emu::Where where = emu::Where::current()) {
    emu::shared_read(p, sizeof(V), where);
    V v;
    memcpy(&v, static_cast<const void*>(p), sizeof(V));
    return v;
}

template <class V, class T>
inline void store(Shared<T>* p, V v, emu::Where where = emu::Where::current()) {
    emu::shared_write(p, sizeof(V), where);
    memcpy(static_cast<void*>(p), &v, sizeof(V));
}

// Computes 2^x with subnormals flushed to zero, within 1 ulp. The emulated instruction has a relative error of 2^-22,
// so a GPU may differ in the last bits, unless its results were measured.
inline float exp2_approx(float x) {
    if (x != x) return x;
    if (x >= 128.0f) return INFINITY;
    if (x < -126.0f) return 0.0f;
    if (float measured = emu::exp2_measured(x); measured == measured) return measured;
    float n = rintf(x);
    float f = x - n;
    float p = 1.5403530393381608e-4f;  // Taylor series of 2^f on [-1/2, 1/2]
    p = fmaf(p, f, 1.3333558146428443e-3f);
    p = fmaf(p, f, 9.6181291076284772e-3f);
    p = fmaf(p, f, 5.5504108664821580e-2f);
    p = fmaf(p, f, 2.4022650695910072e-1f);
    p = fmaf(p, f, 6.9314718055994531e-1f);
    p = fmaf(p, f, 1.0f);
    int e = int(n);
    float half = __uint_as_float(uint32_t(e / 2 + 127) << 23);
    float y = p * half * __uint_as_float(uint32_t(e - e / 2 + 127) << 23);
    return y < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace isa
