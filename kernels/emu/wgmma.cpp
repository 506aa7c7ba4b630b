// Emulation of wgmma for a warpgroup: checks that its threads make the same calls and touch no data in use, and
// executes the products.
//
// The emulator is stricter than PTX in three points:
// - Every thread, not only every warp, must have seen the operands written.
// - A wgmma_fence is required after each wgmma_wait, as ptxas requires it, even if no register was touched.
// - Every thread must make every call. Like a barrier of a warp, a wgmma_wait orders the lanes of a warp. Afterwards
// one lane can represent all of them.
#include "emu/wgmma.h"

#include <algorithm>
#include <deque>

#include "emu/operand.h"
#include "emu/runtime.h"

namespace emu {

constexpr uint32_t kGroupThreads = 128, kGroupWarps = kGroupThreads / kLanes;
// Number of calls that a thread may be ahead of its warpgroup.
constexpr uint32_t kAhead = 64;

// Accumulators of a warpgroup, [64][columns].
struct SumTile {
    uint32_t columns;
    uint32_t users;  // threads whose registers it holds
    std::vector<float> at;
};

namespace {

enum class Call : uint32_t { fence, commit, wait, product };

const char* call_name(Call call) {
    static const char* const names[] = {"wgmma_fence", "wgmma_commit", "wgmma_wait", "wgmma"};
    return names[uint32_t(call)];
}

struct Posted {
    Call call;
    Where where;
    uint32_t arrived;
    uint32_t newest;    // used by wait
    Product product;    // used by product, like the following fields
    SumTile* tile;
    uint32_t a[kGroupThreads][4];
};

// A product between its call and the wait that covers it.
struct Flying {
    uint32_t number;
    Product product;
    SumTile* tile;
    int32_t place;
    bool done;
    std::vector<uint32_t> a;
};

// Warp of the fiber that represents all threads of a warpgroup; it belongs to no real warp.
Warp nobody{};

}  // namespace

struct Warpgroup {
    uint32_t index;
    Fiber* threads;
    Fiber all{};  // represents all threads: knows what every one of them knows
    std::vector<Posted> calls = std::vector<Posted>(kAhead);
    uint32_t opened = 0, carried_out = 0;
    std::vector<std::unique_ptr<SumTile>> tiles;
    uint32_t products = 0;          // number of products issued so far
    uint32_t waited = 0;            // number of the newest product that all threads have waited for
    std::deque<Flying> flying;
    std::deque<uint32_t> groups;    // per group that has not been waited for, the number of its last product
    uint32_t waiting[kGroupWarps] = {};

    Posted& call(uint32_t number) { return calls[(number - 1) % kAhead]; }
};

namespace {

uint32_t rank(const Fiber& fiber) { return fiber.index % kGroupThreads; }

Warpgroup& warpgroup_of(Fiber& fiber, const Where& where) {
    Cta& cta = *fiber.cta;
    uint32_t index = fiber.index / kGroupThreads;
    if (cta.threads < (index + 1) * kGroupThreads) {
        fail("wgmma by %s, whose warpgroup has %u threads of %u, at %s", thread_name(fiber).c_str(),
             cta.threads - index * kGroupThreads, kGroupThreads, place_name(where).c_str());
    }
    if (cta.warpgroups.size() <= index) cta.warpgroups.resize(index + 1);
    if (cta.warpgroups[index] == nullptr) {
        auto made = std::make_shared<Warpgroup>();
        made->index = index;
        made->threads = &cta.fibers[index * kGroupThreads];
        static_cast<Thread&>(made->all) = fiber;
        nobody.index = ~0u;
        made->all.index = kMaxThreads + index;
        made->all.warp = &nobody;
        cta.warpgroups[index] = std::move(made);
    }
    return *cta.warpgroups[index];
}

// Sets the knowledge of `all` to what every thread of the group knows.
void agree(Warpgroup& group) {
    Clocks& all = group.all.clocks;
    memset(&all, 0xff, sizeof all);
    all.now = group.all.cta->shadow.time;
    for (uint32_t t = 0; t < kGroupThreads; t++) {
        const Clocks& one = group.threads[t].clocks;
        uint32_t own = group.threads[t].warp->index;
        all.floor = all.floor < one.floor ? all.floor : one.floor;
        all.known.async = all.known.async < one.known.async ? all.known.async : one.known.async;
        uint32_t lanes = ~0u;
        for (uint32_t i = 0; i < kLanes; i++) {
            uint32_t other = i == t % kLanes ? ~0u : one.lane[i];
            lanes = lanes < other ? lanes : other;
        }
        uint32_t kept = all.known.warp[own] < lanes ? all.known.warp[own] : lanes;
        for (uint32_t w = 0; w < kMaxWarps; w++) {
            all.known.warp[w] = all.known.warp[w] < one.known.warp[w] ? all.known.warp[w] : one.known.warp[w];
        }
        all.known.warp[own] = kept;
    }
    // Also intersects the knowledge of single threads, which comes from mbarriers. Usually all threads have equal
    // knowledge.
    group.all.exact = group.threads[0].exact;
    for (uint32_t t = 1; t < kGroupThreads && group.all.exact != nullptr; t++) {
        const Exact& one = group.threads[t].exact;
        if (one == group.all.exact) continue;
        if (one == nullptr) {
            group.all.exact = nullptr;
            break;
        }
        auto least = std::make_shared<std::vector<uint32_t>>(*one);
        for (size_t i = 0; i < least->size(); i++) (*least)[i] = std::min((*least)[i], (*group.all.exact)[i]);
        group.all.exact = least;
    }
}

unsigned char* at(const Warpgroup& group, uint32_t address) {
    return group.all.smem + (ptrdiff_t(address) - ptrdiff_t(kSharedBase));
}

template <class F>
void each_operand_chunk(const Warpgroup& group, const Product& product, F use) {
    auto see = [&](uint32_t, uint32_t address) { use(at(group, address)); };
    if (product.registers == nullptr) each_chunk(Descriptor(product.a), kTileRows, product.a_mn, see);
    each_chunk(Descriptor(product.b), product.columns, product.b_mn, see);
}

void multiply(const Warpgroup& group, Flying& flying) {
    const Product& product = flying.product;
    alignas(32) float a[kStep * kTileRows], b[kStep * kMaxColumns];
    const unsigned char* chunks[kMaxColumns * 2];
    auto collect = [&](uint32_t number, uint32_t address) { chunks[number] = at(group, address); };
    if (product.registers == nullptr) {
        each_chunk(Descriptor(product.a), kTileRows, product.a_mn, collect);
        widen_chunks(chunks, kTileRows, product.a_mn, a, kTileRows);
    } else {
        for (uint32_t t = 0; t < kGroupThreads; t++) {
            for (uint32_t i = 0; i < 8; i++) {
                uint32_t row = t / kLanes * 16 + t % kLanes / 4 + i / 2 % 2 * 8, k = t % 4 * 2 + i % 2 + i / 4 * 8;
                uint32_t bits = flying.a[t * 4 + i / 2] >> (i % 2 * 16) << 16;
                memcpy(&a[k * kTileRows + row], &bits, 4);
            }
        }
    }
    each_chunk(Descriptor(product.b), product.columns, product.b_mn, collect);
    widen_chunks(chunks, product.columns, product.b_mn, b, product.columns);
    if (!product.accumulate) memset(flying.tile->at.data(), 0, flying.tile->at.size() * sizeof(float));
    float* to = flying.tile->at.data();
    if (uint32_t sums = instance().options.sums; sums != EMU_CHAIN) {
        multiply_aligned({a, 1, kTileRows}, kTileRows, b, product.columns, to, sum_rule(sums));
    } else {
        multiply_step(a, b, to, product.columns);
    }
    flying.done = true;
}

void check_descriptor(const Warpgroup& group, uint64_t bits, char operand, const Posted& posted) {
    Descriptor descriptor(bits);
    if (descriptor.base_offset != 0) {
        fail("wgmma of %s: operand %c has the base offset %u, which the emulator does not know, at %s",
             thread_name(group.all).c_str(), operand, descriptor.base_offset, place_name(posted.where).c_str());
    }
    if (uint32_t row = descriptor.pattern_row(descriptor.start); row != 0) {
        fail("wgmma of %s: operand %c starts at byte %u of shared memory, in row %u of its swizzle pattern, where PTX demands"
             " the base offset %u (matrix descriptor format), at %s",
             thread_name(group.all).c_str(), operand, descriptor.start - kSharedBase, row, row,
             place_name(posted.where).c_str());
    }
}

void issue(Warpgroup& group, Posted& posted) {
    Instance& emu = instance();
    Flying flying{++group.products, posted.product, posted.tile, place_of(emu, posted.where), false, {}};
    if (posted.product.registers != nullptr) flying.a.assign(&posted.a[0][0], &posted.a[0][0] + kGroupThreads * 4);
    if (posted.product.registers == nullptr) check_descriptor(group, posted.product.a, 'a', posted);
    check_descriptor(group, posted.product.b, 'b', posted);
    agree(group);
    AsyncUse use{"the wgmma's read", flying.place};
    each_operand_chunk(group, flying.product, [&](unsigned char* chunk) { async_read_begin(group.all, chunk, 16, use); });
    group.flying.push_back(std::move(flying));
    if (emu.options.completion == EMU_EAGER) multiply(group, group.flying.back());
}

// Computes some of the issued products, in their order, if copies and products complete at random moments.
void nudge(Warpgroup& group) {
    Instance& emu = instance();
    if (emu.options.completion != EMU_RANDOM) return;
    for (Flying& flying : group.flying) {
        if (flying.done) continue;
        if (emu.below(3) != 0) return;
        multiply(group, flying);
    }
}

// Completes the products up to `number`, which all threads have waited for.
void finish(Warpgroup& group, uint32_t number) {
    Cta& cta = *group.all.cta;
    uint32_t time = ++cta.shadow.time;
    for (uint32_t w = 0; w < kGroupWarps; w++) {
        Fiber* lanes = group.threads + w * kLanes;
        Clocks joined = lanes[0].clocks;
        for (uint32_t i = 1; i < kLanes; i++) joined.join(lanes[i].clocks);
        joined.now = time;
        for (uint32_t i = 0; i < kLanes; i++) joined.lane[i] = time;
        for (uint32_t i = 0; i < kLanes; i++) lanes[i].clocks = joined;
    }
    while (!group.flying.empty() && group.flying.front().number <= number) {
        Flying& flying = group.flying.front();
        if (!flying.done) multiply(group, flying);
        AsyncUse use{"the wgmma's read", flying.place};
        each_operand_chunk(group, flying.product, [&](unsigned char* chunk) {
            async_read_end(group.threads[0], chunk, 16, use);
            for (uint32_t w = 1; w < kGroupWarps; w++) note_async_read(group.threads[w * kLanes], chunk, 16, use);
        });
        group.flying.pop_front();
    }
    // Advances the time, so that later accesses of the threads are distinguished from the reads.
    time = ++cta.shadow.time;
    for (uint32_t t = 0; t < kGroupThreads; t++) {
        group.threads[t].clocks.now = time;
        for (uint32_t i = 0; i < kLanes; i++) group.threads[t].clocks.lane[i] = time;
    }
    group.waited = number;
}

void carry_out(Warpgroup& group, Posted& posted) {
    switch (posted.call) {
        case Call::fence: break;
        case Call::commit: group.groups.push_back(group.products); break;
        case Call::product: issue(group, posted); break;
        case Call::wait: {
            uint32_t number = group.waited;
            while (group.groups.size() > posted.newest) {
                number = group.groups.front();
                group.groups.pop_front();
            }
            finish(group, number);
            break;
        }
    }
    nudge(group);
}

void wake(Warpgroup& group) {
    for (uint32_t w = 0; w < kGroupWarps; w++) {
        for (uint32_t bits = group.waiting[w]; bits != 0; bits &= bits - 1) {
            Fiber& fiber = group.threads[w * kLanes + uint32_t(__builtin_ctz(bits))];
            if (int32_t(group.carried_out - fiber.wait_number) < 0) continue;
            group.waiting[w] &= ~(1u << fiber.lane);
            make_ready(fiber);
        }
    }
}

void wait_until(Warpgroup& group, uint32_t number, const Where& where) {
    Fiber& fiber = self();
    if (int32_t(group.carried_out - number) >= 0) return;
    group.waiting[rank(fiber) / kLanes] |= 1u << fiber.lane;
    block(Wait::warpgroup, number, where);
}

// Returns the posted call that this thread joins next.
Posted& join(Warpgroup& group, Call call, const Where& where) {
    Fiber& fiber = self();
    if (fiber.wgmma_posted - group.carried_out >= kAhead) wait_until(group, fiber.wgmma_posted - kAhead + 1, where);
    uint32_t number = ++fiber.wgmma_posted;
    Posted& posted = group.call(number);
    if (number - group.opened == 1) {
        group.opened++;
        posted.call = call;
        posted.where = where;
        posted.arrived = 0;
        posted.tile = nullptr;
    } else if (posted.call != call || posted.where.line() != where.line()) {
        fail("the threads of a warpgroup do different things: %s at %s by %s, where another is at %s in %s",
             call_name(call), place_name(where).c_str(), thread_name(fiber).c_str(), call_name(posted.call),
             place_name(posted.where).c_str());
    }
    return posted;
}

void arrive(Warpgroup& group, Posted& posted) {
    if (++posted.arrived != kGroupThreads) return;
    carry_out(group, posted);
    group.carried_out++;
    wake(group);
}

SumTile* free_tile(Warpgroup& group, uint32_t columns) {
    for (auto& tile : group.tiles) {
        if (tile->users == 0) {
            tile->columns = columns;
            tile->at.resize(kTileRows * columns);
            return tile.get();
        }
    }
    group.tiles.push_back(std::make_unique<SumTile>(SumTile{columns, 0, std::vector<float>(kTileRows * columns)}));
    return group.tiles.back().get();
}

// Calls use(register, element of the tile) for the accumulators of a thread.
template <class F>
void each_sum(const Fiber& fiber, uint32_t columns, F use) {
    uint32_t t = rank(fiber), row = t / kLanes * 16 + t % kLanes / 4, column = t % 4 * 2;
    for (uint32_t i = 0; i < columns / 2; i++) {
        use(i, (row + i / 2 % 2 * 8) * columns + i / 4 * 8 + column + i % 2);
    }
}

bool same(const Product& x, const Product& y) {
    return x.a == y.a && x.b == y.b && x.accumulate == y.accumulate && x.columns == y.columns && x.a_mn == y.a_mn &&
           x.b_mn == y.b_mn && (x.registers == nullptr) == (y.registers == nullptr);
}

}  // namespace

void warpgroup_fence(const Where& where) {
    Warpgroup& group = warpgroup_of(self(), where);
    self().wgmma_fences++;
    arrive(group, join(group, Call::fence, where));
}

void warpgroup_commit(const Where& where) {
    Warpgroup& group = warpgroup_of(self(), where);
    arrive(group, join(group, Call::commit, where));
}

void warpgroup_wait(uint32_t newest, const Where& where) {
    Fiber& fiber = self();
    Warpgroup& group = warpgroup_of(fiber, where);
    Posted& posted = join(group, Call::wait, where);
    posted.newest = newest;
    arrive(group, posted);
    wait_until(group, fiber.wgmma_posted, where);
    fiber.wgmma_waits = fiber.wgmma_fences;
}

void require_fence(uint32_t touched, const char* what, const Where& where) {
    Fiber& fiber = self();
    if (fiber.wgmma_fences > touched) return;
    fail("wgmma at %s by %s: no wgmma_fence since the thread touched its %s", place_name(where).c_str(),
         thread_name(fiber).c_str(), what);
}

uint32_t warpgroup_product(const Product& product, Sums& sums, float* r, const Where& where) {
    Fiber& fiber = self();
    Warpgroup& group = warpgroup_of(fiber, where);
    if (fiber.wgmma_fences == 0 || fiber.wgmma_fences == fiber.wgmma_waits) {
        fail("wgmma at %s by %s: no wgmma_fence %s", place_name(where).c_str(), thread_name(fiber).c_str(),
             fiber.wgmma_fences == 0 ? "before the first" : "since the last wgmma_wait");
    }
    if (sums.here) require_fence(sums.touched, "sums", where);
    Posted& posted = join(group, Call::product, where);
    if (posted.arrived == 0) {
        posted.product = product;
        posted.tile = sums.tile;
    } else if (!same(posted.product, product)) {
        fail("the threads of a warpgroup give different operands to the wgmma at %s: %s a %016lx, b %016lx, accumulate %d,"
             " another a %016lx, b %016lx, accumulate %d", place_name(where).c_str(), thread_name(fiber).c_str(),
             product.a, product.b, product.accumulate, posted.product.a, posted.product.b, posted.product.accumulate);
    }
    if (posted.tile == nullptr) {
        posted.tile = sums.tile != nullptr ? sums.tile : free_tile(group, product.columns);
    }
    if (sums.tile == nullptr) {
        sums.tile = posted.tile;
        posted.tile->users++;
    }
    if (sums.tile != posted.tile) {
        fail("the wgmma at %s by %s takes other sums than another thread's", place_name(where).c_str(),
             thread_name(fiber).c_str());
    }
    if (sums.here) {
        SumTile& tile = *sums.tile;
        if (product.accumulate) each_sum(fiber, product.columns, [&](uint32_t i, uint32_t at) { tile.at[at] = r[i]; });
        memset(r, 0xff, product.columns / 2 * sizeof(float));
        sums.here = false;
    }
    if (product.registers != nullptr) memcpy(posted.a[rank(fiber)], product.registers, 16);
    // The number that the product will get, because products are executed in the order in which they are posted.
    sums.issued = ++fiber.wgmma_products;
    arrive(group, posted);
    return sums.issued;
}

void fetch_sums(Sums& sums, float* r, uint32_t columns) {
    Fiber& fiber = self();
    Warpgroup& group = *fiber.cta->warpgroups[fiber.index / kGroupThreads];
    if (sums.issued > group.waited) {
        fail("%s touches sums of product %u of its warpgroup, of which it has waited for %u", thread_name(fiber).c_str(),
             sums.issued, group.waited);
    }
    const SumTile& tile = *sums.tile;
    each_sum(fiber, columns, [&](uint32_t i, uint32_t at) { r[i] = tile.at[at]; });
    sums.here = true;
}

void drop_sums(Sums& sums) {
    Fiber& fiber = self();
    Warpgroup& group = *fiber.cta->warpgroups[fiber.index / kGroupThreads];
    if (sums.issued > group.waited) {
        fail("the sums of %s end while product %u of its warpgroup is in flight: it has waited for %u",
             thread_name(fiber).c_str(), sums.issued, group.waited);
    }
    sums.tile->users--;
}

void require_read(uint32_t number) {
    Fiber& fiber = self();
    Warpgroup& group = *fiber.cta->warpgroups[fiber.index / kGroupThreads];
    if (number > group.waited) {
        fail("%s touches registers that product %u of its warpgroup reads, of which it has waited for %u",
             thread_name(fiber).c_str(), number, group.waited);
    }
}

std::string warpgroup_wait_text(const Fiber& fiber) {
    Warpgroup& group = *fiber.cta->warpgroups[fiber.index / kGroupThreads];
    const Posted& open = group.call(group.carried_out + 1);
    return "wgmma_wait at " + place_name(fiber.wait_where) + ", of whose warpgroup " + std::to_string(open.arrived) +
           " threads have come to " + call_name(open.call) + " at " + place_name(open.where);
}

}  // namespace emu
