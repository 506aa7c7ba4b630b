// Emulation of wgmma. Threads of a warpgroup post their calls. When the last of the 128 threads has posted a call, the
// call is executed for all threads. From the first product on, the emulator holds the accumulators. The registers hold
// NaN until a thread that has waited accesses them.
#pragma once
#include "emu/matrix.h"

namespace emu {

struct SumTile;

// Start of shared memory in the address space. The first 1024 bytes of a CTA's shared memory are reserved by the
// system, as on a GPU of compute capability 9.0.
constexpr uint32_t kSharedBase = 1024;

// Location of a thread's accumulators.
struct Sums {
    SumTile* tile = nullptr;
    uint32_t issued = 0;   // number of the last product that uses them
    uint32_t touched = 0;  // fences that the thread had passed when it last accessed them
    bool here = true;      // true if the registers hold them; the tile may be out of date
};

struct Product {
    uint64_t a, b;       // descriptors
    const uint32_t* registers;  // holds a, or null
    uint32_t columns;
    bool a_mn, b_mn, accumulate;
};

void warpgroup_fence(const Where& where);
void warpgroup_commit(const Where& where);
void warpgroup_wait(uint32_t newest, const Where& where);
// Posts a product; `r` has columns / 2 registers. Returns the product's number.
uint32_t warpgroup_product(const Product& product, Sums& sums, float* r, const Where& where);
// Copies the accumulators into the thread's registers, before the thread accesses them.
void fetch_sums(Sums& sums, float* r, uint32_t columns);
void drop_sums(Sums& sums);
// Ends the launch with an error if registers of a product were accessed since the last fence; `touched` is the number
// of fences before that access.
void require_fence(uint32_t touched, const char* what, const Where& where);

}  // namespace emu

namespace isa {

inline uint32_t shared_address(const void* p) {
    return uint32_t(static_cast<const unsigned char*>(p) - emu::current->smem) + emu::kSharedBase;
}

}  // namespace isa

#include "isa/descriptor.cuh"

namespace isa {

template <int N>
struct WgmmaAcc {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256, "wgmma has 8 to 256 columns in eights");
    float r[N / 2];
    mutable emu::Sums sums;

    // Undefined on a GPU; NaN here.
    WgmmaAcc() { memset(r, 0xff, sizeof r); }
    WgmmaAcc(const WgmmaAcc&) = delete;
    WgmmaAcc& operator=(const WgmmaAcc&) = delete;
    ~WgmmaAcc() {
        if (sums.tile != nullptr) emu::drop_sums(sums);
    }
    float& operator[](int i) {
        touch();
        return r[i];
    }
    float operator[](int i) const {
        const_cast<WgmmaAcc*>(this)->touch();
        return r[i];
    }
    void touch() {
        if (!sums.here) emu::fetch_sums(sums, r, N);
        sums.touched = emu::current->wgmma_fences;
    }
};

inline void wgmma_fence(emu::Where where = emu::Where::current()) {
    if (emu::pass("wgmma_fence", where)) emu::warpgroup_fence(where);
}

inline void wgmma_commit(emu::Where where = emu::Where::current()) {
    if (emu::pass("wgmma_commit", where)) emu::warpgroup_commit(where);
}

template <int N>
inline void wgmma_wait(emu::Where where = emu::Where::current()) {
    static_assert(N >= 0 && N <= 7, "wgmma_wait leaves 0 to 7 groups");
    if (emu::pass("wgmma_wait", where)) emu::warpgroup_wait(N, where);
}

// Computes per output d = fma(a[k], b[k], d) for k = 0 .. 15 in fp32, the chain of mma. It starts from zero if
// `accumulate` is false.
template <Major A = Major::k, Major B = Major::k, int N>
inline void wgmma(WgmmaAcc<N>& d, uint64_t a, uint64_t b, bool accumulate, emu::Where where = emu::Where::current()) {
    emu::warpgroup_product({a, b, nullptr, N, A == Major::mn, B == Major::mn, accumulate}, d.sums, d.r, where);
}

template <Major B = Major::k, int N>
inline void wgmma(WgmmaAcc<N>& d, const Frag<4>& a, uint64_t b, bool accumulate,
                  emu::Where where = emu::Where::current()) {
    a.arrive();
    emu::require_fence(a.touched, "registers of a", where);
    emu::Product product{0, b, a.r, N, false, B == Major::mn, accumulate};
    a.asynchronous = emu::warpgroup_product(product, d.sums, d.r, where);
}

}  // namespace isa
