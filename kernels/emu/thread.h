// State of one emulated thread, its warp and its CTA, as far as the emulated isa/ functions need it inline.
#pragma once
#include <source_location>
#include <stdint.h>

struct uint3 {
    unsigned x, y, z;
};

namespace emu {

struct Cta;
struct Warp;
struct Fiber;

constexpr uint32_t kLanes = 32;
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxWarps = kMaxThreads / kLanes;
// Thread indices from kMaxThreads on denote warpgroups; from kForeign on, threads of other CTAs.
constexpr uint32_t kForeign = 2 * kMaxThreads;

struct Thread {
    void* stack_pointer;  // valid while the thread is not running
    uint3 thread_idx;
    uint32_t index;       // index in the CTA
    uint32_t lane;
    Cta* cta;
    Warp* warp;
    const uint3* block_idx;
    const uint3* block_dim;
    const uint3* grid_dim;
    unsigned char* smem;
    uint32_t smem_bytes;
    uint32_t posted;      // number of warp instructions that this lane has posted
    uint32_t wgmma_fences;  // number of wgmma fences that the thread has passed
};

// The running thread; null on a host thread that runs no launch.
extern thread_local Thread* current __attribute__((tls_model("initial-exec")));

using Where = std::source_location;

// Ends the launch with an error. Does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Records that the call site is passed. Returns false if the site must be skipped.
bool pass(const char* wrapper, const Where& where);

}  // namespace emu
