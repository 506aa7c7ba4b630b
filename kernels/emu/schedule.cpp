// Scheduler: decides which fiber runs next. A fiber that blocks picks a ready fiber of its own CTA and switches
// directly to it. Everything else (another CTA, starting a CTA, deadlock) is decided on the launcher's stack.
#include <sys/mman.h>

#include <algorithm>

#include "emu/fiber.h"

namespace emu {

thread_local Thread* current = nullptr;

namespace {

Fiber* ready_fiber(Cta& cta, uint32_t from) {
    if (cta.ready_count == 0) return nullptr;
    uint32_t words = (cta.threads + 63) / 64;
    uint32_t word = from / 64;
    uint64_t bits = cta.ready[word] & (~0ull << (from % 64));
    for (uint32_t i = 0; i <= words; i++) {
        if (bits != 0) return &cta.fibers[word * 64 + uint32_t(__builtin_ctzll(bits))];
        word = word + 1 == words ? 0 : word + 1;
        bits = cta.ready[word];
    }
    return nullptr;
}

void take(Cta& cta, Fiber& fiber) {
    cta.ready[fiber.index / 64] &= ~(1ull << (fiber.index % 64));
    cta.ready_count--;
}

// Returns the next ready fiber of the CTA, or null if there is none or the schedule moves to another CTA.
Fiber* next_here(Fiber& from) {
    Cta& cta = *from.cta;
    Instance& emu = *cta.emu;
    if (cta.ready_count == 0) return nullptr;
    uint32_t start = from.index + 1 == cta.threads ? 0 : from.index + 1;
    if (emu.options.seed != 0) {
        if (emu.started.size() > 1 && emu.below(16) == 0) return nullptr;
        start = emu.below(cta.threads);
    }
    return ready_fiber(cta, start);
}

void leave(Fiber& from) {
    Instance& emu = *from.cta->emu;
    Fiber* next = next_here(from);
    if (next == nullptr) {
        emu_switch(&from.stack_pointer, emu.launcher_stack);
        return;
    }
    take(*next->cta, *next);
    if (next == &from) return;
    current = next;
    emu.progress++;
    emu_switch(&from.stack_pointer, next->stack_pointer);
}

void fiber_main() {
    Fiber& fiber = self();
    Instance& emu = *fiber.cta->emu;
    emu.entry->run(emu.args);
    thread_finished(fiber);
    leave(fiber);
    __builtin_unreachable();
}

void release_stacks(Cta& cta) {
    if (cta.stacks != nullptr) munmap(cta.stacks, cta.stack_count * kStackBytes);
    cta.stacks = nullptr;
    cta.stack_count = 0;
}

void discard(Cta* cta) {
    release_stacks(*cta);
    if (cta->smem != nullptr) munmap(cta->smem, cta->smem_capacity);
    delete cta;
}

void* map(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
}

// Prepares a CTA object to run the CTA of that index. Returns false if there is not enough memory.
bool prepare(Instance& emu, Cta& cta, uint64_t linear) {
    uint32_t n = emu.launch.block;
    cta.emu = &emu;
    cta.linear = linear;
    cta.block_idx = {unsigned(linear % emu.grid_dim.x), unsigned(linear / emu.grid_dim.x % emu.grid_dim.y),
                     unsigned(linear / emu.grid_dim.x / emu.grid_dim.y)};
    cta.threads = cta.live = n;
    cta.warp_count = (n + kLanes - 1) / kLanes;
    cta.spinning = 0;
    if (cta.stack_count < n) {
        release_stacks(cta);
        cta.stacks = static_cast<unsigned char*>(map(n * kStackBytes));
        if (cta.stacks == nullptr) return false;
        cta.stack_count = n;
    }
    size_t smem = (size_t(emu.launch.smem) + 1023) / 1024 * 1024;
    if (cta.smem_capacity < smem) {
        if (cta.smem != nullptr) munmap(cta.smem, cta.smem_capacity);
        cta.smem = static_cast<unsigned char*>(map(smem));
        if (cta.smem == nullptr) return false;
        cta.smem_capacity = smem;
    }
    memset(cta.smem, emu.options.poison ? 0xff : 0, smem);
    if (cta.fibers.size() < n) cta.fibers.resize(n);
    if (cta.warps.size() < cta.warp_count) cta.warps.resize(cta.warp_count);
    memset(cta.barriers, 0, sizeof cta.barriers);
    memset(cta.ready, 0, sizeof cta.ready);
    cta.exited = {};
    cta.acquired.clear();
    for (Exact& exact : cta.exact) exact = nullptr;
    cta.mbarriers.clear();
    cta.loads.clear();
    cta.stores.clear();
    cta.free_registers = 0;
    cta.cluster = nullptr;
    cta.rank = uint32_t(linear % emu.launch.cluster);
    cta.warpgroups.clear();
    cta.shadow.begin(emu.launch.smem, emu.options.shadow != 0);
    for (uint32_t w = 0; w < cta.warp_count; w++) {
        Warp& warp = cta.warps[w];
        warp.cta = &cta;
        warp.lanes = &cta.fibers[w * kLanes];
        warp.index = w;
        uint32_t lanes = std::min(kLanes, n - w * kLanes);
        warp.live = lanes == kLanes ? ~0u : (1u << lanes) - 1;
        warp.posted = warp.done = warp.base = warp.waiting = warp.at_warp_barrier = warp.at_barrier = 0;
        warp.lockstep.clear();
    }
    for (uint32_t i = 0; i < n; i++) {
        Fiber& fiber = cta.fibers[i];
        fiber.thread_idx = {i, 0, 0};
        fiber.index = i;
        fiber.lane = i % kLanes;
        fiber.cta = &cta;
        fiber.warp = &cta.warps[i / kLanes];
        fiber.block_idx = &cta.block_idx;
        fiber.block_dim = &emu.block_dim;
        fiber.grid_dim = &emu.grid_dim;
        fiber.smem = cta.smem;
        fiber.smem_bytes = emu.launch.smem;
        fiber.posted = 0;
        fiber.wgmma_fences = fiber.wgmma_posted = fiber.wgmma_products = fiber.wgmma_waits = 0;
        fiber.wait = Wait::none;
        fiber.done = false;
        fiber.copies.clear();
        fiber.group = 0;
        fiber.clocks.begin();
        fiber.near = 0;
        fiber.fenced = nullptr;
        fiber.observed.clear();
        fiber.fences.clear();
        fiber.init_fences.clear();
        fiber.exact = nullptr;
        fiber.gave_up = 0;
        fiber.remote.clear();
        fiber.cluster_arrived = false;
        fiber.bulk_group = 0;
        // Registers are allocated in units of 8.
        fiber.registers = (emu.launch.registers + 7) / 8 * 8;
        fiber.stack = cta.stacks + i * kStackBytes;
        fiber.stack_pointer = prepare_stack(fiber.stack, kStackBytes, fiber_main);
        cta.ready[i / 64] |= 1ull << (i % 64);
    }
    cta.ready_count = n;
    return true;
}

// Prepares one CTA of a cluster, whose CTAs start together. Returns null if there is not enough memory.
Cta* start_one(Instance& emu, uint64_t linear) {
    Cta* cta;
    if (emu.pool.empty()) {
        cta = new Cta();
    } else {
        cta = emu.pool.back();
        emu.pool.pop_back();
    }
    emu.started.push_back(cta);
    if (!prepare(emu, *cta, linear)) {
        emu.error = "out of memory for the stacks of a CTA";
        emu.failed = true;
        return nullptr;
    }
    emu.cta_started++;
    return cta;
}

Fiber* start_cta(Instance& emu) {
    uint32_t together = emu.launch.cluster;
    if (emu.cta_started == emu.cta_total || emu.started.size() + together > emu.resident_limit) return nullptr;
    uint64_t number = emu.cta_started / together;
    uint64_t first = (emu.order.empty() ? number : emu.order[number]) * together;
    auto cluster = together > 1 ? std::make_shared<Cluster>() : nullptr;
    for (uint32_t rank = 0; rank < together; rank++) {
        Cta* cta = start_one(emu, first + rank);
        if (cta == nullptr) return nullptr;
        cta->cluster = cluster;
        if (cluster != nullptr) cluster->ctas.push_back(cta);
    }
    emu.progress++;
    Cta& cta = *emu.started[emu.started.size() - (emu.options.seed != 0 ? 1 + emu.below(together) : together)];
    return &cta.fibers[emu.options.seed != 0 ? emu.below(cta.threads) : 0];
}

// Returns a spinning fiber whose predicate may have changed since it was last called.
Fiber* next_spinner(Instance& emu) {
    size_t n = emu.started.size();
    size_t first = emu.options.seed != 0 && n > 1 ? emu.below(uint32_t(n)) : 0;
    for (size_t i = 0; i < n; i++) {
        Cta& cta = *emu.started[(first + i) % n];
        if (cta.spinning == 0) continue;
        for (uint32_t t = 0; t < cta.threads; t++) {
            Fiber& fiber = cta.fibers[t];
            bool spins = fiber.wait == Wait::spin || fiber.wait == Wait::asking;
            if (spins && fiber.spin_progress != emu.progress) return &fiber;
        }
    }
    return nullptr;
}

// Returns a fiber that polls an mbarrier and may give up, because a try_wait has a time limit. If the fiber polls again
// before anything has made progress, it waits for progress.
Fiber* next_asker(Instance& emu) {
    for (Cta* cta : emu.started) {
        for (uint32_t t = 0; cta->spinning != 0 && t < cta->threads; t++) {
            Fiber& fiber = cta->fibers[t];
            if (fiber.wait != Wait::asking || fiber.gave_up == emu.progress) continue;
            fiber.gave_up = emu.progress;
            return &fiber;
        }
    }
    return nullptr;
}

// Seeded schedules start up to this many CTAs side by side even if they do not need more.
constexpr size_t kSideBySide = 4;

Fiber* next_anywhere(Instance& emu) {
    bool seeded = emu.options.seed != 0;
    if (seeded && (emu.started.empty() || (emu.started.size() < kSideBySide && emu.below(4) == 0))) {
        Fiber* fiber = start_cta(emu);
        if (fiber != nullptr || emu.failed) {
            if (fiber != nullptr) take(*fiber->cta, *fiber);
            return fiber;
        }
    }
    size_t n = emu.started.size();
    size_t first = seeded && n > 1 ? emu.below(uint32_t(n)) : 0;
    for (size_t i = 0; i < n; i++) {
        Cta& cta = *emu.started[(first + i) % n];
        Fiber* fiber = ready_fiber(cta, seeded ? emu.below(cta.threads) : 0);
        if (fiber != nullptr) {
            take(cta, *fiber);
            emu.progress++;
            return fiber;
        }
    }
    if (Fiber* fiber = next_spinner(emu)) return fiber;
    // Loads land as late as possible: only when no started thread can continue without one.
    if (land_one(emu)) return emu.failed ? nullptr : next_anywhere(emu);
    Fiber* fiber = start_cta(emu);
    if (fiber == nullptr) return emu.failed ? nullptr : next_asker(emu);
    take(*fiber->cta, *fiber);
    return fiber;
}

// A CTA is finished only when its whole cluster has finished, because other CTAs of the cluster may still access it.
bool finished(const Cta& cta) {
    if (cta.live != 0 || cta.cluster == nullptr) return cta.live == 0;
    for (const Cta* other : cta.cluster->ctas) {
        if (other->live != 0) return false;
    }
    return true;
}

void collect_finished(Instance& emu) {
    for (size_t i = 0; i < emu.started.size();) {
        if (finished(*emu.started[i])) {
            emu.pool.push_back(emu.started[i]);
            emu.started.erase(emu.started.begin() + long(i));
        } else {
            i++;
        }
    }
}

}  // namespace

void make_ready(Fiber& fiber) {
    Cta& cta = *fiber.cta;
    fiber.wait = Wait::none;
    cta.ready[fiber.index / 64] |= 1ull << (fiber.index % 64);
    cta.ready_count++;
}

void block(Wait why, uint32_t number, const Where& where) {
    Fiber& fiber = self();
    fiber.wait = why;
    fiber.wait_number = number;
    fiber.wait_where = where;
    leave(fiber);
}

void yield() {
    make_ready(self());
    leave(self());
}

void yield_ready() {
    Fiber& fiber = self();
    if (fiber.cta->emu->options.seed == 0) {
        take(*fiber.cta, fiber);
    } else {
        leave(fiber);
    }
}

void thread_finished(Fiber& fiber) {
    Cta& cta = *fiber.cta;
    Warp& warp = *fiber.warp;
    if (!stack_intact(fiber.stack)) fail("stack overflow: a thread's locals exceed %zu bytes", kStackBytes);
    bulk_thread_finished(fiber);
    fiber.done = true;
    cta.live--;
    if (cta.cluster != nullptr) cluster_lost_thread(cta);
    warp.live &= ~(1u << fiber.lane);
    if (warp.live == 0) count_last_banks(warp);
    warp_lost_lane(warp);
}

void poll_again(Wait why, uint32_t number, const Where& where) {
    Fiber& fiber = self();
    fiber.spin_progress = fiber.cta->emu->progress;
    fiber.cta->spinning++;
    block(why, number, where);
    fiber.wait = Wait::none;
    fiber.cta->spinning--;
}

void spin_again(const Where& where) { poll_again(Wait::spin, 0, where); }

void spin_done() { instance().progress++; }

int run_launch(Instance& emu) {
    while (!emu.failed) {
        Fiber* next = next_anywhere(emu);
        if (emu.failed) break;
        if (next == nullptr) {
            if (emu.cta_started == emu.cta_total && emu.started.empty()) break;
            emu.error = deadlock_report(emu);
            emu.failed = true;
            break;
        }
        current = next;
        emu_switch(&emu.launcher_stack, next->stack_pointer);
        current = nullptr;
        collect_finished(emu);
    }
    current = nullptr;
    for (Cta* cta : emu.started) emu.pool.push_back(cta);
    emu.started.clear();
    // Grids that need all their CTAs at once are rare, so only the stacks of a few CTAs are kept for the next launch.
    while (emu.pool.size() > kSideBySide) {
        discard(emu.pool.back());
        emu.pool.pop_back();
    }
    return emu.failed ? 1 : 0;
}

Instance::~Instance() {
    for (Cta* cta : pool) discard(cta);
}

}  // namespace emu
