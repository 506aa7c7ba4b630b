// C interface of the emulator: the functions that a host program calls, and the record that describes a kernel in its
// shared object. The runtime's shared object is loaded first, with global symbols. Each kernels/X.cu compiled for the
// host is one more shared object, which takes the runtime's symbols from it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Interface version. Increase it whenever a struct below changes.
#define OMR_EMU_VERSION 6

// One kernel. A kernel NAME exports its entry as the data symbol `omr_entry_NAME`.
typedef struct EmuEntry {
    const char* name;
    const char* file;                // source path as given to the compiler
    void (*run)(const void* args);   // code of one thread
    uint32_t args_size;              // sizeof(Args)
    uint32_t threads;                // threads per CTA in its declaration
    uint32_t min_ctas;               // minimum CTAs per SM in its declaration
    uint32_t unordered;              // 1 if its result bits may depend on the schedule
} EmuEntry;

enum EmuCompletion { EMU_EAGER = 0, EMU_LAZY = 1, EMU_RANDOM = 2 };
// How a k16 step of a matrix instruction is added to the accumulators: one fused multiply-add after the other, or as
// the tensor cores of Hopper, or of Ampere and Ada, are reported to add (SumRule in emu/operand.h).
enum EmuSums { EMU_CHAIN = 0, EMU_HOPPER = 1, EMU_AMPERE = 2 };

typedef struct EmuOptions {
    // 0: one fixed schedule; else a random order of fibers, CTAs and atomics, drawn from this seed
    uint64_t seed;
    uint32_t sms;         // streaming multiprocessors
    uint32_t completion;  // EmuCompletion: when asynchronous copies write their data
    uint32_t shadow;      // 1: keep shadow state of shared memory (finds races, poison, reads of data in flight)
    uint32_t poison;      // 1: fill fresh shared memory and destinations in flight with 0xFF
    uint32_t sums;        // EmuSums
    uint32_t banks;       // 1: also count the bank conflicts of single accesses to shared memory
    uint32_t corners;     // 1: run only the first and the last cluster of a grid
    // 1: permit arrivals at an mbarrier in a phase before any wait has found the phase before it completed
    uint32_t unseen_phases;
    uint32_t sm_shared;     // bytes of shared memory per SM
    uint32_t sm_warps;      // warps per SM
    uint32_t sm_registers;  // registers per SM
} EmuOptions;

typedef struct EmuLaunch {
    uint32_t grid[3];     // CTAs
    uint32_t block;       // threads per CTA
    uint32_t cluster;     // CTAs per cluster (along x); 1 without clusters
    uint32_t smem;        // dynamic shared memory in bytes
    uint32_t registers;   // registers per thread, from ptx/MANIFEST; 0: unknown, not checked
} EmuLaunch;

typedef struct EmuSite {
    const char* file;     // path starting with `kernels/`, e.g. kernels/rms_norm.cu
    const char* wrapper;  // sync_cta, cp_async_wait, ...
    uint32_t line;
} EmuSite;

typedef struct EmuInstance EmuInstance;

uint32_t omr_emu_version(void);
// Creates an instance, or returns NULL if there is not enough memory. Only one host thread at a time may use an
// instance.
EmuInstance* omr_emu_create(const EmuOptions* options);
void omr_emu_destroy(EmuInstance* emu);
// Sets the options of the following launches.
void omr_emu_set_options(EmuInstance* emu, const EmuOptions* options);
// Runs the complete grid. Returns 0, or non-zero with the reason in omr_emu_error.
int omr_emu_launch(EmuInstance* emu, const EmuEntry* entry, const EmuLaunch* launch, const void* args, size_t args_size);
// Returns the reason of the last failed launch; valid until the next launch.
const char* omr_emu_error(const EmuInstance* emu);
// Turns a call site into a no-op in the following launches. `file` is as in EmuSite; NULL skips no site.
void omr_emu_skip(EmuInstance* emu, const char* file, uint32_t line);
// Lists the sites passed so far, ordered by file and line. Writes up to `capacity` of them and returns their total
// number. The strings live as long as the instance.
size_t omr_emu_sites(EmuInstance* emu, EmuSite* out, size_t capacity);
// Returns the extra shared memory cycles of ldmatrix and stmatrix so far; with `banks` also of other accesses.
uint64_t omr_emu_bank_conflicts(const EmuInstance* emu);

#ifdef __cplusplus
}
#endif
