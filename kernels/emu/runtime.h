// Internal types of the emulator: instance, CTA, warp, fiber. An instance runs one launch at a time on one host thread.
#pragma once
#include <stddef.h>

#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "emu/api.h"
#include "emu/bulk.h"
#include "emu/global.h"
#include "emu/matrix_kind.h"
#include "emu/shadow.h"
#include "emu/thread.h"

namespace emu {

constexpr uint32_t kBarriers = 16;
constexpr uint32_t kReadyWords = kMaxThreads / 64;
// Number of warp instructions that a lane may be ahead of its warp.
constexpr uint32_t kSlots = 256;
// Not a multiple of a page: otherwise equal frames of neighbouring threads would share one cache set.
constexpr size_t kStackBytes = 64 * 1024 + 5 * 64;
constexpr uint64_t kCanary = 0x6f6d722d656d7521;

enum class Wait : uint8_t { none, instruction, barrier, warp_barrier, mbarrier, asking, cluster, registers, spin, warpgroup };

struct AsyncCopy {
    unsigned char* destination;
    const unsigned char* source;
    uint32_t bytes, source_bytes;
    uint32_t written;      // bit i: piece i (4 bytes) has been written
    uint32_t group;
    int32_t place;
};

struct Fiber : Thread {
    Wait wait;
    bool done;
    uint32_t wait_number;   // instruction number or barrier id that the fiber waits for
    uint32_t barrier_mask;  // mask of the warp barrier that the fiber waits for
    Where wait_where;
    uint64_t result;        // result of an exchange
    uint64_t spin_progress; // `progress` when the predicate was last false
    uint32_t wgmma_posted;    // wgmma calls that the fiber has posted to its warpgroup
    uint32_t wgmma_products;  // wgmma products among them
    uint32_t wgmma_waits;     // wgmma fences that the fiber had passed at its last wgmma_wait
    uint64_t gave_up;       // `progress` when the fiber last polled an mbarrier for the full time limit without success
    unsigned char* stack;
    int32_t near;           // last place that the fiber passed
    std::vector<AsyncCopy> copies;
    uint32_t group;         // group of the copies being issued
    Clocks clocks;
    Exact exact;            // knowledge of single threads beyond `clocks`
    Remotes remote;
    bool cluster_arrived;   // true after cluster_arrive until cluster_wait
    uint32_t cluster_phase; // cluster phase in which the fiber arrived
    uint32_t bulk_group;    // group of the bulk stores being issued
    uint32_t registers;     // count per thread; 0: unknown
    Published fenced;                 // publication of its last threadfence
    std::vector<Published> observed;  // publications seen by relaxed accesses, not yet acquired by a fence
    std::vector<uint32_t> fences, init_fences;  // times of its fence_proxy_async and fence_mbarrier_init calls
};

// A warp instruction that all lanes post and the last lane executes.
struct alignas(64) Op {
    uint32_t kind;
    uint32_t lanes;  // mask of the lanes that have posted
    Where where;
    const void* operand[3][kLanes];
};

// `Together` is one access of a warp's lanes to shared memory. `Lockstep` holds the accesses at one place that not all
// lanes have made yet.
struct Together {
    uint32_t lanes = 0;
    uint32_t offset[kLanes];
};
struct Lockstep {
    uint32_t accesses[kLanes] = {};
    uint32_t counted = 0;
    std::deque<Together> open;
};

struct Warp {
    Cta* cta;
    Fiber* lanes;            // its 32 lanes
    uint32_t index;
    uint32_t live;           // mask of the lanes that have not returned
    uint32_t posted, done;   // warp instructions posted, and executed
    // Number of instructions before the first slot. It moves up when all posted instructions are executed, so that the
    // used slots stay in the CPU's nearest caches.
    uint32_t base;
    uint32_t waiting;        // mask of the lanes in Wait::instruction
    uint32_t at_warp_barrier;
    uint32_t at_barrier;     // mask of the lanes that have arrived at the CTA barrier `barrier_id`
    uint32_t barrier_id, barrier_threads;
    bool barrier_wait;
    Where barrier_where;
    std::unordered_map<uint64_t, Lockstep> lockstep;  // used only while banks are counted
    Op slots[kSlots];

    // Returns the instruction with that number, counted from 1.
    Op& op(uint32_t number) { return slots[number - 1 - base]; }
};

struct Barrier {
    uint32_t arrived;   // threads, in complete warps
    uint32_t expected;  // expected threads; 0: none has arrived
    uint32_t waiting_warps;
    uint64_t waiting[kReadyWords];
    Known known;        // knowledge of the arrived warps
};

struct Instance;
struct Warpgroup;

struct Cta;

// CTAs that started together, and the state of their barrier.
struct Cluster {
    std::vector<Cta*> ctas;
    uint32_t phase = 0;
    uint32_t arrived = 0;  // threads that have arrived
    Remotes gathered, known;
    std::vector<Fiber*> waiting;
};

struct Cta {
    Instance* emu;
    uint3 block_idx;
    uint64_t linear;
    uint32_t threads, warp_count, live;
    uint64_t ready[kReadyWords];
    uint32_t ready_count;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Barrier barriers[kBarriers];
    Exact exact[kBarriers];  // the arrived warps' knowledge of single threads
    std::vector<MbarrierState> mbarriers;
    std::vector<BulkCopy> loads, stores;
    uint64_t free_registers;
    std::shared_ptr<Cluster> cluster;  // for a CTA alone in its cluster: null until needed
    uint32_t rank;
    unsigned char* smem = nullptr;
    size_t smem_capacity = 0;
    unsigned char* stacks = nullptr;
    uint32_t stack_count = 0;
    Shadow shadow;
    Known exited;  // times at which warps returned
    std::unordered_map<uint32_t, std::vector<Acquired>> acquired;  // by publishing CTA
    uint32_t spinning;
    std::vector<std::shared_ptr<Warpgroup>> warpgroups;  // warpgroups that use wgmma
};

struct SiteKey {
    const char* file;
    uint32_t line;
    bool operator==(const SiteKey&) const = default;
};
struct SiteHash {
    size_t operator()(const SiteKey& k) const { return (reinterpret_cast<uintptr_t>(k.file) >> 3) * 31 + k.line; }
};
struct Site {
    std::string file;      // path starting with kernels/
    std::string wrapper;
    uint32_t line = 0;
    bool skipped = false;
};

struct Instance {
    EmuOptions options{};
    uint64_t launches = 0, bank_conflicts = 0;
    std::string error;
    std::string skip_file;
    uint32_t skip_line = 0;
    std::unordered_map<SiteKey, Site, SiteHash> sites;
    // Cache of sites, indexed by a few bits of their place. A kernel has few sites and passes them often.
    struct Cached {
        int32_t place = 0;
        Site* site = nullptr;
    };
    Cached site_cache[64];

    Global global;

    const EmuEntry* entry = nullptr;
    const void* args = nullptr;
    EmuLaunch launch{};
    uint3 grid_dim{}, block_dim{};
    uint64_t cta_total = 0, cta_started = 0, resident_limit = 0;
    std::vector<uint32_t> order;  // CTAs in the order in which they start; empty: by index
    std::vector<Cta*> started, pool;
    uint64_t progress = 0;        // grows whenever a thread does anything except poll without success
    uint64_t random_state = 1;
    void* launcher_stack = nullptr;
    bool failed = false;

    uint64_t random() {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state * 0x2545f4914f6cdd1dull >> 16;
    }
    // Returns a random number below `bound`.
    uint32_t below(uint32_t bound) { return uint32_t(random() % bound); }
    ~Instance();
};

inline Fiber& self() { return *static_cast<Fiber*>(current); }
inline Instance& instance() { return *current->cta->emu; }

// schedule.cpp
void block(Wait why, uint32_t number, const Where& where);
void make_ready(Fiber& fiber);
// Lets other fibers run. The second form is for a fiber on which make_ready has been called.
void yield();
void yield_ready();
int run_launch(Instance& emu);
void thread_finished(Fiber& fiber);
std::string deadlock_report(Instance& emu);
// Called after an unsuccessful poll: of a predicate, or of the mbarrier at offset `number`. Waits until another thread or
// a copy has made progress, or nothing else can run.
void poll_again(Wait why, uint32_t number, const Where& where);
// barrier.cpp
void warp_lost_lane(Warp& warp);
// matrix.cpp
void execute(Warp& warp, Op& op);
// wgmma.cpp
std::string warpgroup_wait_text(const Fiber& fiber);
// banks.cpp
void count_banks(Fiber& fiber, int32_t place, bool write, uint32_t offset, uint32_t bytes);
// Counts the remaining accesses of a warp that has ended: the accesses that not all of its lanes have made.
void count_last_banks(Warp& warp);
// copy.cpp
void nudge_copies(Fiber& fiber);
// mbarrier.cpp
void complete_bytes(Cta& cta, uint32_t mbarrier, uint32_t bytes);
// Returns what the thread has done and knows of its CTA, and advances the thread's time past it.
Exact told_by(Fiber& fiber);
// Makes `count` arrivals at the mbarrier `bar` of CTA `there`, by a thread of that CTA or of another one.
void arrive_from(Fiber& fiber, Cta& there, MbarrierState& bar, uint32_t count, const Where& where);
MbarrierState* find_mbarrier(Cta& cta, uint32_t offset);
// Returns true if the thread that made the mbarrier has called a fence after mbarrier_init, ordered before `me` of the
// same CTA.
bool init_fenced(const Fiber& me, const MbarrierState& bar);
// cluster.cpp
Cluster& cluster_of(Cta& cta);
void cluster_lost_thread(Cta& cta);
std::string cluster_text(const Fiber& fiber);
// bulk.cpp
// Lands one load, when nothing else can run. Returns false if no load is in flight.
bool land_one(Instance& emu);
void nudge_bulk(Cta& cta);
void bulk_thread_finished(Fiber& fiber);
// shadow.cpp Returns true if the access that `thread` of this CTA made at `time` is ordered before `me`.
bool ordered(const Fiber& me, uint32_t thread, uint32_t time);
void shared_matrix_row(Fiber& fiber, const void* p, bool write, int32_t place);
void shared_atomic(const void* p, uint32_t bytes, const Where& where);
void shadow_copy_begin(Fiber& fiber, const AsyncCopy& copy);
void shadow_copy_done(Fiber& fiber, const AsyncCopy& copy);
// Operation that accesses shared memory asynchronously, and the place where it was issued.
struct AsyncUse {
    const char* what;
    int32_t place;
};
// Returns the offset of complete 16-byte blocks in shared memory, after checking that they lie inside it.
uint32_t async_offset(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use);
// Begins an asynchronous read of complete 16-byte blocks. The data must be written, ordered before `issuer`, and
// fenced. Until the read ends, no one may write the blocks.
void async_read_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use);
// Ends the asynchronous read, for which `waiter` has waited.
void async_read_end(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use);
// Records that `waiter` also knows that the read has ended, if several threads wait for one read.
void note_async_read(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use);
// Begins an asynchronous write, which is in flight until async_write_done. Afterwards only threads that have waited for
// its mbarrier may read the data.
uint32_t async_write_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use);
void async_write_done(Cta& cta, const void* p, uint32_t bytes);
// fault.cpp
void guard_enter(Instance& emu);
void guard_leave();
// global.cpp
void global_bulk_read(const void* p, uint32_t bytes, const Where& where);
void global_bulk_write(const void* p, uint32_t bytes, int32_t place);
// site.cpp
// Ends the launch with an error, from any place that detects it; the function then returns on the launcher's stack.
void report(Instance& emu, const char* format, ...) __attribute__((format(printf, 2, 3)));
// Leaves the running fiber permanently if an error has been reported.
void leave_if_failed();
const char* short_path(const char* path);
std::string place_name(const Where& where);
// Names the running thread and its place, for messages.
std::string caller(const Where& where);
// Encodes a place (a location in kernel source) as the distance of its constant from the kernel's entry. Both are in
// the kernel's shared object. 0 means no place.
inline int32_t place_of(const Instance& emu, const Where& where) {
    static_assert(sizeof(Where) == sizeof(intptr_t), "std::source_location is one pointer");
    intptr_t constant;
    memcpy(&constant, &where, sizeof constant);
    return int32_t(constant - reinterpret_cast<intptr_t>(emu.entry));
}
std::string place_text(const Instance& emu, int32_t place);
std::string thread_name(const Fiber& fiber);
// api.cpp
std::string refusal(const EmuOptions& sm, const EmuEntry& entry, const EmuLaunch& launch, size_t args_size);

}  // namespace emu
