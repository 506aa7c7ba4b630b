// Places in kernel sources: their names in messages, and the sites that a launch passes.
#include <stdarg.h>
#include <stdio.h>

#include <algorithm>

#include "emu/fiber.h"

namespace emu {

const char* short_path(const char* path) {
    const char* found = path;
    for (const char* p = path; (p = strstr(p, "kernels/")) != nullptr; p++) {
        if (p == path || p[-1] == '/') found = p;
    }
    return found;
}

std::string place_name(const Where& where) {
    return std::string(short_path(where.file_name())) + ":" + std::to_string(where.line());
}

std::string place_text(const Instance& emu, int32_t place) {
    intptr_t constant = reinterpret_cast<intptr_t>(emu.entry) + place;
    Where where;
    memcpy(static_cast<void*>(&where), &constant, sizeof constant);
    return place_name(where);
}

std::string thread_name(const Fiber& fiber) {
    char text[96];
    const uint3& b = *fiber.block_idx;
    bool warpgroup = fiber.index >= kMaxThreads && fiber.index < kForeign;
    snprintf(text, sizeof text, "%s %u of CTA (%u, %u, %u)", warpgroup ? "warpgroup" : "thread",
             fiber.index % kMaxThreads, b.x, b.y, b.z);
    return text;
}

std::string caller(const Where& where) { return thread_name(self()) + " at " + place_name(where); }

namespace {

void set_error(Instance& emu, const char* format, va_list list) {
    char text[2048];
    vsnprintf(text, sizeof text, format, list);
    emu.error = std::string("kernel ") + emu.entry->name + ": " + text;
    emu.failed = true;
}

[[noreturn]] void leave(Instance& emu) {
    void* abandoned;
    emu_switch(&abandoned, emu.launcher_stack);
    __builtin_unreachable();
}

Site& site_of(Instance& emu, const char* wrapper, const Where& where) {
    Site& site = emu.sites[{where.file_name(), where.line()}];
    if (site.line == 0) {
        site.file = short_path(where.file_name());
        site.wrapper = wrapper;
        site.line = where.line();
        site.skipped = site.line == emu.skip_line && site.file == emu.skip_file;
    }
    return site;
}

}  // namespace

bool pass(const char* wrapper, const Where& where) {
    Instance& emu = instance();
    int32_t place = place_of(emu, where);
    Instance::Cached& cached = emu.site_cache[uint32_t(place) / 8 % std::size(emu.site_cache)];
    if (cached.place != place || cached.site == nullptr) cached = {place, &site_of(emu, wrapper, where)};
    self().near = place;
    return !cached.site->skipped;
}

void fail(const char* format, ...) {
    Instance& emu = instance();
    va_list list;
    va_start(list, format);
    set_error(emu, format, list);
    va_end(list);
    leave(emu);
}

void report(Instance& emu, const char* format, ...) {
    if (emu.failed) return;
    va_list list;
    va_start(list, format);
    set_error(emu, format, list);
    va_end(list);
}

void leave_if_failed() {
    if (instance().failed) leave(instance());
}

namespace {

std::string mbarrier_text(const Fiber& fiber) {
    for (const MbarrierState& bar : fiber.cta->mbarriers) {
        if (bar.offset != fiber.wait_number) continue;
        char text[200];
        snprintf(text, sizeof text, "the mbarrier at offset %u at %s, in whose phase %llu %u of %u arrivals are missing and %lld bytes",
                 bar.offset, place_name(fiber.wait_where).c_str(), static_cast<unsigned long long>(bar.phase),
                 bar.pending, bar.expected, static_cast<long long>(bar.due));
        return text;
    }
    return "an mbarrier that is gone";
}

std::string wait_text(const Fiber& fiber) {
    Warp& warp = *fiber.warp;
    char text[160];
    switch (fiber.wait) {
        case Wait::instruction: {
            const Op& op = warp.op(fiber.wait_number);
            const Op& open = warp.op(warp.done + 1);
            snprintf(text, sizeof text, ", of whose warp the lanes 0x%08x have come to ", open.lanes);
            return "a warp instruction at " + place_name(op.where) + text + place_name(open.where);
        }
        case Wait::barrier: {
            const Barrier& bar = fiber.cta->barriers[fiber.wait_number];
            uint32_t gathered = warp.at_barrier;
            if (gathered >> fiber.lane & 1) {
                snprintf(text, sizeof text, "barrier %u at ", fiber.wait_number);
                return text + place_name(fiber.wait_where) + ", where its warp's live lanes are " +
                       std::to_string(__builtin_popcount(warp.live)) + " and " +
                       std::to_string(__builtin_popcount(gathered)) + " have come";
            }
            snprintf(text, sizeof text, ", where %u threads have come", bar.arrived);
            std::string expected = bar.expected != 0 ? " of " + std::to_string(bar.expected) : "";
            return "barrier " + std::to_string(fiber.wait_number) + " at " + place_name(fiber.wait_where) + text +
                   expected;
        }
        case Wait::warp_barrier:
            snprintf(text, sizeof text, "sync_warp(0x%08x) at ", fiber.barrier_mask);
            return text + place_name(fiber.wait_where);
        case Wait::mbarrier:
        case Wait::asking: return mbarrier_text(fiber);
        case Wait::cluster: return cluster_text(fiber);
        case Wait::registers:
            snprintf(text, sizeof text, "%u registers a thread at ", fiber.wait_number);
            return text + place_name(fiber.wait_where) + ", of which the CTA has " +
                   std::to_string(fiber.cta->free_registers) + " free";
        case Wait::warpgroup: return warpgroup_wait_text(fiber);
        case Wait::spin: return "spin_until at " + place_name(fiber.wait_where);
        case Wait::none: break;
    }
    return "nothing";
}

}  // namespace

std::string deadlock_report(Instance& emu) {
    std::string text = std::string("kernel ") + emu.entry->name + ": deadlock, every thread waits\n";
    if (emu.cta_started < emu.cta_total) {
        text += "  " + std::to_string(emu.cta_total - emu.cta_started) + " of " + std::to_string(emu.cta_total) +
                " CTAs cannot start: " + std::to_string(emu.resident_limit) + " are resident and none has finished\n";
    }
    int lines = 0;
    for (Cta* cta : emu.started) {
        for (uint32_t i = 0; i < cta->threads && lines < 24;) {
            const Fiber& fiber = cta->fibers[i];
            if (fiber.done) {
                i++;
                continue;
            }
            std::string what = wait_text(fiber);
            uint32_t last = i;
            while (last + 1 < cta->threads && !cta->fibers[last + 1].done &&
                   wait_text(cta->fibers[last + 1]) == what) {
                last++;
            }
            text += "  " + thread_name(fiber);
            if (last != i) text += " to thread " + std::to_string(last);
            text += ": " + what + "\n";
            lines++;
            i = last + 1;
        }
    }
    return text;
}

}  // namespace emu
