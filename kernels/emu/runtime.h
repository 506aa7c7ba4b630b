// The emulator's inside: instance, CTA, warp, fiber. One instance runs one launch at a time on one host thread.
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
// Warp instructions a lane may be ahead of its warp.
constexpr uint32_t kSlots = 256;
// No multiple of a page: equal frames of neighbouring threads would share one cache set.
constexpr size_t kStackBytes = 64 * 1024 + 5 * 64;
constexpr uint64_t kCanary = 0x6f6d722d656d7521;

enum class Wait : uint8_t { none, instruction, barrier, warp_barrier, mbarrier, asking, cluster, registers, spin, warpgroup };

struct AsyncCopy {
    unsigned char* destination;
    const unsigned char* source;
    uint32_t bytes, source_bytes;
    uint32_t written;      // bit i: piece i of 4 bytes has been written
    uint32_t group;
    int32_t place;
};

struct Fiber : Thread {
    Wait wait;
    bool done;
    uint32_t wait_number;   // instruction number or barrier id
    uint32_t barrier_mask;  // of a warp barrier
    Where wait_where;
    uint64_t result;        // of an exchange
    uint64_t spin_progress; // progress when the predicate was last false
    uint32_t wgmma_posted;    // calls of its warpgroup it has come to
    uint32_t wgmma_products;  // and products among them
    uint32_t wgmma_waits;     // fences it had passed at the last wgmma_wait
    uint64_t gave_up;       // progress when it last asked an mbarrier in vain for as long as that lasts
    unsigned char* stack;
    int32_t near;           // the last place it passed
    std::vector<AsyncCopy> copies;
    uint32_t group;         // of the copies being issued
    Clocks clocks;
    Exact exact;            // beyond `clocks`
    Remotes remote;
    bool cluster_arrived;   // and has not waited since
    uint32_t cluster_phase; // in which it did
    uint32_t bulk_group;    // of the bulk stores being issued
    uint32_t registers;     // 0: not known
    Published fenced;                 // by the last threadfence
    std::vector<Published> observed;  // by relaxed accesses, not yet acquired by a fence
    std::vector<uint32_t> fences, init_fences;  // the times of its fence_proxy_async and fence_mbarrier_init
};

// One warp instruction that lanes post and the last of them executes.
struct alignas(64) Op {
    uint32_t kind;
    uint32_t lanes;  // mask of those that have posted
    Where where;
    const void* operand[3][kLanes];
};

// One access of a warp's lanes to shared memory, and those of one place that not all lanes have come to yet.
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
    Fiber* lanes;            // 32 of them
    uint32_t index;
    uint32_t live;           // mask of lanes that have not returned
    uint32_t posted, done;   // warp instructions opened, executed
    uint32_t base;           // the one in the first slot; moves up when all are executed, to stay in near caches
    uint32_t waiting;        // mask of lanes in Wait::instruction
    uint32_t at_warp_barrier;
    uint32_t at_barrier;     // lanes arrived at the CTA barrier `barrier_id`
    uint32_t barrier_id, barrier_threads;
    bool barrier_wait;
    Where barrier_where;
    std::unordered_map<uint64_t, Lockstep> lockstep;  // while banks are counted
    Op slots[kSlots];

    // The instruction of that number, counted from 1.
    Op& op(uint32_t number) { return slots[number - 1 - base]; }
};

struct Barrier {
    uint32_t arrived;   // threads, in whole warps
    uint32_t expected;  // 0: nobody yet
    uint32_t waiting_warps;
    uint64_t waiting[kReadyWords];
    Known known;        // what the arrived warps knew
};

struct Instance;
struct Warpgroup;

struct Cta;

// CTAs that started together, and their barrier.
struct Cluster {
    std::vector<Cta*> ctas;
    uint32_t phase = 0;
    uint32_t arrived = 0;  // threads
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
    Exact exact[kBarriers];  // what the arrived warps knew of single threads
    std::vector<MbarrierState> mbarriers;
    std::vector<BulkCopy> loads, stores;
    uint64_t free_registers;
    std::shared_ptr<Cluster> cluster;  // null until something asks, where it is alone
    uint32_t rank;
    unsigned char* smem = nullptr;
    size_t smem_capacity = 0;
    unsigned char* stacks = nullptr;
    uint32_t stack_count = 0;
    Shadow shadow;
    Known exited;  // when warps returned
    std::unordered_map<uint32_t, std::vector<Acquired>> acquired;  // by CTA that published
    uint32_t spinning;
    std::vector<std::shared_ptr<Warpgroup>> warpgroups;  // those that use wgmma
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
    std::string file;      // from kernels/ on
    std::string path;
    std::string wrapper;
    std::string exempt;
    uint32_t line = 0;
    uint64_t passes = 0;
    bool skipped = false;
};

struct Instance {
    EmuOptions options{};
    EmuCounters counters{};
    std::string error;
    std::string skip_file;
    uint32_t skip_line = 0;
    std::unordered_map<SiteKey, Site, SiteHash> sites;
    // Sites by a few bits of their place, because a kernel passes few and passes them often.
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
    std::vector<uint32_t> order;  // CTAs in the order they start; empty: by index
    std::vector<Cta*> started, pool;
    uint64_t progress = 0;        // grows whenever a thread does anything but ask in vain
    uint64_t random_state = 1;
    void* launcher_stack = nullptr;
    bool failed = false;

    uint64_t random() {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state * 0x2545f4914f6cdd1dull >> 16;
    }
    // A number below `bound`.
    uint32_t below(uint32_t bound) { return uint32_t(random() % bound); }
    ~Instance();
};

inline Fiber& self() { return *static_cast<Fiber*>(current); }
inline Instance& instance() { return *current->cta->emu; }

// schedule.cpp
void block(Wait why, uint32_t number, const Where& where);
void make_ready(Fiber& fiber);
// Lets others run; the second form for a fiber that make_ready has been called on.
void yield();
void yield_ready();
int run_launch(Instance& emu);
void thread_finished(Fiber& fiber);
std::string deadlock_report(Instance& emu);
// After a vain question to the mbarrier at `offset`: until something has happened, or nothing else can.
void ask_again(uint32_t offset, const Where& where);
// barrier.cpp
void warp_lost_lane(Warp& warp);
// matrix.cpp
void execute(Warp& warp, Op& op);
// wgmma.cpp
std::string warpgroup_wait_text(const Fiber& fiber);
// banks.cpp
void count_banks(Fiber& fiber, int32_t place, bool write, uint32_t offset, uint32_t bytes);
// Of a warp that has ended, those some lanes have not made.
void count_last_banks(Warp& warp);
// copy.cpp
void nudge_copies(Fiber& fiber);
// mbarrier.cpp
void complete_bytes(Cta& cta, uint32_t mbarrier, uint32_t bytes);
// What the thread has done and knows of its CTA, which goes on behind it.
Exact told_by(Fiber& fiber);
// `count` arrivals at the mbarrier `bar` of `there` by a thread of that CTA or of another.
void arrive_from(Fiber& fiber, Cta& there, MbarrierState& bar, uint32_t count, const Where& where);
MbarrierState* find_mbarrier(Cta& cta, uint32_t offset);
// Whether a fence of its maker, ordered before `me` of the same CTA, has followed its mbarrier_init.
bool init_fenced(const Fiber& me, const MbarrierState& bar);
// cluster.cpp
Cluster& cluster_of(Cta& cta);
void cluster_lost_thread(Cta& cta);
std::string cluster_text(const Fiber& fiber);
// bulk.cpp: nothing else can run, so a load lands; false when none is in flight.
bool land_one(Instance& emu);
void nudge_bulk(Cta& cta);
void bulk_thread_finished(Fiber& fiber);
// shadow.cpp
// Whether what `thread` of this CTA did at `time` is ordered before `me`.
bool ordered(const Fiber& me, uint32_t thread, uint32_t time);
void shared_matrix_row(Fiber& fiber, const void* p, bool write, int32_t place);
void shared_atomic(const void* p, uint32_t bytes, const Where& where);
void shadow_copy_begin(Fiber& fiber, const AsyncCopy& copy);
void shadow_copy_done(Fiber& fiber, const AsyncCopy& copy);
// What reads or writes shared memory behind the threads' backs, and where that was asked for.
struct AsyncUse {
    const char* what;
    int32_t place;
};
// Stretches of whole 16-byte blocks. A read begins: what it reads is there, ordered before `issuer` and fenced; until
// it ends nobody writes it. Returns the offset in shared memory.
uint32_t async_read_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use);
// It is over, as `waiter` has waited for.
void async_read_end(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use);
// Only notes that `waiter` knows it is over, where several wait for one read.
void note_async_read(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use);
// A write is in flight until it is done; then those read it that have waited for its barrier.
uint32_t async_write_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use);
void async_write_done(Cta& cta, const void* p, uint32_t bytes);
// fault.cpp
void guard_enter(Instance& emu);
void guard_leave();
// global.cpp
void global_bulk_read(const void* p, uint32_t bytes, const Where& where);
void global_bulk_write(const void* p, uint32_t bytes, int32_t place);
// site.cpp
// Ends the launch with an error from wherever it is found; returns on the launcher's stack.
void report(Instance& emu, const char* format, ...) __attribute__((format(printf, 2, 3)));
// Leaves the running fiber for good when an error has been reported.
void leave_if_failed();
const char* short_path(const char* path);
std::string place_name(const Where& where);
// A place as the distance of its constant from the kernel's entry, both in the kernel's object; 0 is no place.
inline int32_t place_of(const Instance& emu, const Where& where) {
    static_assert(sizeof(Where) == sizeof(intptr_t), "std::source_location is one pointer");
    intptr_t constant;
    memcpy(&constant, &where, sizeof constant);
    return int32_t(constant - reinterpret_cast<intptr_t>(emu.entry));
}
std::string place_text(const Instance& emu, int32_t place);
std::string thread_name(const Fiber& fiber);
// api.cpp
std::string refusal(const EmuEntry& entry, const EmuLaunch& launch, size_t args_size);

}  // namespace emu
