// Emulation of matrix fragments and mma. A lane only posts a matrix instruction with the addresses of its registers.
// The last lane of the warp to post it executes it for all lanes. An access to a register waits for the instructions
// posted on it, so a lane can run ahead of its warp through a complete main loop.
#pragma once
#include "emu/matrix_kind.h"
#include "emu/memory.h"
#include "isa/bf16.cuh"

namespace emu {

// Posts an instruction, and returns its number in the warp's sequence.
uint32_t post(uint32_t kind, const void* a, const void* b, const void* c, const Where& where);
// Returns when the warp has executed that instruction.
void await(uint32_t number);
// Ends the launch with an error if the wgmma with that number may still read registers that the thread is accessing.
void require_read(uint32_t number);

// Registers of a lane that posted instructions may still access.
template <class T, int N>
struct Registers {
    T r[N];
    mutable uint32_t pending = 0;       // last instruction posted on them
    mutable uint32_t asynchronous = 0;  // the last wgmma that reads them
    uint32_t touched = 0;               // wgmma fences that the thread had passed when it last wrote them

    // Uninitialised registers are undefined on a GPU. Here they are NaN, both as bf16 and as fp32.
    Registers() { memset(r, 0xff, sizeof r); }
    Registers(const Registers& other) { *this = other; }
    Registers& operator=(const Registers& other) {
        other.settle();
        settle();
        memcpy(r, other.r, sizeof(r));
        touched = current->wgmma_fences;
        return *this;
    }
    // Waits for the posted instructions, because the stack slot of the registers will be reused.
    ~Registers() { settle(); }

    // Waits until the warp has executed the instructions on these registers.
    void arrive() const {
        if (pending != 0) {
            await(pending);
            pending = 0;
        }
    }
    void settle() const {
        arrive();
        if (asynchronous != 0) [[unlikely]] {
            require_read(asynchronous);
            asynchronous = 0;
        }
    }
    T& operator[](int i) {
        settle();
        touched = current->wgmma_fences;
        return r[i];
    }
    T operator[](int i) const {
        settle();
        return r[i];
    }
};

}  // namespace emu

namespace isa {

template <int N>
struct Frag : emu::Registers<uint32_t, N> {};

struct Acc : emu::Registers<float, 4> {
    void zero() {
        settle();
        r[0] = r[1] = r[2] = r[3] = 0.0f;
    }
};

template <int N>
inline void ldmatrix(Frag<N>& d, const Shared<bf16>* row, emu::Where where = emu::Where::current()) {
    static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
    d.touched = emu::current->wgmma_fences;
    d.pending = emu::post(N, d.r, row, nullptr, where);
}

template <int N>
inline void ldmatrix_trans(Frag<N>& d, const Shared<bf16>* row, emu::Where where = emu::Where::current()) {
    static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
    d.touched = emu::current->wgmma_fences;
    d.pending = emu::post(N | emu::kTransposed, d.r, row, nullptr, where);
}

template <int N>
inline void stmatrix(Shared<bf16>* row, const Frag<N>& s, emu::Where where = emu::Where::current()) {
    static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
    s.pending = emu::post(N | emu::kStore, s.r, row, nullptr, where);
}

template <int N>
inline void stmatrix_trans(Shared<bf16>* row, const Frag<N>& s, emu::Where where = emu::Where::current()) {
    static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
    s.pending = emu::post(N | emu::kStore | emu::kTransposed, s.r, row, nullptr, where);
}

// Computes per output d = fma(a[k], b[k], d) for k = 0 .. 15 in fp32: one chain over ascending k.
inline void mma(Acc& d, const Frag<4>& a, const Frag<2>& b, emu::Where where = emu::Where::current()) {
    d.pending = a.pending = b.pending = emu::post(emu::kMma, d.r, a.r, b.r, where);
}

// Computes the same as mma above, with B in one half (0 or 1) of a Frag<4>, which one ldmatrix loaded for two operands.
template <int HALF>
inline void mma(Acc& d, const Frag<4>& a, const Frag<4>& b, emu::Where where = emu::Where::current()) {
    static_assert(HALF == 0 || HALF == 1, "a Frag<4> holds two operands B");
    d.pending = a.pending = b.pending = emu::post(emu::kMma, d.r, a.r, b.r + 2 * HALF, where);
}

}  // namespace isa
