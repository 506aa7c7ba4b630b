// Emulation of clusters: their barrier, and accesses of one CTA to the shared memory of another. Each CTA has its own
// clock. A thread learns about another CTA only from the cluster barrier or from mbarriers (Remotes).
#include "emu/cluster.h"

#include "emu/runtime.h"

namespace emu {

void check_copy_mbarrier(const void* at, const Where& where);
void tile_load_for(Fiber& fiber, const void* destination, const Tile& tile, const void* mbarrier, const Where& where);

namespace {

uint32_t live_threads(const Cluster& cluster) {
    uint32_t n = 0;
    for (const Cta* cta : cluster.ctas) n += cta->live;
    return n;
}

void settle(Cluster& cluster) {
    if (cluster.arrived == 0 || cluster.arrived < live_threads(cluster)) return;
    cluster.phase++;
    cluster.arrived = 0;
    cluster.known = std::move(cluster.gathered);
    cluster.gathered.clear();
    for (Fiber* fiber : cluster.waiting) make_ready(*fiber);
    cluster.waiting.clear();
}

Cta& cta_at(uint32_t rank, const char* what, const Where& where) {
    Cluster& cluster = cluster_of(*self().cta);
    if (rank >= cluster.ctas.size()) {
        fail("%s to CTA %u of a cluster of %zu, by %s", what, rank, cluster.ctas.size(), caller(where).c_str());
    }
    Cta& there = *cluster.ctas[rank];
    if (there.live == 0) {
        fail("%s to CTA %u of the cluster, which has ended, by %s", what, rank, caller(where).c_str());
    }
    return there;
}

// Placeholder for the warp of a thread of another CTA.
Warp nobody = [] {
    Warp warp{};
    warp.index = ~0u;
    return warp;
}();

// The running thread as seen by CTA `there`: it is ordered after the accesses of CTA `there` that it knows, and after
// no others.
struct Foreign {
    Fiber fiber{};

    explicit Foreign(Cta& there) {
        Fiber& me = self();
        static_cast<Thread&>(fiber) = me;
        fiber.index = kForeign + me.index;
        fiber.cta = &there;
        fiber.warp = &nobody;
        fiber.smem = there.smem;
        fiber.clocks.now = there.shadow.time;
        if (there.rank < me.remote.size()) {
            fiber.exact = me.remote[there.rank].threads;
            fiber.clocks.known.async = me.remote[there.rank].async;
        }
    }
};

// Returns the mbarrier of CTA `there` at the offset of `at`, after checking that other CTAs may use it.
MbarrierState& mbarrier_in(Cta& there, const Fiber& foreign, const void* at, const Where& where) {
    uint32_t offset = uint32_t(static_cast<const unsigned char*>(at) - self().smem);
    MbarrierState* bar = find_mbarrier(there, offset);
    if (bar == nullptr) {
        fail("the mbarrier at offset %u of CTA %u of the cluster is used before its mbarrier_init, by %s", offset,
             there.rank, caller(where).c_str());
    }
    if (there.shadow.on && !init_fenced(foreign, *bar)) {
        fail("the mbarrier at offset %u of CTA %u of the cluster is used by %s, and no fence_mbarrier_init and barrier of "
             "the cluster after its mbarrier_init at %s come first",
             offset, there.rank, caller(where).c_str(), place_text(*there.emu, bar->init_place).c_str());
    }
    return *bar;
}

}  // namespace

Cluster& cluster_of(Cta& cta) {
    if (cta.cluster == nullptr) {
        cta.cluster = std::make_shared<Cluster>();
        cta.cluster->ctas.push_back(&cta);
    }
    return *cta.cluster;
}

uint32_t cluster_rank() { return self().cta->rank; }
uint32_t cluster_size() { return uint32_t(cluster_of(*self().cta).ctas.size()); }

void cluster_arrive(const Where& where) {
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    Cluster& cluster = cluster_of(cta);
    if (fiber.cluster_arrived) {
        fail("cluster_arrive without a cluster_wait since the last, by %s", caller(where).c_str());
    }
    fiber.cluster_arrived = true;
    fiber.cluster_phase = cluster.phase;
    if (cta.shadow.on) {
        Remotes told = fiber.remote;
        if (told.size() <= cta.rank) told.resize(cta.rank + 1);
        told[cta.rank] = {told_by(fiber), fiber.clocks.known.async};
        merge(cluster.gathered, told);
    }
    cluster.arrived++;
    cta.emu->progress++;
    settle(cluster);
    if (cta.emu->options.seed != 0 && cta.emu->below(4) == 0) yield();
}

void cluster_wait(const Where& where) {
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    Cluster& cluster = cluster_of(cta);
    if (!fiber.cluster_arrived) fail("cluster_wait without a cluster_arrive, by %s", caller(where).c_str());
    while (cluster.phase == fiber.cluster_phase) {
        cluster.waiting.push_back(&fiber);
        block(Wait::cluster, 0, where);
    }
    fiber.cluster_arrived = false;
    merge(fiber.remote, cluster.known);
    if (cta.rank < fiber.remote.size()) {
        fiber.exact = merged(fiber.exact, fiber.remote[cta.rank].threads);
        fiber.clocks.known.raise_async(fiber.remote[cta.rank].async);
    }
    nudge_bulk(cta);
    leave_if_failed();
}

void cluster_lost_thread(Cta& cta) { settle(*cta.cluster); }

std::string cluster_text(const Fiber& fiber) {
    const Cluster& cluster = *fiber.cta->cluster;
    return "the barrier of the cluster at " + place_name(fiber.wait_where) + ", where " + std::to_string(cluster.arrived) +
           " of " + std::to_string(live_threads(cluster)) + " threads have come";
}

void mbarrier_arrive_at(const void* at, uint32_t rank, const Where& where) {
    Fiber& fiber = self();
    if (rank == fiber.cta->rank) {
        mbarrier_arrive(at, 1, false, where);
        return;
    }
    Cta& there = cta_at(rank, "mbarrier_arrive_at", where);
    Foreign foreign(there);
    arrive_from(fiber, there, mbarrier_in(there, foreign.fiber, at, where), 1, where);
    if (there.emu->options.seed != 0 && there.emu->below(4) == 0) yield();
}

void tile_load_multicast(const void* destination, const Tile& tile, const void* mbarrier, uint32_t ranks,
                         const Where& where) {
    Fiber& fiber = self();
    uint32_t offset = uint32_t(static_cast<const unsigned char*>(destination) - fiber.smem);
    uint32_t barrier = uint32_t(static_cast<const unsigned char*>(mbarrier) - fiber.smem);
    if (ranks == 0 || ranks >> cluster_of(*fiber.cta).ctas.size() != 0) {
        fail("tma_load_multicast to the CTAs 0x%x of a cluster of %zu, by %s", ranks,
             cluster_of(*fiber.cta).ctas.size(), caller(where).c_str());
    }
    for (uint32_t rank = 0; ranks >> rank != 0; rank++) {
        if ((ranks >> rank & 1) == 0) continue;
        if (rank == fiber.cta->rank) {
            check_copy_mbarrier(mbarrier, where);
            tile_load_for(fiber, destination, tile, mbarrier, where);
            continue;
        }
        Cta& there = cta_at(rank, "tma_load_multicast", where);
        Foreign foreign(there);
        mbarrier_in(there, foreign.fiber, mbarrier, where);
        tile_load_for(foreign.fiber, there.smem + offset, tile, there.smem + barrier, where);
    }
    nudge_bulk(*fiber.cta);
    leave_if_failed();
}

}  // namespace emu
