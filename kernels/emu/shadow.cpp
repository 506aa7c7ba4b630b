// Checks every access to shared memory. The bytes must be inside shared memory, aligned, written before they are read,
// and not in flight. The access must be ordered after other threads' accesses to these bytes by a barrier that both
// threads passed. Asynchronous units (bulk copies, wgmma) see the writes of a thread only after that thread's
// fence_proxy_async (PTX ISA, asynchronous operations and the async proxy). A fence by another thread does not count.
// This is stricter than the memory model and is common practice.
#include "emu/shadow.h"

#include <stdio.h>

#include <algorithm>

#include "emu/memory.h"
#include "emu/runtime.h"

namespace emu {

bool ordered(const Fiber& me, uint32_t thread, uint32_t time) {
    if (time < me.clocks.floor || thread == me.index) return true;
    uint32_t warp = thread / kLanes;
    if ((warp == me.warp->index ? me.clocks.lane[thread % kLanes] : me.clocks.known.warp[warp]) > time) return true;
    return me.exact != nullptr && (*me.exact)[thread] > time;
}

namespace {

enum class Access { read, write, atomic, copy, bulk };

// One access, with the values that the checks and their messages need.
struct Touch {
    Fiber& fiber;
    Access access;
    uint32_t offset, bytes;
    int32_t place;
    bool near;
    const char* what = nullptr;  // name of the access in messages; null: the name of its kind
};

std::string at(const Instance& emu, int32_t place, bool near) {
    if (place == 0) return "";
    return (near ? " after " : " at ") + place_text(emu, place);
}

std::string who(const Touch& t) {
    static const char* const names[] = {"read", "write", "atomic", "cp_async", "bulk copy"};
    char text[96];
    snprintf(text, sizeof text, "%s of bytes %u to %u of shared memory by ",
             t.what != nullptr ? t.what : names[int(t.access)], t.offset, t.offset + t.bytes - 1);
    return text + thread_name(t.fiber) + at(*t.fiber.cta->emu, t.place, t.near);
}

[[noreturn]] void race(const Touch& t, const char* earlier, uint32_t thread, int32_t place, bool near) {
    fail("race: %s is not ordered after the %s by thread %u%s", who(t).c_str(), earlier, thread,
         at(*t.fiber.cta->emu, place, near).c_str());
}

const char* writer_name(const Cell& cell) {
    return cell.async ? "bulk copy" : cell.state == Bytes::flying ? "cp_async" : "write";
}

// Returns true if the last write of the cell is ordered before `me`.
bool write_ordered(const Fiber& me, const Cell& cell) {
    return cell.async ? me.clocks.known.async > cell.write_time : ordered(me, cell.writer, cell.write_time);
}

// Returns true if the cell's last writer has called fence_proxy_async after the write, and that fence is ordered before
// `me`.
bool fenced(const Fiber& me, const Cell& cell) {
    if (cell.async) return true;
    const std::vector<uint32_t>& fences = me.cta->fibers[cell.writer].fences;
    auto first = std::upper_bound(fences.begin(), fences.end(), cell.write_time);
    return first != fences.end() && ordered(me, cell.writer, *first);
}

// Returns true if all accesses that the lanes of `warp` made at `time` are ordered before `me`. The accesses of `me`
// itself always are.
bool warp_ordered(const Fiber& me, uint32_t warp, uint32_t time) {
    bool own = warp == me.warp->index;
    if (!own && me.clocks.known.warp[warp] > time) return true;
    if (!own && me.exact == nullptr) return false;
    for (uint32_t i = 0; i < kLanes; i++) {
        if (!ordered(me, warp * kLanes + i, time)) return false;
    }
    return true;
}

bool reads_ordered(const Fiber& me, const Cell& cell) {
    if (cell.readers == 0 && !cell.vector) return true;
    if (cell.vector) {
        const ReadTimes& times = me.cta->shadow.vectors[cell.readers];
        for (uint32_t w = 0; w < kMaxWarps; w++) {
            if (times.warp[w] != 0 && times.warp[w] >= me.clocks.floor && !warp_ordered(me, w, times.warp[w])) {
                return false;
            }
        }
        return true;
    }
    if (cell.read_time < me.clocks.floor) return true;
    if (!cell.many && (cell.readers & (cell.readers - 1)) == 0) return ordered(me, cell.reader, cell.read_time);
    for (uint32_t bits = cell.readers; bits != 0; bits &= bits - 1) {
        if (!warp_ordered(me, uint32_t(__builtin_ctz(bits)), cell.read_time)) return false;
    }
    return true;
}

void forget_readers(Shadow& shadow, Cell& cell) {
    if (cell.vector) shadow.free_vectors.push_back(cell.readers);
    cell.vector = cell.many = 0;
    cell.readers = 0;
}

void note_read(const Touch& t, Cell& cell) {
    Fiber& me = t.fiber;
    Shadow& shadow = me.cta->shadow;
    uint32_t mine = 1u << me.warp->index;
    if (cell.vector) {
        shadow.vectors[cell.readers].warp[me.warp->index] = me.clocks.now;
    } else if (cell.readers != 0 && cell.read_time == me.clocks.now) {
        cell.many |= (cell.readers & mine) != 0 && cell.reader != me.index;
        cell.readers |= mine;
    } else if (reads_ordered(me, cell)) {
        cell.many = 0;
        cell.readers = mine;
        cell.read_time = me.clocks.now;
    } else {
        uint32_t index;
        if (shadow.free_vectors.empty()) {
            index = uint32_t(shadow.vectors.size());
            shadow.vectors.emplace_back();
        } else {
            index = shadow.free_vectors.back();
            shadow.free_vectors.pop_back();
        }
        ReadTimes& times = shadow.vectors[index];
        times = {};
        for (uint32_t bits = cell.readers; bits != 0; bits &= bits - 1) {
            times.warp[__builtin_ctz(bits)] = cell.read_time;
        }
        times.warp[me.warp->index] = me.clocks.now;
        cell.vector = 1;
        cell.readers = index;
    }
    cell.reader = uint16_t(me.index);
    cell.read_place = t.place;
    cell.read_near = t.near;
}

[[noreturn]] void in_flight(const Touch& t, const Cell& cell) {
    fail("%s while the %s of thread %u%s is in flight", who(t).c_str(), writer_name(cell), cell.writer % kMaxThreads,
         at(*t.fiber.cta->emu, cell.write_place, false).c_str());
}

[[noreturn]] void race_with_write(const Touch& t, const Cell& cell) {
    race(t, writer_name(cell), cell.writer % kMaxThreads, cell.write_place, cell.write_near);
}

void read_cell(const Touch& t, Cell& cell) {
    if (cell.state == Bytes::written) [[likely]] {
        if (!write_ordered(t.fiber, cell)) race_with_write(t, cell);
    } else if (cell.state == Bytes::poison) {
        fail("%s, which nobody has written", who(t).c_str());
    } else {
        in_flight(t, cell);
    }
    note_read(t, cell);
}

void write_cell(const Touch& t, Cell& cell) {
    if (cell.state == Bytes::flying) in_flight(t, cell);
    if (cell.reading != 0) {
        fail("%s while an asynchronous read of them%s is in flight", who(t).c_str(),
             at(*t.fiber.cta->emu, cell.read_place, cell.read_near).c_str());
    }
    if (cell.state == Bytes::written && !(t.access == Access::atomic && cell.atomic) && !write_ordered(t.fiber, cell)) {
        race_with_write(t, cell);
    }
    if (t.access == Access::bulk && cell.state == Bytes::written && !fenced(t.fiber, cell)) {
        fail("%s over the write by thread %u%s, which no fence_proxy_async follows", who(t).c_str(), cell.writer,
             at(*t.fiber.cta->emu, cell.write_place, cell.write_near).c_str());
    }
    if (!reads_ordered(t.fiber, cell)) race(t, "read", cell.reader, cell.read_place, cell.read_near);
    if (t.access == Access::atomic && cell.state == Bytes::poison) {
        fail("%s, which nobody has written", who(t).c_str());
    }
    forget_readers(t.fiber.cta->shadow, cell);
    cell.state = t.access == Access::copy || t.access == Access::bulk ? Bytes::flying : Bytes::written;
    cell.atomic = t.access == Access::atomic;
    cell.async = t.access == Access::bulk;
    cell.writer = uint16_t(t.fiber.index);
    cell.write_time = t.fiber.clocks.now;
    cell.write_place = t.place;
    cell.write_near = t.near;
}

void touch_cell(const Touch& t, Cell& cell) {
    if (t.access == Access::read) {
        read_cell(t, cell);
    } else {
        write_cell(t, cell);
    }
}

void touch(const Touch& t) {
    Shadow& shadow = t.fiber.cta->shadow;
    if (!shadow.on) return;
    uint32_t end = t.offset + t.bytes;
    for (uint32_t block = t.offset / kBlock; block * kBlock < end; block++) {
        Cell& cell = shadow.cells[block];
        uint32_t start = block * kBlock;
        bool whole = t.offset <= start && end >= start + kBlock;
        if (whole && !cell.split) [[likely]] {
            touch_cell(t, cell);
            continue;
        }
        Cell* parts = &shadow.parts[block * kParts];
        if (!cell.split) {
            // The ReadTimes of the cell move to the first part; the other parts get copies.
            for (uint32_t i = 0; i < kParts; i++) {
                parts[i] = cell;
                if (i > 0 && cell.vector) {
                    ReadTimes times = shadow.vectors[cell.readers];
                    parts[i].readers = uint32_t(shadow.vectors.size());
                    shadow.vectors.push_back(times);
                }
            }
            cell.split = 1;
            cell.vector = 0;
            cell.reading = 0;
        }
        uint32_t first = t.offset > start ? (t.offset - start) / kPart : 0;
        uint32_t last = end < start + kBlock ? (end - start + kPart - 1) / kPart : kParts;
        for (uint32_t i = first; i < last; i++) touch_cell(t, parts[i]);
        if (whole && t.access != Access::read) {
            cell = parts[0];
            cell.split = 0;
        }
    }
}

// Checks that the bytes are inside shared memory and aligned; otherwise ends the launch. Returns the offset.
uint32_t locate(const Fiber& fiber, const void* p, uint32_t bytes, uint32_t alignment, const char* what, int32_t place,
                bool near) {
    size_t offset = size_t(static_cast<const unsigned char*>(p) - fiber.smem);
    if (offset < fiber.smem_bytes && fiber.smem_bytes - offset >= bytes && offset % alignment == 0) [[likely]] {
        return uint32_t(offset);
    }
    const char* fault = offset % alignment != 0 ? "is not aligned" : "is outside";
    fail("%s of %u bytes at offset %zd %s (the CTA has %u bytes of shared memory), by %s%s", what, bytes, ptrdiff_t(offset),
         fault, fiber.smem_bytes, thread_name(fiber).c_str(), at(*fiber.cta->emu, place, near).c_str());
}

void access(Access kind, const void* p, uint32_t bytes, int32_t place, bool near) {
    Fiber& fiber = self();
    // A struct of Shared<T> has the alignment of its members, a power of two that divides the size.
    uint32_t alignment = bytes & -bytes;
    uint32_t offset = locate(fiber, p, bytes, alignment < 16 ? alignment : 16, "access", place, near);
    if (instance().options.banks != 0 && kind != Access::atomic) {
        count_banks(fiber, place, kind == Access::write, offset, bytes);
    }
    touch({fiber, kind, offset, bytes, place, near});
}

// Calls `use` with every cell of these bytes, which are complete blocks.
template <class F>
void each_cell(Shadow& shadow, uint32_t offset, uint32_t bytes, F use) {
    for (uint32_t block = offset / kBlock; block * kBlock < offset + bytes; block++) {
        Cell& cell = shadow.cells[block];
        if (!cell.split) {
            use(cell);
            continue;
        }
        for (uint32_t i = 0; i < kParts; i++) use(shadow.parts[block * kParts + i]);
    }
}

}  // namespace

void Shadow::begin(uint32_t bytes, bool shadowed) {
    on = shadowed;
    time = 1;
    if (!on) return;
    size_t blocks = (size_t(bytes) + kBlock - 1) / kBlock;
    if (cells.size() < blocks) {
        cells.resize(blocks);
        parts.resize(blocks * kParts);
    }
    memset(static_cast<void*>(cells.data()), 0, blocks * sizeof(Cell));
    vectors.clear();
    free_vectors.clear();
}

void shared_read(const void* p, uint32_t bytes, const Where& where) {
    access(Access::read, p, bytes, place_of(instance(), where), false);
}

void shared_write(const void* p, uint32_t bytes, const Where& where) {
    access(Access::write, p, bytes, place_of(instance(), where), false);
}

void shared_read(const void* p, uint32_t bytes) { access(Access::read, p, bytes, self().near, true); }
void shared_write(const void* p, uint32_t bytes) { access(Access::write, p, bytes, self().near, true); }

void shared_atomic(const void* p, uint32_t bytes, const Where& where) {
    access(Access::atomic, p, bytes, place_of(instance(), where), false);
}

void shared_matrix_row(Fiber& fiber, const void* p, bool write, int32_t place) {
    uint32_t offset = locate(fiber, p, 16, 16, write ? "stmatrix row" : "ldmatrix row", place, false);
    touch({fiber, write ? Access::write : Access::read, offset, 16, place, false});
}

void shadow_copy_begin(Fiber& fiber, const AsyncCopy& copy) {
    uint32_t offset = locate(fiber, copy.destination, copy.bytes, copy.bytes, "cp_async", copy.place, false);
    touch({fiber, Access::copy, offset, copy.bytes, copy.place, false});
}

void shadow_copy_done(Fiber& fiber, const AsyncCopy& copy) {
    Shadow& shadow = fiber.cta->shadow;
    if (!shadow.on) return;
    uint32_t offset = uint32_t(copy.destination - fiber.smem);
    Cell& cell = shadow.cells[offset / kBlock];
    if (!cell.split) {
        cell.state = Bytes::written;
        cell.write_time = fiber.clocks.now;
        return;
    }
    Cell* parts = &shadow.parts[offset / kPart];
    for (uint32_t i = 0; i < copy.bytes / kPart; i++) {
        parts[i].state = Bytes::written;
        parts[i].write_time = fiber.clocks.now;
    }
}

uint32_t async_offset(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use) {
    return locate(issuer, p, bytes, kBlock, use.what, use.place, false);
}

void async_read_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use) {
    uint32_t offset = async_offset(issuer, p, bytes, use);
    Shadow& shadow = issuer.cta->shadow;
    if (!shadow.on) return;
    Touch t{issuer, Access::read, offset, bytes, use.place, false, use.what};
    each_cell(shadow, offset, bytes, [&](Cell& cell) {
        if (cell.state == Bytes::poison) fail("%s, some of which nobody has written", who(t).c_str());
        if (cell.state == Bytes::flying) in_flight(t, cell);
        if (!write_ordered(issuer, cell)) race_with_write(t, cell);
        if (!fenced(issuer, cell)) {
            fail("%s of what thread %u wrote%s, with no fence_proxy_async by it in between", who(t).c_str(), cell.writer,
                 at(*issuer.cta->emu, cell.write_place, cell.write_near).c_str());
        }
        cell.reading++;
        cell.read_place = use.place;
        cell.read_near = 0;
    });
}

void note_async_read(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use) {
    Shadow& shadow = waiter.cta->shadow;
    if (!shadow.on) return;
    uint32_t offset = uint32_t(static_cast<const unsigned char*>(p) - waiter.smem);
    Touch t{waiter, Access::read, offset, bytes, use.place, false};
    each_cell(shadow, offset, bytes, [&](Cell& cell) { note_read(t, cell); });
}

void async_read_end(Fiber& waiter, const void* p, uint32_t bytes, const AsyncUse& use) {
    Shadow& shadow = waiter.cta->shadow;
    if (!shadow.on) return;
    uint32_t offset = uint32_t(static_cast<const unsigned char*>(p) - waiter.smem);
    each_cell(shadow, offset, bytes, [](Cell& cell) { cell.reading--; });
    note_async_read(waiter, p, bytes, use);
}

uint32_t async_write_begin(Fiber& issuer, const void* p, uint32_t bytes, const AsyncUse& use) {
    uint32_t offset = locate(issuer, p, bytes, kBlock, use.what, use.place, false);
    touch({issuer, Access::bulk, offset, bytes, use.place, false});
    return offset;
}

void async_write_done(Cta& cta, const void* p, uint32_t bytes) {
    Shadow& shadow = cta.shadow;
    if (!shadow.on) return;
    uint32_t time = ++shadow.time;
    each_cell(shadow, uint32_t(static_cast<const unsigned char*>(p) - cta.smem), bytes, [time](Cell& cell) {
        cell.state = Bytes::written;
        cell.write_time = time;
    });
}

void smem_too_small(uint32_t needed) {
    fail("the kernel's shared memory struct has %u bytes, the launch gives %u", needed, current->smem_bytes);
}

}  // namespace emu
