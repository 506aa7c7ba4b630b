// Shadow state of shared memory: which threads last wrote and read each byte, when, and how threads are ordered.
//
// Threads are ordered by vector clocks. In these comments a thread knows an access if that access happens before
// everything that the thread does next. Synchronisation passes this knowledge from thread to thread.
#pragma once
#include <stdint.h>
#include <string.h>

#include <memory>
#include <vector>

#include "emu/thread.h"

namespace emu {

// Per warp, the time before which all accesses of the warp are known to have happened.
struct Known {
    uint32_t warp[kMaxWarps];
    uint32_t async;  // time before which asynchronous writes are known to have landed

    void raise_async(uint32_t time) { async = async < time ? time : async; }
};

// Knowledge of a thread. Each access carries the `now` of its thread. An access by another thread is ordered before
// this thread if its time is before the time that this thread knows for the other thread's lane or warp. Times come
// from one counter per CTA.
struct Clocks {
    uint32_t now;
    uint32_t floor;         // every older access, by any thread, is ordered before this thread
    Known known;
    uint32_t lane[kLanes];  // same as `known`, for each lane of the thread's own warp

    void begin() {
        memset(this, 0, sizeof *this);
        now = 1;
    }
    void join(const Clocks& other) {
        floor = floor < other.floor ? other.floor : floor;
        known.raise_async(other.known.async);
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            known.warp[i] = known.warp[i] < other.known.warp[i] ? other.known.warp[i] : known.warp[i];
            lane[i] = lane[i] < other.lane[i] ? other.lane[i] : lane[i];
        }
    }
    void release(Known& to) const {
        to.raise_async(known.async);
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            to.warp[i] = to.warp[i] < known.warp[i] ? known.warp[i] : to.warp[i];
        }
    }
    // Takes over knowledge at a synchronisation in which the complete warp took part.
    void acquire(const Known& from, uint32_t own_warp) {
        known.raise_async(from.async);
        for (uint32_t i = 0; i < kMaxWarps; i++) {
            known.warp[i] = known.warp[i] < from.warp[i] ? from.warp[i] : known.warp[i];
            lane[i] = lane[i] < from.warp[own_warp] ? from.warp[own_warp] : lane[i];
        }
    }
};

static_assert(kMaxWarps == kLanes, "the loops above run over both");

// Knowledge from synchronisations in which single threads took part: per thread of the CTA, the time before which its
// accesses are known to have happened. It adds to the knowledge of complete warps in `Known`. Null means no knowledge.
using Exact = std::shared_ptr<const std::vector<uint32_t>>;

inline Exact merged(const Exact& a, const Exact& b) {
    if (a == nullptr || b == nullptr || a == b) return a == nullptr ? b : a;
    auto all = std::make_shared<std::vector<uint32_t>>(*a);
    for (size_t i = 0; i < all->size(); i++) (*all)[i] = (*all)[i] < (*b)[i] ? (*b)[i] : (*all)[i];
    return all;
}

enum class Bytes : uint8_t { poison, written, flying };

// History of 16 bytes, or of 2 bytes if threads share the 16.
struct Cell {
    uint32_t write_time;
    uint32_t read_time;   // time of all reads since the write; unused with `vector`
    uint32_t readers;     // mask of the readers' warps; with `vector` the index of a ReadTimes
    int32_t write_place;  // see place_of
    int32_t read_place;
    uint16_t writer;
    uint16_t reader;      // last reader
    Bytes state;
    uint8_t many : 1;     // several lanes of a warp have read
    uint8_t vector : 1;
    uint8_t split : 1;    // true if the eight cells of 2 bytes are valid instead of this cell
    uint8_t atomic : 1;   // written by an atomic
    uint8_t write_near : 1, read_near : 1;  // the place is the last one passed before the access
    uint8_t async : 1;    // written by the asynchronous proxy; the writer is the thread that issued it
    uint16_t reading;     // asynchronous reads in flight
};

// Read times per warp, for a cell whose readers read at different times. 0 if the warp has not read.
struct ReadTimes {
    uint32_t warp[kMaxWarps];
};

// Knowledge of another CTA of the cluster, in that CTA's time.
struct Remote {
    Exact threads;
    uint32_t async = 0;
};

// Indexed by the CTA's rank in the cluster. Empty means no knowledge.
using Remotes = std::vector<Remote>;

inline void merge(Remotes& to, const Remotes& from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); i++) {
        to[i].threads = merged(to[i].threads, from[i].threads);
        to[i].async = to[i].async < from[i].async ? from[i].async : to[i].async;
    }
}

struct Shadow {
    bool on = false;
    uint32_t time = 1;  // clock of the CTA: one tick per synchronisation
    std::vector<Cell> cells;
    std::vector<Cell> parts;
    std::vector<ReadTimes> vectors;
    std::vector<uint32_t> free_vectors;

    void begin(uint32_t bytes, bool shadowed);
};

constexpr uint32_t kBlock = 16, kPart = 2, kParts = kBlock / kPart;

}  // namespace emu
