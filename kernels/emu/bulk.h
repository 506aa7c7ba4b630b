// State of mbarriers and bulk copies that the emulator keeps in addition to shared memory.
#pragma once
#include <vector>

#include "emu/shadow.h"

namespace emu {

// Largest count of arrivals and of pending bytes (PTX ISA, mbarrier: contents of the object).
constexpr int64_t kMbarrierMost = (1 << 20) - 1;

struct MbarrierState {
    uint32_t offset;     // in shared memory
    uint64_t phase;      // number of completed phases
    uint32_t pending, expected;
    int64_t due;         // pending bytes (the tx-count)
    bool seen;           // true if a wait has observed that the last completed phase is complete
    uint16_t init_thread;
    uint32_t init_time;
    int32_t init_place;
    Known gathered;      // knowledge of the threads that have arrived in this phase
    std::shared_ptr<std::vector<uint32_t>> threads;  // per thread, the time up to which its accesses are covered
    Known known;         // knowledge of the threads that arrived in the last completed phase
    Exact exact;
    // Cache: `exact` of the last thread that acquired the phase, before and after the acquire. Most threads have equal
    // values.
    Exact before, after;
    Remotes gathered_remote, remote;  // knowledge of other CTAs, in this phase and in the last completed one
    std::vector<Fiber*> waiting;
};

constexpr uint32_t kMaxRank = 5;

// Source or destination of a copy: a box of a tensor, or plain bytes (rank 0).
struct Box {
    unsigned char* address;
    uint32_t rank, element, swizzle;
    uint64_t dims[kMaxRank], strides[kMaxRank];  // strides[0] is the element size
    uint32_t sides[kMaxRank];
    int32_t at[kMaxRank];
    uint32_t row_bytes, bytes;
};

// 16 bytes of a box. Bytes `from` to `to` are inside the tensor, and byte i is at global + i.
struct Piece {
    uint32_t offset;
    unsigned char* global;
    uint32_t from, to;
};

struct BulkCopy {
    Box box;
    uint32_t offset;           // in shared memory
    int32_t place;
    Fiber* issuer;
    uint32_t mbarrier;         // load: offset of its mbarrier
    uint32_t signalled;        // load: bytes already signalled to the mbarrier
    std::vector<bool> landed;  // load: pieces that have landed; empty: none
    uint32_t group;            // store: its group within the issuer
    bool taken, waited, written;  // stores: source read; issuer waited for the read; written
    std::vector<unsigned char> data;
};

}  // namespace emu
