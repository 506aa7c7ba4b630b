// Emulation of global memory: checks alignment, and races between threads of one launch. Guard pages detect accesses
// outside a buffer.
//
// Threads of one CTA are ordered by its barriers. Between CTAs, one thread publishes by threadfence followed by an
// atomic (or by store_release). Another thread acquires by an atomic followed by threadfence (or by load_acquire) at
// the same address.
#include "emu/global.h"

#include <algorithm>

#include "emu/atomic.h"
#include "emu/memory.h"
#include "emu/runtime.h"

namespace emu {

namespace {

// Largest number of history pages of a launch; 4 KiB of stores take 16 KiB. Further stores are not tracked.
constexpr size_t kMaxPages = 16384;

void check_alignment(const void* p, uint32_t bytes, const char* what, const Where& where) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) [[unlikely]] {
        fail("%s of %u bytes at %p is not aligned to them, by %s at %s", what, bytes, p, thread_name(self()).c_str(),
             place_name(where).c_str());
    }
}

// Returns the history of a page, or null if it has none and `make` is false.
GlobalPage* page_of(Global& global, uintptr_t address, bool make) {
    uintptr_t number = address / kPage;
    if (number == global.last_number && global.last != nullptr) [[likely]] return global.last;
    auto found = global.pages.find(number);
    GlobalPage* page = nullptr;
    if (found != global.pages.end()) {
        page = found->second.get();
    } else if (make && global.pages.size() < kMaxPages) {
        page = global.pages.emplace(number, std::make_unique<GlobalPage>()).first->second.get();
    }
    if (page == nullptr) return nullptr;
    if (page->launch != global.launch) {
        if (!make) return nullptr;
        memset(static_cast<void*>(page), 0, sizeof *page);
        page->launch = global.launch;
    }
    global.last_number = number;
    global.last = page;
    return page;
}

bool before(const Clocks& clocks, uint32_t own, uint32_t thread, uint32_t time) {
    if (time < clocks.floor) return true;
    uint32_t warp = thread / kLanes;
    if (warp == own / kLanes) return clocks.lane[thread % kLanes] > time;
    return clocks.known.warp[warp] > time;
}

bool covers(const Publication& publication, const GlobalCell& cell) {
    if (publication.thread == cell.thread) return cell.time <= publication.clocks.now;
    return before(publication.clocks, publication.thread, cell.thread, cell.time);
}

bool ordered(const Fiber& me, const GlobalCell& cell) {
    const Cta& cta = *me.cta;
    if (cell.cta == uint32_t(cta.linear)) {
        return cell.thread == me.index || before(me.clocks, me.index, cell.thread, cell.time);
    }
    auto known = cta.acquired.find(cell.cta);
    if (known == cta.acquired.end()) return false;
    for (size_t i = known->second.size(); i-- > 0;) {
        const Acquired& acquired = known->second[i];
        bool mine = acquired.by == me.index || before(me.clocks, me.index, acquired.by, acquired.time);
        if (mine && covers(*acquired.publication, cell)) return true;
    }
    return false;
}

[[noreturn]] void race(const Fiber& me, const char* what, const void* p, uint32_t bytes, const GlobalCell& cell,
                       int32_t place) {
    const Instance& emu = *me.cta->emu;
    fail("race: %s of %u bytes at %p by %s at %s is not ordered after the %s by thread %u of CTA %u (of the grid) at %s",
         what, bytes, p, thread_name(me).c_str(), place_text(emu, place).c_str(), cell.atomic ? "atomic" : "store",
         cell.thread, cell.cta, place_text(emu, cell.place).c_str());
}

void note_load(const void* p, uint32_t bytes, const Where& where) {
    Fiber& me = self();
    Instance& emu = *me.cta->emu;
    if (!emu.options.shadow) return;
    auto address = reinterpret_cast<uintptr_t>(p);
    GlobalPage* page = page_of(emu.global, address, false);
    if (page == nullptr) return;
    for (uint32_t i = address % kPage / kWord, n = (bytes + kWord - 1) / kWord; n > 0; i++, n--) {
        const GlobalCell& cell = page->cells[i];
        if (cell.valid && !ordered(me, cell)) race(me, "load", p, bytes, cell, place_of(emu, where));
    }
}

void note_store(Fiber& me, const void* p, uint32_t bytes, bool atomic, int32_t place) {
    Instance& emu = *me.cta->emu;
    // Smaller stores are not tracked, because two threads may store the halves of one word.
    if (!emu.options.shadow || bytes < kWord) return;
    auto address = reinterpret_cast<uintptr_t>(p);
    GlobalPage* page = page_of(emu.global, address, true);
    if (page == nullptr) return;
    GlobalCell now{uint32_t(me.cta->linear), me.clocks.now, place, uint16_t(me.index), 1, atomic};
    for (uint32_t i = address % kPage / kWord, n = bytes / kWord; n > 0; i++, n--) {
        GlobalCell& cell = page->cells[i];
        if (cell.valid && !(atomic && cell.atomic) && !ordered(me, cell)) {
            race(me, atomic ? "atomic" : "store", p, bytes, cell, place);
        }
        cell = now;
    }
}

void note_store(const void* p, uint32_t bytes, bool atomic, const Where& where) {
    Fiber& me = self();
    note_store(me, p, bytes, atomic, place_of(*me.cta->emu, where));
}

void acquire_all(Fiber& me, const std::vector<Published>& published) {
    Cta& cta = *me.cta;
    std::vector<const Published*> todo;
    for (const Published& p : published) todo.push_back(&p);
    while (!todo.empty()) {
        const Published& p = *todo.back();
        todo.pop_back();
        auto& list = cta.acquired[uint32_t(p->cta)];
        bool known = p->cta == cta.linear;
        for (const Acquired& a : list) known |= a.publication == p && a.by == me.index;
        if (known) continue;
        list.push_back({p, me.index, me.clocks.now});
        for (const Published& parent : p->parents) todo.push_back(&parent);
    }
}

// Publishes everything that this thread has done and knows now. What it does later is not part of the publication.
Published publish(Fiber& me) {
    auto publication = std::make_shared<Publication>();
    publication->cta = me.cta->linear;
    publication->thread = me.index;
    publication->clocks = me.clocks;
    for (auto& [cta, list] : me.cta->acquired) {
        for (const Acquired& a : list) {
            if (a.by == me.index || before(me.clocks, me.index, a.by, a.time)) {
                publication->parents.push_back(a.publication);
            }
        }
    }
    me.clocks.now = ++me.cta->shadow.time;
    return publication;
}

// With a seed, every access that other threads can observe is a chance to let them run.
void maybe_yield(uint32_t one_in) {
    Instance& emu = instance();
    if (emu.options.seed != 0 && emu.below(one_in) == 0) yield();
}

std::vector<Published>* sync_at(Fiber& me, const void* p) {
    auto& sync = me.cta->emu->global.sync;
    auto found = sync.find(reinterpret_cast<uintptr_t>(p));
    return found == sync.end() ? nullptr : &found->second;
}

// Records that a relaxed access of the thread has read the publications at this address. The thread's next fence
// acquires them.
void observe(Fiber& me, const void* p) {
    if (auto* published = sync_at(me, p)) {
        me.observed.insert(me.observed.end(), published->begin(), published->end());
    }
}

}  // namespace

void Global::begin() {
    launch++;
    last = nullptr;
    sync.clear();
    // Buffers are freed and reused, so their old history is of no use.
    if (pages.size() >= kMaxPages / 2) pages.clear();
}

void global_read(const void* p, uint32_t bytes, const Where& where) {
    check_alignment(p, bytes, "load", where);
    note_load(p, bytes, where);
}

void global_write(void* p, const void* value, uint32_t bytes, const Where& where) {
    check_alignment(p, bytes, "store", where);
    // Writes before the history is updated, so that a fault is reported for the kernel's store and not for the history.
    memcpy(p, value, bytes);
    note_store(p, bytes, false, where);
}

// Calls `note` for the part on each page, because history is kept per page.
template <class F>
void each_page(const void* p, uint32_t bytes, F note) {
    auto at = static_cast<const unsigned char*>(p);
    for (uint32_t n; bytes > 0; at += n, bytes -= n) {
        n = std::min(bytes, kPage - uint32_t(reinterpret_cast<uintptr_t>(at) % kPage));
        note(at, n);
    }
}

void global_bulk_read(const void* p, uint32_t bytes, const Where& where) {
    each_page(p, bytes, [&](const void* part, uint32_t n) { note_load(part, n, where); });
}

void global_bulk_write(const void* p, uint32_t bytes, int32_t place) {
    each_page(p, bytes, [&](const void* part, uint32_t n) { note_store(self(), part, n, false, place); });
}

void atomic_begin(const void* p, uint32_t bytes, bool shared, const Where& where) {
    maybe_yield(2);
    if (shared) {
        shared_atomic(p, bytes, where);
        return;
    }
    check_alignment(p, bytes, "atomic", where);
    Fiber& me = self();
    if (!me.cta->emu->options.shadow) return;
    note_store(p, bytes, true, where);
    observe(me, p);
    if (me.fenced != nullptr) me.cta->emu->global.sync[reinterpret_cast<uintptr_t>(p)].push_back(me.fenced);
}

void relaxed_load(const void* p, uint32_t bytes, const Where& where) {
    maybe_yield(4);
    check_alignment(p, bytes, "load", where);
    observe(self(), p);
}

void fence() {
    Fiber& me = self();
    if (me.cta->emu->options.shadow) {
        acquire_all(me, me.observed);
        me.observed.clear();
        me.fenced = publish(me);
    }
    maybe_yield(2);
}

void release(void* p, uint32_t bytes, bool ordering, const Where& where) {
    maybe_yield(2);
    check_alignment(p, bytes, "store", where);
    Fiber& me = self();
    if (!me.cta->emu->options.shadow) return;
    note_store(p, bytes, true, where);
    auto& published = me.cta->emu->global.sync[reinterpret_cast<uintptr_t>(p)];
    published.clear();
    if (ordering) {
        published.push_back(publish(me));
    } else if (me.fenced != nullptr) {
        published.push_back(me.fenced);
    }
}

void acquire(const void* p, uint32_t bytes, const Where& where) {
    maybe_yield(4);
    check_alignment(p, bytes, "load", where);
    Fiber& me = self();
    if (auto* published = sync_at(me, p)) acquire_all(me, *published);
}

}  // namespace emu
