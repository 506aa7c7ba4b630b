// The emulator's C interface: what src/device/emu.rs finds in the runtime's shared object (functions emu_*)
// and in the shared object of each kernel file (data emu_entry_*). Structs are mirrored #[repr(C)] on the Rust side;
// EMU_API is raised with every change of either.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define EMU_API 1

#ifdef __cplusplus
extern "C" {
#endif

// One kernel of an object: what KERNEL(name, Args, threads, min) states, and the body. Exported as emu_entry_NAME.
struct EmuEntry {
    const char* name;
    uint32_t args_bytes;                // sizeof(Args)
    uint32_t threads;                   // launch bound: threads of a CTA
    uint32_t min_ctas;                  // CTAs an SM, at least
    uint32_t unordered;                 // 1: bits may depend on the order of CTAs and atomics
    void (*body)(const void* args);     // run by every thread (fiber) of the grid
};

// When asynchronous copies (cp.async and later TMA) land, and when a deferred read happens.
enum EmuCompletion { EMU_EAGER = 0, EMU_LAZY = 1, EMU_RANDOM = 2 };

// How a launch is run, on which machine, and what of its call sites is told or left out.
struct EmuConfig {
    uint64_t seed;                      // 0: the fixed schedule (fibers and CTAs in index order); else seeded
    uint32_t completion;                // EmuCompletion
    uint32_t sms;                       // SMs that hold CTAs
    uint32_t ctas_per_sm;               // CTAs resident on one SM, at least 1 (the driver knows registers and limits)
    uint32_t skip_line;                 // calls at skip_file:skip_line do nothing, invisibly; 0: none is skipped
    const char* skip_file;              // as "kernels/rms_norm.cu"
    // Called once for each site the launch passes (skipped ones too); null: nobody listens.
    void (*site)(void* user, const char* file, uint32_t line, const char* wrapper);
    void* user;
};

struct EmuLaunch {
    const struct EmuEntry* entry;
    const void* args;                   // args_bytes bytes, live until emu_launch returns
    uint32_t grid[3];
    uint32_t threads;                   // threads of a CTA
    uint32_t smem;                      // dynamic shared memory of a CTA in bytes
    uint32_t cluster;                   // CTAs of a cluster, 1 for none
};

uint32_t emu_api(void);                 // EMU_API of the runtime

// Runs a grid to its end on the calling thread. Launches on different threads may overlap in time.
// 0, or 1 with a NUL-terminated text in error (cut at capacity): race, poison read, deadlock, fault, misuse.
// A fault (guard page) inside the kernel is such an error too: nothing of the process is lost.
int emu_launch(const struct EmuConfig* config, const struct EmuLaunch* launch, char* error, size_t capacity);

// Host memory with protection, in pages of 4,096 bytes; address 0 when the system refuses.
void* emu_map(size_t bytes);            // reserved, inaccessible
int emu_protect(void* page, size_t bytes, int accessible);
void emu_unmap(void* page, size_t bytes);

#ifdef __cplusplus
}
#endif
