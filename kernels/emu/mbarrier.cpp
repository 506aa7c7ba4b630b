// Emulation of mbarriers: phase, pending arrivals and pending bytes follow the rules of the PTX ISA ("mbarrier").
// Behaviour that the PTX ISA leaves undefined ends the launch with an error. A thread that arrives publishes what it
// has done and knows. A thread that observes that the phase is complete acquires what those threads have published, and
// the bulk copies of that phase.
#include "emu/mbarrier.h"

#include <algorithm>

#include "emu/runtime.h"

namespace emu {

MbarrierState* find_mbarrier(Cta& cta, uint32_t offset) {
    for (MbarrierState& bar : cta.mbarriers) {
        if (bar.offset == offset) return &bar;
    }
    return nullptr;
}

namespace {

std::string name_of(const MbarrierState& bar) { return "the mbarrier at offset " + std::to_string(bar.offset); }

uint32_t offset_of(const void* at, const Where& where) {
    const Fiber& fiber = self();
    size_t offset = size_t(static_cast<const unsigned char*>(at) - fiber.smem);
    if (offset >= fiber.smem_bytes || fiber.smem_bytes - offset < 8 || offset % 8 != 0) {
        fail("an mbarrier at offset %zd of shared memory, which has %u bytes: inside, at a multiple of 8; by %s",
             ptrdiff_t(offset), fiber.smem_bytes, caller(where).c_str());
    }
    return uint32_t(offset);
}

MbarrierState& live(const void* at, const Where& where) {
    Fiber& fiber = self();
    uint32_t offset = offset_of(at, where);
    MbarrierState* bar = find_mbarrier(*fiber.cta, offset);
    if (bar == nullptr) {
        fail("the mbarrier at offset %u is used before its mbarrier_init, by %s", offset, caller(where).c_str());
    }
    if (fiber.cta->shadow.on && !ordered(fiber, bar->init_thread, bar->init_time)) {
        fail("race: the use of %s by %s is not ordered after its mbarrier_init by thread %u at %s", name_of(*bar).c_str(),
             caller(where).c_str(), bar->init_thread, place_text(*fiber.cta->emu, bar->init_place).c_str());
    }
    return *bar;
}

// Completes the phase if no arrivals and no bytes are missing.
void settle(Cta& cta, MbarrierState& bar) {
    if (bar.pending != 0 || bar.due != 0) return;
    bar.phase++;
    bar.pending = bar.expected;
    bar.seen = false;
    bar.known = bar.gathered;
    // If a time is known for every thread of a warp, it is known for the warp.
    bool beyond = false;
    if (bar.threads != nullptr) {
        const std::vector<uint32_t>& threads = *bar.threads;
        for (uint32_t w = 0; w < cta.warp_count; w++) {
            uint32_t least = UINT32_MAX;
            for (uint32_t i = 0; i < kLanes; i++) least = std::min(least, threads[w * kLanes + i]);
            bar.known.warp[w] = std::max(bar.known.warp[w], least);
            for (uint32_t i = 0; i < kLanes; i++) beyond |= threads[w * kLanes + i] > bar.known.warp[w];
        }
    }
    bar.exact = beyond ? bar.threads : nullptr;
    bar.before = bar.after = nullptr;
    bar.gathered = {};
    bar.threads = nullptr;
    bar.remote = std::move(bar.gathered_remote);
    bar.gathered_remote.clear();
    for (Fiber* fiber : bar.waiting) make_ready(*fiber);
    bar.waiting.clear();
}

// Publishes the knowledge of an arriving thread of the same CTA, including what it knows of complete warps and of other
// CTAs.
void gather(Fiber& fiber, MbarrierState& bar) {
    Cta& cta = *fiber.cta;
    uint32_t time = ++cta.shadow.time;
    if (bar.threads == nullptr) bar.threads = std::make_shared<std::vector<uint32_t>>(cta.warp_count * kLanes);
    std::vector<uint32_t>& threads = *bar.threads;
    if (fiber.exact != nullptr) {
        for (size_t i = 0; i < threads.size(); i++) threads[i] = std::max(threads[i], (*fiber.exact)[i]);
    }
    // For each lane of the thread's own warp: what the thread knows of that lane. For the thread itself: everything up
    // to now.
    uint32_t* own = threads.data() + fiber.warp->index * kLanes;
    for (uint32_t i = 0; i < kLanes; i++) own[i] = std::max({own[i], fiber.clocks.lane[i], fiber.clocks.floor});
    own[fiber.lane] = fiber.clocks.now = time;
    fiber.clocks.release(bar.gathered);
    merge(bar.gathered_remote, fiber.remote);
}

void change_due(Instance& emu, Cta& cta, MbarrierState& bar, int64_t bytes) {
    bar.due += bytes;
    emu.progress++;
    if (bar.due > kMbarrierMost || bar.due < -kMbarrierMost) {
        report(emu, "%s of CTA %u of the grid has %lld bytes due: at most %lld either way", name_of(bar).c_str(),
               uint32_t(cta.linear), static_cast<long long>(bar.due), static_cast<long long>(kMbarrierMost));
    }
}

void maybe_yield() {
    Instance& emu = instance();
    if (emu.options.seed != 0 && emu.below(4) == 0) yield();
    nudge_bulk(*self().cta);
    leave_if_failed();
}

bool completed(const MbarrierState& bar, uint32_t parity) { return (bar.phase & 1) != parity; }

void acquire(Fiber& fiber, MbarrierState& bar) {
    bar.seen = true;
    merge(fiber.remote, bar.remote);
    fiber.clocks.acquire(bar.known, fiber.warp->index);
    if (bar.after == nullptr || fiber.exact != bar.before) {
        bar.before = fiber.exact;
        bar.after = merged(fiber.exact, bar.exact);
    }
    fiber.exact = bar.after;
}

void check_parity(uint32_t parity, const Where& where) {
    if (parity > 1) fail("a wait for parity %u: 0 or 1, by %s", parity, caller(where).c_str());
}

}  // namespace

Exact told_by(Fiber& fiber) {
    Cta& cta = *fiber.cta;
    auto threads = std::make_shared<std::vector<uint32_t>>(cta.warp_count * kLanes);
    for (uint32_t i = 0; i < threads->size(); i++) {
        bool own = i / kLanes == fiber.warp->index;
        uint32_t known = own ? fiber.clocks.lane[i % kLanes] : fiber.clocks.known.warp[i / kLanes];
        uint32_t exact = fiber.exact == nullptr ? 0 : (*fiber.exact)[i];
        (*threads)[i] = std::max({known, exact, fiber.clocks.floor});
    }
    (*threads)[fiber.index] = fiber.clocks.now = ++cta.shadow.time;
    return threads;
}

void arrive_from(Fiber& fiber, Cta& there, MbarrierState& bar, uint32_t count, const Where& where) {
    if (!bar.seen && there.emu->options.unseen_phases == 0) {
        fail("%s is arrived at in phase %llu before any wait has found phase %llu completed (PTX ISA, phase of the "
             "mbarrier object), by %s",
             name_of(bar).c_str(), static_cast<unsigned long long>(bar.phase),
             static_cast<unsigned long long>(bar.phase - 1), caller(where).c_str());
    }
    if (count == 0 || count > bar.pending) {
        fail("%u arrivals at %s, whose phase %llu waits for %u more of %u, by %s", count, name_of(bar).c_str(),
             static_cast<unsigned long long>(bar.phase), bar.pending, bar.expected, caller(where).c_str());
    }
    Cta& cta = *fiber.cta;
    if (cta.shadow.on && &cta == &there) gather(fiber, bar);
    if (cta.shadow.on && &cta != &there) {
        Remotes told = fiber.remote;
        if (told.size() <= cta.rank) told.resize(cta.rank + 1);
        told[cta.rank] = {told_by(fiber), fiber.clocks.known.async};
        merge(bar.gathered_remote, told);
    }
    bar.pending -= count;
    cta.emu->progress++;
    settle(there, bar);
}

bool init_fenced(const Fiber& me, const MbarrierState& bar) {
    const Fiber& maker = me.cta->fibers[bar.init_thread];
    for (const std::vector<uint32_t>* fences : {&maker.init_fences, &maker.fences}) {
        auto first = std::upper_bound(fences->begin(), fences->end(), bar.init_time);
        if (first != fences->end() && ordered(me, maker.index, *first)) return true;
    }
    return false;
}

void mbarrier_init(const void* at, int count, const Where& where) {
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    uint32_t offset = offset_of(at, where);
    if (count < 1 || count > kMbarrierMost) {
        fail("an mbarrier for %d arrivals: 1 to %lld, by %s", count, static_cast<long long>(kMbarrierMost),
             caller(where).c_str());
    }
    if (find_mbarrier(cta, offset) != nullptr) {
        fail("mbarrier_init of the mbarrier at offset %u, which is in use: mbarrier_inval comes first, by %s", offset,
             caller(where).c_str());
    }
    MbarrierState bar{};
    bar.offset = offset;
    bar.pending = bar.expected = uint32_t(count);
    bar.seen = true;
    bar.init_thread = uint16_t(fiber.index);
    bar.init_time = fiber.clocks.now;
    bar.init_place = place_of(*cta.emu, where);
    cta.mbarriers.push_back(std::move(bar));
}

void mbarrier_inval(const void* at, const Where& where) {
    Cta& cta = *self().cta;
    MbarrierState& bar = live(at, where);
    if (!bar.waiting.empty() || bar.due != 0) {
        fail("mbarrier_inval of %s, which %zu threads wait for and has %lld bytes due, by %s", name_of(bar).c_str(),
             bar.waiting.size(), static_cast<long long>(bar.due), caller(where).c_str());
    }
    cta.mbarriers.erase(cta.mbarriers.begin() + (&bar - cta.mbarriers.data()));
}

void mbarrier_arrive(const void* at, int count, bool drop, const Where& where) {
    MbarrierState& bar = live(at, where);
    if (drop) {
        if (bar.expected == 1) fail("the last arrival of %s is dropped, by %s", name_of(bar).c_str(), caller(where).c_str());
        bar.expected--;
    }
    arrive_from(self(), *self().cta, bar, uint32_t(count), where);
    maybe_yield();
}

void mbarrier_expect(const void* at, int bytes, bool arriving, const Where& where) {
    Fiber& fiber = self();
    MbarrierState& bar = live(at, where);
    if (bytes < 0 || bytes > kMbarrierMost) {
        fail("%d bytes expected at %s: 0 to %lld, by %s", bytes, name_of(bar).c_str(),
             static_cast<long long>(kMbarrierMost), caller(where).c_str());
    }
    change_due(instance(), *fiber.cta, bar, bytes);
    leave_if_failed();
    if (arriving) {
        arrive_from(fiber, *fiber.cta, bar, 1, where);
    } else if (bar.pending == 0 && bar.due == 0) {
        fail("%d bytes expected at %s after they and all arrivals have come: whether that completes the phase is not "
             "stated, by %s",
             bytes, name_of(bar).c_str(), caller(where).c_str());
    }
    maybe_yield();
}

void mbarrier_complete(const void* at, int bytes, const Where& where) {
    MbarrierState& bar = live(at, where);
    complete_bytes(*self().cta, bar.offset, uint32_t(bytes));
    leave_if_failed();
}

void complete_bytes(Cta& cta, uint32_t mbarrier, uint32_t bytes) {
    MbarrierState* bar = find_mbarrier(cta, mbarrier);
    if (bar == nullptr) {
        report(*cta.emu, "a bulk copy has ended whose mbarrier at offset %u of CTA %u of the grid is gone", mbarrier,
               uint32_t(cta.linear));
        return;
    }
    bar->gathered.raise_async(cta.shadow.on ? ++cta.shadow.time : 0);
    change_due(*cta.emu, cta, *bar, -int64_t(bytes));
    settle(cta, *bar);
}

bool mbarrier_test(const void* at, uint32_t parity, const Where& where) {
    check_parity(parity, where);
    live(at, where);
    maybe_yield();
    // Looks the mbarrier up again, because other threads may have replaced it meanwhile.
    MbarrierState& bar = live(at, where);
    if (!completed(bar, parity)) return false;
    acquire(self(), bar);
    return true;
}

bool mbarrier_try(const void* at, uint32_t parity, const Where& where) {
    if (mbarrier_test(at, parity, where)) return true;
    poll_again(Wait::asking, offset_of(at, where), where);
    return mbarrier_test(at, parity, where);
}

void mbarrier_wait(const void* at, uint32_t parity, const Where& where) {
    Fiber& fiber = self();
    while (!mbarrier_test(at, parity, where)) {
        MbarrierState& bar = live(at, where);
        if (completed(bar, parity)) continue;
        bar.waiting.push_back(&fiber);
        block(Wait::mbarrier, bar.offset, where);
    }
}

void check_copy_mbarrier(const void* at, const Where& where) {
    Fiber& fiber = self();
    MbarrierState& bar = live(at, where);
    if (!fiber.cta->shadow.on || init_fenced(fiber, bar)) return;
    const Fiber& maker = fiber.cta->fibers[bar.init_thread];
    fail("a bulk copy by %s signals %s, whose mbarrier_init by thread %u at %s no fence_mbarrier_init or "
         "fence_proxy_async of that thread follows",
         caller(where).c_str(), name_of(bar).c_str(), maker.index, place_text(*fiber.cta->emu, bar.init_place).c_str());
}

}  // namespace emu
