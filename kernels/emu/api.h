// The C interface of the emulator: what a host program calls, and the record by which a kernel's shared object
// announces a kernel. The runtime's shared object is loaded first with global symbols; each kernels/X.cu compiled
// for the host is one more shared object that resolves the runtime's symbols from it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever a struct below changes.
#define OMR_EMU_VERSION 3

// One kernel. A kernel NAME exports it as the data symbol `omr_entry_NAME`.
typedef struct EmuEntry {
    const char* name;
    const char* file;                // source path as given to the compiler
    void (*run)(const void* args);   // the body of one thread
    uint32_t args_size;              // sizeof(Args)
    uint32_t threads;                // threads a CTA it was declared with
    uint32_t min_ctas;               // CTAs an SM it was declared with
    uint32_t unordered;              // 1: its bits may depend on the schedule
} EmuEntry;

enum EmuCompletion { EMU_EAGER = 0, EMU_LAZY = 1, EMU_RANDOM = 2 };
// How a k16 step of a matrix instruction is added to its sums: one fused product after the other, or all at once as
// tensor cores do (emu/operand.h).
enum EmuSums { EMU_CHAIN = 0, EMU_ALIGNED = 1 };

typedef struct EmuOptions {
    uint64_t seed;        // 0: one fixed schedule; else fibers, CTA order and atomics in an order drawn from it
    uint32_t sms;         // streaming multiprocessors
    uint32_t completion;  // EmuCompletion: when asynchronous copies write
    uint32_t shadow;      // 1: shared memory has shadow state (races, poison, in-flight reads)
    uint32_t poison;      // 1: fresh shared memory and in-flight destinations are filled with 0xFF
    uint32_t sums;        // EmuSums
    uint32_t banks;       // 1: what single accesses to shared memory cost is counted, too
    uint32_t corners;     // 1: of a grid only the first and the last cluster run
} EmuOptions;

typedef struct EmuLaunch {
    uint32_t grid[3];     // CTAs
    uint32_t block;       // threads a CTA
    uint32_t cluster;     // CTAs a cluster (along x), 1 without
    uint32_t smem;        // dynamic shared memory in bytes
    uint32_t registers;   // registers a thread, from ptx/MANIFEST; 0: not known, not checked
} EmuLaunch;

typedef struct EmuSite {
    const char* file;     // from `kernels/` on, e.g. kernels/rms_norm.cu
    const char* wrapper;  // sync_cta, cp_async_wait, ...
    const char* exempt;   // reason after `// exempt:` on the call's line, or NULL
    uint32_t line;
    uint32_t reserved;
    uint64_t passes;      // calls by a thread since the sites were cleared
} EmuSite;

typedef struct EmuCounters {
    uint64_t launches, ctas, threads;
    uint64_t switches;          // from one thread to another
    uint64_t warp_instructions; // matrix instructions and shuffles, counted once a warp
    uint64_t mma;               // of which m16n8k16
    uint64_t bank_conflicts;    // extra shared-memory cycles of ldmatrix and stmatrix, and with `banks` of others
    uint64_t async_copies;
} EmuCounters;

typedef struct EmuInstance EmuInstance;

uint32_t omr_emu_version(void);
// NULL if memory for it cannot be had. An instance serves one host thread at a time.
EmuInstance* omr_emu_create(const EmuOptions* options);
void omr_emu_destroy(EmuInstance* emu);
// Options for the launches that follow.
void omr_emu_set_options(EmuInstance* emu, const EmuOptions* options);
// Runs the whole grid. 0, or non-zero with the reason in omr_emu_error.
int omr_emu_launch(EmuInstance* emu, const EmuEntry* entry, const EmuLaunch* launch, const void* args, size_t args_size);
// Reason of the last launch that failed; valid until the next launch.
const char* omr_emu_error(const EmuInstance* emu);
// Makes the call site a no-op in the launches that follow; file as in EmuSite; NULL skips none.
void omr_emu_skip(EmuInstance* emu, const char* file, uint32_t line);
// Sites passed so far, ordered by file and line: fills up to `capacity`, returns how many there are.
// The strings live as long as the instance.
size_t omr_emu_sites(EmuInstance* emu, EmuSite* out, size_t capacity);
void omr_emu_clear_sites(EmuInstance* emu);
void omr_emu_counters(const EmuInstance* emu, EmuCounters* out);

#ifdef __cplusplus
}
#endif
