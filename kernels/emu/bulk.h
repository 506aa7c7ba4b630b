// What the emulator keeps of mbarriers and bulk copies beside shared memory.
#pragma once
#include <vector>

#include "emu/shadow.h"

namespace emu {

// Largest count of arrivals and of bytes due (PTX ISA, mbarrier: contents of the object).
constexpr int64_t kMbarrierMost = (1 << 20) - 1;

struct MbarrierState {
    uint32_t offset;     // in shared memory
    uint64_t phase;      // completed ones
    uint32_t pending, expected;
    int64_t due;         // bytes: the tx-count
    bool seen;           // a wait has found the last completed phase so
    uint16_t init_thread;
    uint32_t init_time;
    int32_t init_place;
    Known gathered;      // what the threads knew that have arrived in this phase
    std::shared_ptr<std::vector<uint32_t>> threads;  // and which of their own accesses that covers, by thread
    Known known;         // the same of the last completed phase
    Exact exact;
    Exact before, after; // what the last to find it so knew, and knows with it: most know the same
    Remotes gathered_remote, remote;  // of other CTAs
    std::vector<Fiber*> waiting;
};

constexpr uint32_t kMaxRank = 5;

// What a copy moves: a box of a tensor, or plain bytes (rank 0).
struct Box {
    unsigned char* address;
    uint32_t rank, element, swizzle;
    uint64_t dims[kMaxRank], strides[kMaxRank];  // strides[0] is the element
    uint32_t sides[kMaxRank];
    int32_t at[kMaxRank];
    uint32_t row_bytes, bytes;
};

// 16 bytes of a box: those from `from` to `to` are inside the tensor, byte i at global + i.
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
    uint32_t mbarrier;         // of a load: its offset
    uint32_t signalled;        // of a load: bytes the mbarrier knows of
    std::vector<bool> landed;  // of a load, by piece; empty: none
    uint32_t group;            // of a store, of its issuer
    bool reduce, taken, waited, written;  // of a store: source read, and known to be; destination written
    std::vector<unsigned char> data;
};

}  // namespace emu
