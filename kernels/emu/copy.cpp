// Emulation of cp.async. A copy completes at issue (eager), at the wait (lazy), or in pieces of 4 bytes, out of order
// and at random moments.
#include "emu/copy.h"

#include "emu/runtime.h"

namespace emu {

namespace {

void write_piece(AsyncCopy& copy, uint32_t piece) {
    uint32_t at = piece * 4;
    for (uint32_t i = at; i < at + 4; i++) copy.destination[i] = i < copy.source_bytes ? copy.source[i] : 0;
    copy.written |= 1u << piece;
}

// Writes the pieces that are not written yet.
void write_rest(AsyncCopy& copy) {
    uint32_t pieces = copy.bytes / 4;
    if (copy.written == 0 && copy.source_bytes == 16) {
        memcpy(copy.destination, copy.source, 16);
    } else if (copy.written == 0) {
        memcpy(copy.destination, copy.source, copy.source_bytes);
        memset(copy.destination + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    } else {
        for (uint32_t i = 0; i < pieces; i++) {
            if ((copy.written >> i & 1) == 0) write_piece(copy, i);
        }
    }
    copy.written = (1u << pieces) - 1;
}

}  // namespace

void nudge_copies(Fiber& fiber) {
    if (fiber.copies.empty()) return;
    Instance& emu = *fiber.cta->emu;
    if (emu.options.completion != EMU_RANDOM) return;
    for (uint32_t n = emu.below(4); n > 0; n--) {
        AsyncCopy& copy = fiber.copies[emu.below(uint32_t(fiber.copies.size()))];
        uint32_t piece = emu.below(copy.bytes / 4);
        if ((copy.written >> piece & 1) == 0) write_piece(copy, piece);
    }
}

void async_copy(void* destination, const void* source, uint32_t bytes, uint32_t source_bytes, const Where& where) {
    Fiber& fiber = self();
    Instance& emu = *fiber.cta->emu;
    if (source_bytes > bytes) {
        fail("cp_async of %u bytes out of %u, at %s", source_bytes, bytes, place_name(where).c_str());
    }
    if (reinterpret_cast<uintptr_t>(destination) % bytes != 0 ||
        (source_bytes != 0 && reinterpret_cast<uintptr_t>(source) % bytes != 0)) {
        fail("cp_async of %u bytes is not aligned to them: source %p, destination %p, %s at %s", bytes, source,
             destination, thread_name(fiber).c_str(), place_name(where).c_str());
    }
    AsyncCopy copy{static_cast<unsigned char*>(destination),
                   static_cast<const unsigned char*>(source),
                   bytes,
                   source_bytes,
                   0,
                   fiber.group,
                   place_of(emu, where)};
    shadow_copy_begin(fiber, copy);
    if (emu.options.completion == EMU_EAGER) {
        write_rest(copy);
    } else if (emu.options.poison) {
        memset(destination, 0xff, bytes);
    }
    fiber.copies.push_back(copy);
    nudge_copies(fiber);
}

void async_commit() { self().group++; }

void async_wait(uint32_t newest) {
    Fiber& fiber = self();
    Instance& emu = *fiber.cta->emu;
    // Groups 0 .. group - 1 are committed. The last `newest` of them may stay incomplete.
    uint32_t first_open = fiber.group > newest ? fiber.group - newest : 0;
    size_t finished = 0;
    while (finished < fiber.copies.size() && fiber.copies[finished].group < first_open) finished++;
    if (emu.options.completion == EMU_RANDOM && finished > 1) {
        for (size_t i = finished - 1; i > 0; i--) {
            std::swap(fiber.copies[i], fiber.copies[emu.below(uint32_t(i + 1))]);
        }
    }
    for (size_t i = 0; i < finished; i++) {
        write_rest(fiber.copies[i]);
        shadow_copy_done(fiber, fiber.copies[i]);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + long(finished));
    nudge_copies(fiber);
}

}  // namespace emu
