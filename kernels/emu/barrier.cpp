// Emulation of the barriers of a CTA (sync_cta is number 0) and of a warp. bar.sync and bar.arrive are aligned
// instructions: the lanes of a warp gather first, then the warp arrives as a unit.
#include "emu/runtime.h"
#include "emu/sync.h"

namespace emu {

namespace {

uint32_t live_threads(const Cta& cta) {
    uint32_t n = 0;
    for (uint32_t w = 0; w < cta.warp_count; w++) {
        if (cta.warps[w].live != 0) n += kLanes;
    }
    return n;
}

void complete(Cta& cta, uint32_t id) {
    Barrier& bar = cta.barriers[id];
    // Warps that wait do nothing between their arrival and this moment, so all their accesses until now are known.
    // Warps that only arrived may have continued, so only their accesses before the arrival are known.
    uint32_t time = ++cta.shadow.time;
    for (uint32_t bits = bar.waiting_warps; bits != 0; bits &= bits - 1) bar.known.warp[__builtin_ctz(bits)] = time;
    for (uint32_t w = 0; id == 0 && w < kMaxWarps; w++) {
        if (bar.known.warp[w] < cta.exited.warp[w]) bar.known.warp[w] = cta.exited.warp[w];
    }
    for (uint32_t word = 0; word < kReadyWords; word++) {
        for (uint64_t bits = bar.waiting[word]; bits != 0; bits &= bits - 1) {
            Fiber& fiber = cta.fibers[word * 64 + uint32_t(__builtin_ctzll(bits))];
            fiber.clocks.acquire(bar.known, fiber.warp->index);
            fiber.exact = merged(fiber.exact, cta.exact[id]);
            fiber.clocks.now = time;
            if (id == 0) fiber.clocks.floor = time;
            make_ready(fiber);
        }
        bar.waiting[word] = 0;
    }
    bar.arrived = bar.expected = bar.waiting_warps = 0;
    memset(&bar.known, 0, sizeof bar.known);
    cta.exact[id] = nullptr;
}

void settle(Cta& cta, uint32_t id) {
    Barrier& bar = cta.barriers[id];
    if (bar.arrived == 0) return;
    uint32_t expected = bar.expected != 0 ? bar.expected : live_threads(cta);
    if (bar.arrived == expected) complete(cta, id);
}

// Called when all live lanes of the warp have reached the barrier.
void warp_arrives(Warp& warp) {
    Cta& cta = *warp.cta;
    uint32_t id = warp.barrier_id;
    Barrier& bar = cta.barriers[id];
    if (bar.arrived != 0 && bar.expected != warp.barrier_threads) {
        fail("barrier %u is used with %u threads where others wait for %u, at %s", id, warp.barrier_threads,
             bar.expected, place_name(warp.barrier_where).c_str());
    }
    bar.expected = warp.barrier_threads;
    bar.arrived += kLanes;
    if (bar.expected != 0 && bar.arrived > bar.expected) {
        fail("%u threads have arrived at barrier %u, which is for %u, at %s", bar.arrived, id, bar.expected,
             place_name(warp.barrier_where).c_str());
    }
    uint32_t time = ++cta.shadow.time;
    for (uint32_t bits = warp.at_barrier; bits != 0; bits &= bits - 1) {
        Fiber& fiber = warp.lanes[__builtin_ctz(bits)];
        fiber.clocks.release(bar.known);
        cta.exact[id] = merged(cta.exact[id], fiber.exact);
        fiber.clocks.now = time;
        if (warp.barrier_wait) {
            bar.waiting[fiber.index / 64] |= 1ull << (fiber.index % 64);
        } else {
            make_ready(fiber);
        }
    }
    bar.known.warp[warp.index] = time;
    if (warp.barrier_wait) bar.waiting_warps |= 1u << warp.index;
    warp.at_barrier = 0;
    settle(cta, id);
}

void settle_warp_barrier(Warp& warp, uint32_t mask) {
    uint32_t needed = mask & warp.live;
    if (needed == 0 || (warp.at_warp_barrier & needed) != needed) return;
    for (uint32_t bits = needed; bits != 0; bits &= bits - 1) {
        if (warp.lanes[__builtin_ctz(bits)].barrier_mask != mask) return;
    }
    uint32_t time = ++warp.cta->shadow.time;
    Clocks joined{};
    Exact exact;
    for (uint32_t bits = needed; bits != 0; bits &= bits - 1) {
        const Fiber& fiber = warp.lanes[__builtin_ctz(bits)];
        joined.join(fiber.clocks);
        exact = merged(exact, fiber.exact);
    }
    for (uint32_t bits = needed; bits != 0; bits &= bits - 1) joined.lane[__builtin_ctz(bits)] = time;
    joined.now = time;
    for (uint32_t bits = needed; bits != 0; bits &= bits - 1) {
        Fiber& fiber = warp.lanes[__builtin_ctz(bits)];
        fiber.clocks = joined;
        fiber.exact = exact;
        make_ready(fiber);
    }
    warp.at_warp_barrier &= ~needed;
}

// Blocks the thread, unless its arrival completed the barrier or it does not wait.
void block_unless_ready(Wait why, uint32_t number, const Where& where) {
    if (self().wait == why) {
        block(why, number, where);
    } else {
        yield_ready();
    }
}

}  // namespace

void barrier(uint32_t id, uint32_t threads, bool wait, const Where& where) {
    Fiber& fiber = self();
    Warp& warp = *fiber.warp;
    if (id >= kBarriers) fail("barrier %u: there are 16, at %s", id, place_name(where).c_str());
    if (id != 0 || threads != 0) {
        if (id == 0) fail("barrier 0 belongs to sync_cta, at %s", place_name(where).c_str());
        if (threads == 0 || threads % kLanes != 0 || threads > fiber.cta->warp_count * kLanes) {
            fail("barrier %u for %u threads: a multiple of 32 up to the CTA's %u, at %s", id, threads,
                 fiber.cta->threads, place_name(where).c_str());
        }
    }
    if (warp.at_barrier == 0) {
        warp.barrier_id = id;
        warp.barrier_threads = threads;
        warp.barrier_wait = wait;
        warp.barrier_where = where;
    } else if (warp.barrier_id != id || warp.barrier_threads != threads || warp.barrier_wait != wait ||
               warp.barrier_where.line() != where.line()) {
        fail("the lanes of a warp are at different barriers: %s at barrier %u at %s, others at barrier %u at %s",
             thread_name(fiber).c_str(), id, place_name(where).c_str(), warp.barrier_id,
             place_name(warp.barrier_where).c_str());
    }
    warp.at_barrier |= 1u << fiber.lane;
    fiber.wait = Wait::barrier;
    if (warp.at_barrier == warp.live) warp_arrives(warp);
    block_unless_ready(Wait::barrier, id, where);
    nudge_copies(fiber);
    nudge_bulk(*fiber.cta);
    leave_if_failed();
}

void warp_barrier(uint32_t mask, const Where& where) {
    Fiber& fiber = self();
    Warp& warp = *fiber.warp;
    if ((mask >> fiber.lane & 1) == 0) {
        fail("sync_warp(0x%08x) by lane %u, which is not in the mask, at %s", mask, fiber.lane,
             place_name(where).c_str());
    }
    fiber.barrier_mask = mask;
    fiber.wait = Wait::warp_barrier;
    warp.at_warp_barrier |= 1u << fiber.lane;
    settle_warp_barrier(warp, mask);
    block_unless_ready(Wait::warp_barrier, 0, where);
}

void warp_lost_lane(Warp& warp) {
    Cta& cta = *warp.cta;
    if (warp.live == 0) {
        cta.exited.warp[warp.index] = ++cta.shadow.time;
        settle(cta, 0);
        return;
    }
    if (warp.at_barrier != 0 && warp.at_barrier == warp.live) warp_arrives(warp);
    for (uint32_t bits = warp.at_warp_barrier; bits != 0; bits &= bits - 1) {
        uint32_t lane = uint32_t(__builtin_ctz(bits));
        if (warp.at_warp_barrier >> lane & 1) settle_warp_barrier(warp, warp.lanes[lane].barrier_mask);
    }
}

}  // namespace emu
