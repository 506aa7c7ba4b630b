// Emulation of bulk copies (TMA).
// - A load is in flight from its issue until it lands: at once (eager), when nothing else can run (lazy), or in pieces
//   of 16 bytes at random moments.
// - A store reads its source and writes its destination at once (eager), as late as its issuer's waits allow (lazy), or
//   at random moments. No thread may touch the source until the issuer has waited.
#include "emu/bulk.h"

#include <algorithm>

#include "emu/runtime.h"
#include "emu/tma.h"

namespace emu {

void check_copy_mbarrier(const void* at, const Where& where);

namespace {

constexpr uint32_t kPiece = 16;

// The map must be in memory that only launches write. The proxy that reads maps does not see other writes without a
// separate fence.
void check_map(const uint64_t* map, const Where& where) {
    const Instance& emu = instance();
    auto at = reinterpret_cast<const unsigned char*>(map), args = static_cast<const unsigned char*>(emu.args);
    bool inside = at >= args && at + 128 <= args + emu.entry->args_size;
    uint32_t rank = inside ? uint32_t(map[1] & 0xff) : 0;
    if (!inside || reinterpret_cast<uintptr_t>(map) % 64 != 0 || rank < 2 || rank > kMaxRank) {
        fail("a tensor map that is none: it is encoded by the driver and lies in the kernel's arguments, at a multiple "
             "of 64; by %s",
             caller(where).c_str());
    }
}

// Unpacks the words of a tensor map, which src/runtime/device/emu/tensor_map.rs packs.
Box box_of(const Tile& tile, const Where& where) {
    check_map(tile.map, where);
    const uint64_t* words = tile.map;
    Box box{};
    box.address = reinterpret_cast<unsigned char*>(words[0]);
    box.rank = uint32_t(words[1] & 0xff);
    box.element = uint32_t(words[1] >> 8 & 0xff);
    box.swizzle = uint32_t(words[1] >> 16 & 0xff);
    if (box.rank != tile.rank) {
        fail("%u coordinates for a tensor map of %u dimensions, by %s", tile.rank, box.rank, caller(where).c_str());
    }
    box.bytes = box.strides[0] = box.element;
    for (uint32_t d = 0; d < box.rank; d++) {
        box.dims[d] = words[2 + d];
        if (d > 0) box.strides[d] = words[6 + d];
        box.sides[d] = uint32_t(words[11 + d]);
        box.at[d] = tile.at[d];
        box.bytes *= box.sides[d];
    }
    box.row_bytes = box.sides[0] * box.element;
    return box;
}

Box plain(void* global, int bytes, const void* shared, const char* what, const Where& where) {
    auto bits = reinterpret_cast<uintptr_t>(global) | reinterpret_cast<uintptr_t>(shared) | uintptr_t(uint32_t(bytes));
    if (bytes <= 0 || bits % kPiece != 0) {
        fail("%s of %d bytes between %p and offset %zd of shared memory: multiples of 16, by %s", what, bytes, global,
             static_cast<const unsigned char*>(shared) - self().smem, caller(where).c_str());
    }
    Box box{};
    box.address = static_cast<unsigned char*>(global);
    box.row_bytes = box.bytes = uint32_t(bytes);
    return box;
}

// Applies the swizzle to an address in shared memory: bits 4 and up are XORed with bits 7 and up.
uint32_t swizzled(const Box& box, uint32_t offset) {
    uint32_t mask = box.swizzle == 0 ? 0 : box.swizzle / kPiece - 1;
    return offset ^ ((offset >> 7 & mask) << 4);
}

Piece piece_of(const BulkCopy& copy, uint32_t index) {
    const Box& box = copy.box;
    uint32_t start = index * kPiece;
    Piece piece{swizzled(box, copy.offset + start), box.address + start, 0, kPiece};
    if (box.rank == 0) return piece;
    uint32_t row = start / box.row_bytes;
    int64_t inner = int64_t(box.at[0]) * box.element + start % box.row_bytes;
    int64_t global = inner, width = int64_t(box.dims[0]) * box.element;
    piece.from = uint32_t(std::clamp<int64_t>(-inner, 0, kPiece));
    piece.to = uint32_t(std::clamp<int64_t>(width - inner, piece.from, kPiece));
    for (uint32_t d = 1; d < box.rank; d++) {
        int64_t at = int64_t(box.at[d]) + row % box.sides[d];
        row /= box.sides[d];
        if (at < 0 || at >= int64_t(box.dims[d])) piece.from = piece.to = 0;
        global += at * int64_t(box.strides[d]);
    }
    piece.global = box.address + global;
    return piece;
}

uint32_t pieces_of(const BulkCopy& copy) { return copy.box.bytes / kPiece; }

void land_piece(Cta& cta, const BulkCopy& copy, uint32_t index) {
    Piece piece = piece_of(copy, index);
    unsigned char* to = cta.smem + piece.offset;
    if (piece.to - piece.from != kPiece) memset(to, 0, kPiece);
    if (piece.to > piece.from) memcpy(to + piece.from, piece.global + piece.from, piece.to - piece.from);
}

// Completes a load: writes all its bytes, and signals its mbarrier.
void land(Cta& cta, size_t index) {
    BulkCopy copy = std::move(cta.loads[index]);
    cta.loads.erase(cta.loads.begin() + long(index));
    for (uint32_t i = 0; i < pieces_of(copy); i++) {
        if (copy.landed.empty() || !copy.landed[i]) land_piece(cta, copy, i);
    }
    async_write_done(cta, cta.smem + copy.offset, copy.box.bytes);
    cta.emu->progress++;
    complete_bytes(cta, copy.mbarrier, copy.box.bytes - copy.signalled);
}

// Lands some pieces of a load, and may signal some of their bytes to the mbarrier.
void land_some(Cta& cta, BulkCopy& copy) {
    Instance& emu = *cta.emu;
    uint32_t pieces = pieces_of(copy);
    if (copy.landed.empty()) copy.landed.resize(pieces);
    for (uint32_t n = emu.below(8); n > 0; n--) {
        uint32_t i = emu.below(pieces);
        if (!copy.landed[i]) land_piece(cta, copy, i);
        copy.landed[i] = true;
    }
    if (emu.below(2) != 0) return;
    uint32_t landed = uint32_t(std::count(copy.landed.begin(), copy.landed.end(), true));
    // The last bytes are signalled only when the complete load has landed.
    uint32_t told = std::min(landed, pieces - 1) * kPiece;
    uint32_t more = told - std::min(told, copy.signalled);
    copy.signalled += more;
    if (more != 0) complete_bytes(cta, copy.mbarrier, more);
}

void take(Cta& cta, BulkCopy& store) {
    if (store.taken) return;
    store.taken = true;
    store.data.resize(store.box.bytes);
    for (uint32_t i = 0; i < pieces_of(store); i++) {
        memcpy(&store.data[i * kPiece], cta.smem + piece_of(store, i).offset, kPiece);
    }
}

void write(Cta& cta, BulkCopy& store) {
    take(cta, store);
    if (store.written) return;
    store.written = true;
    for (uint32_t i = 0; i < pieces_of(store); i++) {
        Piece piece = piece_of(store, i);
        const unsigned char* from = &store.data[i * kPiece];
        if (piece.to > piece.from) memcpy(piece.global + piece.from, from + piece.from, piece.to - piece.from);
    }
}

// Calls `use` with the part of each row of the box that is inside the tensor.
template <class F>
void each_row(const BulkCopy& copy, F use) {
    uint32_t row = copy.box.row_bytes;
    for (uint32_t start = 0; start < copy.box.bytes; start += row) {
        unsigned char *from = nullptr, *to = nullptr;
        for (uint32_t at = start; at < start + row; at += kPiece) {
            Piece piece = piece_of(copy, at / kPiece);
            if (piece.to == piece.from) continue;
            if (from == nullptr) from = piece.global + piece.from;
            to = piece.global + piece.to;
        }
        if (from != nullptr) use(from, uint32_t(to - from));
    }
}

// Calls use(address, bytes) for the shared memory from which a store writes bytes. The padding of a box that is wider
// than its tensor is not read, so nobody needs to write it.
template <class F>
void each_source(const Cta& cta, const BulkCopy& store, F use) {
    if (store.box.rank == 0) return use(cta.smem + store.offset, store.box.bytes);
    for (uint32_t i = 0; i < pieces_of(store); i++) {
        Piece piece = piece_of(store, i);
        if (piece.to > piece.from) use(cta.smem + piece.offset, kPiece);
    }
}

// Touches the memory now, so that a fault is reported for the thread that issues the copy and not for the thread that
// runs when the copy is made.
void probe(const unsigned char* from, uint32_t bytes) {
    auto bytes_at = static_cast<const volatile unsigned char*>(from);
    for (uint32_t at = 0; at < bytes; at += kPage) (void)bytes_at[at];
    (void)bytes_at[bytes - 1];
}

void check_box(const Box& box, uint32_t offset, const char* what, const Where& where) {
    if (box.rank != 0 && offset % 128 != 0) {
        fail("%s of a box at offset %u of shared memory: a multiple of 128, by %s", what, offset, caller(where).c_str());
    }
    // An H200 answers such a load with an illegal instruction (bench/LOG.md, 9ef6b107).
    if (box.rank != 0 && box.at[0] * int32_t(box.element) % int32_t(kPiece) != 0) {
        fail("%s of a box at column %d, %d bytes from the first one: a multiple of 16 bytes, by %s", what, box.at[0],
             box.at[0] * int32_t(box.element), caller(where).c_str());
    }
}

// Starts a load into the shared memory of the CTA of `fiber`. If that is another CTA, `fiber` represents the running
// thread as that CTA sees it.
void load(Fiber& fiber, const void* destination, const Box& box, const void* mbarrier, const char* what,
          const Where& where) {
    Cta& cta = *fiber.cta;
    Instance& emu = *cta.emu;
    AsyncUse use{what, place_of(emu, where)};
    uint32_t offset = async_write_begin(fiber, destination, box.bytes, use);
    check_box(box, offset, what, where);
    for (const MbarrierState& bar : cta.mbarriers) {
        if (bar.offset + 8 > offset && bar.offset < offset + box.bytes) {
            fail("%s to bytes %u to %u of shared memory over the mbarrier at offset %u, by %s", what, offset,
                 offset + box.bytes - 1, bar.offset, caller(where).c_str());
        }
    }
    BulkCopy copy{};
    copy.box = box;
    copy.offset = offset;
    copy.place = use.place;
    copy.issuer = &self();
    copy.mbarrier = uint32_t(static_cast<const unsigned char*>(mbarrier) - cta.smem);
    each_row(copy, [&](const unsigned char* from, uint32_t bytes) {
        probe(from, bytes);
        global_bulk_read(from, bytes, where);
    });
    if (emu.options.poison) memset(cta.smem + offset, 0xff, box.bytes);
    cta.loads.push_back(std::move(copy));
    if (emu.options.completion == EMU_EAGER) land(cta, cta.loads.size() - 1);
}

void load_own(const void* destination, const Box& box, const void* mbarrier, const char* what, const Where& where) {
    check_copy_mbarrier(mbarrier, where);
    load(self(), destination, box, mbarrier, what, where);
    nudge_bulk(*self().cta);
    leave_if_failed();
}

void store(const Box& box, const void* source, const char* what, const Where& where) {
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    Instance& emu = *cta.emu;
    AsyncUse use{what, place_of(emu, where)};
    BulkCopy copy{};
    copy.box = box;
    copy.offset = async_offset(fiber, source, box.bytes, use);
    check_box(box, copy.offset, what, where);
    each_source(cta, copy, [&](unsigned char* p, uint32_t n) { async_read_begin(fiber, p, n, use); });
    copy.place = use.place;
    copy.issuer = &fiber;
    copy.group = fiber.bulk_group;
    each_row(copy, probe);
    cta.stores.push_back(std::move(copy));
    if (emu.options.completion == EMU_EAGER) write(cta, cta.stores.back());
    nudge_bulk(cta);
    leave_if_failed();
}

void note_written(const BulkCopy& store) {
    each_row(store, [&](const unsigned char* to, uint32_t bytes) { global_bulk_write(to, bytes, store.place); });
}

}  // namespace

bool land_one(Instance& emu) {
    for (size_t n = emu.started.size(), first = emu.options.seed != 0 && n > 1 ? emu.below(uint32_t(n)) : 0, i = 0;
         i < n; i++) {
        Cta& cta = *emu.started[(first + i) % n];
        if (cta.loads.empty()) continue;
        // Without a seed, the newest load lands first: the order of loads is not guaranteed, so kernels must not rely
        // on it.
        land(cta, emu.options.seed != 0 ? emu.below(uint32_t(cta.loads.size())) : cta.loads.size() - 1);
        return true;
    }
    return false;
}

void nudge_bulk(Cta& cta) {
    Instance& emu = *cta.emu;
    if (emu.options.completion != EMU_RANDOM) return;
    for (uint32_t n = emu.below(3); n > 0 && !cta.loads.empty(); n--) {
        uint32_t i = emu.below(uint32_t(cta.loads.size()));
        if (emu.below(3) == 0) {
            land(cta, i);
        } else {
            land_some(cta, cta.loads[i]);
        }
    }
    if (!cta.stores.empty()) {
        BulkCopy& store = cta.stores[emu.below(uint32_t(cta.stores.size()))];
        uint32_t what = emu.below(8);
        if (what == 0) write(cta, store);
        if (what == 1) take(cta, store);
    }
}

void bulk_commit() { self().bulk_group++; }

void bulk_wait(uint32_t newest, bool read) {
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    nudge_bulk(cta);
    leave_if_failed();
    uint32_t first_open = fiber.bulk_group > newest ? fiber.bulk_group - newest : 0;
    for (size_t i = 0; i < cta.stores.size();) {
        BulkCopy& store = cta.stores[i];
        if (store.issuer != &fiber || store.group >= first_open) {
            i++;
            continue;
        }
        take(cta, store);
        if (!store.waited) {
            AsyncUse use{"bulk store", store.place};
            each_source(cta, store, [&](unsigned char* p, uint32_t n) { async_read_end(fiber, p, n, use); });
        }
        store.waited = true;
        if (read) {
            i++;
            continue;
        }
        write(cta, store);
        note_written(store);
        cta.stores.erase(cta.stores.begin() + long(i));
    }
}

void bulk_thread_finished(Fiber& fiber) {
    Cta& cta = *fiber.cta;
    for (size_t i = 0; i < cta.stores.size();) {
        BulkCopy& store = cta.stores[i];
        if (store.issuer != &fiber) {
            i++;
            continue;
        }
        if (!store.waited) {
            fail("%s returns before its bulk store at %s has read its source: bulk_commit and bulk_wait_read come first",
                 thread_name(fiber).c_str(), place_text(*cta.emu, store.place).c_str());
        }
        write(cta, store);
        note_written(store);
        cta.stores.erase(cta.stores.begin() + long(i));
    }
    if (cta.live == 1 && !cta.loads.empty()) {
        const BulkCopy& load = cta.loads.front();
        fail("the CTA ends while the bulk copy of thread %u at %s to bytes %u to %u of its shared memory is in flight",
             load.issuer->index, place_text(*cta.emu, load.place).c_str(), load.offset,
             load.offset + load.box.bytes - 1);
    }
}

void tile_load(const void* destination, const Tile& tile, const void* mbarrier, const Where& where) {
    load_own(destination, box_of(tile, where), mbarrier, "tma_load", where);
}

void tile_load_for(Fiber& fiber, const void* destination, const Tile& tile, const void* mbarrier, const Where& where) {
    load(fiber, destination, box_of(tile, where), mbarrier, "tma_load_multicast", where);
}

void tile_store(const Tile& tile, const void* source, const Where& where) {
    store(box_of(tile, where), source, "tma_store", where);
}

void tile_prefetch(const uint64_t* map, const Where& where) { check_map(map, where); }

void bulk_load(const void* destination, const void* source, int bytes, const void* mbarrier, const Where& where) {
    Box box = plain(const_cast<void*>(source), bytes, destination, "bulk_load", where);
    load_own(destination, box, mbarrier, "bulk_load", where);
}

void bulk_store(void* destination, const void* source, int bytes, const Where& where) {
    store(plain(destination, bytes, source, "bulk_store", where), source, "bulk_store", where);
}

}  // namespace emu
