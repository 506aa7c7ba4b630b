/* A replacement of the CUDA driver without a GPU, for tests of the calls. Device memory is host memory. A kernel is its
 * entry in the PTX, which "linking" copies. A launch only writes its parameters to the log. Copies run as late as a
 * driver may run them: when something waits. The environment variables FAKE_GPUS, FAKE_SMEM, FAKE_MEMORY,
 * FAKE_CUDA_VERSION, FAKE_REFUSE_PTX, FAKE_FAULT, FAKE_HANG, FAKE_REGISTERS, FAKE_MANIFEST, FAKE_BUSY and FAKE_LOG control the behaviour. Copies within the device
 * of more than FAKE_LARGEST_COPY bytes are skipped, because a GPU has more memory than the host. FAKE_NAME and FAKE_UUID
 * identify the GPU. FAKE_SLOW_LINK names a file whose PTX compiles for 1.5 s, FAKE_REGISTERS_OF kernels to which
 * FAKE_REGISTERS is limited, and FAKE_SUMS a file: downloads of as many bytes as it has return its content, and all
 * others zeros.
 *
 * CUDA_VERSION is the version of the driver that this stands for. It exports only the symbols that this version has;
 * FAKE_CUDA_VERSION changes what cuDriverGetVersion answers. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef CUDA_VERSION
#define CUDA_VERSION 13000
#endif
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_READY = 600, INVALID_IMAGE = 200, INVALID_PTX = 218, COMPUTE_90A = 65626, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };
#define API __attribute__((visibility("default"))) int
#define MAX_PENDING 4096
#define PAGE 4096

typedef struct { char name[128]; unsigned threads; size_t args; } Function;
typedef struct { unsigned grid[3], block[3], smem; void *stream; struct Attribute *attrs; unsigned num_attrs; } Config;
struct Attribute { int id; char pad[4]; unsigned value[16]; };
typedef struct { char *info, *error; int target; } Link;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct { void *to; const void *from; size_t bytes; } pending[MAX_PENDING];
static int num_pending, launched, handles;
static _Thread_local void *current;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* The default has no machine code in the program, so its PTX is compiled. */
static const char *gpus(void) { return setting("FAKE_GPUS", "8.7"); }

static void note(const char *format, ...) {
    FILE *log = fopen(setting("FAKE_LOG", "/dev/null"), "a");
    va_list list;
    va_start(list, format);
    pthread_mutex_lock(&mutex);
    vfprintf(log, format, list);
    fputc('\n', log);
    fclose(log);
    pthread_mutex_unlock(&mutex);
    va_end(list);
}

static size_t bytes_of(const char *name, size_t otherwise) {
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

static size_t memory(void) { return bytes_of("FAKE_MEMORY", (size_t)1 << 34); }

static void *handle(void) { return (void *)(intptr_t)(4096 + ++handles); }

static int settle(void) {
    for (int i = 0; i < num_pending; i++) memmove(pending[i].to, pending[i].from, pending[i].bytes);
    num_pending = 0;
    while (launched && getenv("FAKE_HANG")) pause();
    return launched && getenv("FAKE_FAULT") ? ILLEGAL_ADDRESS : OK;
}

static int later(void *to, const void *from, size_t bytes) {
    if (num_pending == MAX_PENDING || bytes == 0) return INVALID_VALUE;
    pending[num_pending].to = to;
    pending[num_pending].from = from;
    pending[num_pending++].bytes = bytes;
    return OK;
}

API cuDriverGetVersion(int *version) { *version = atoi(setting("FAKE_CUDA_VERSION", TEXT(CUDA_VERSION))); return OK; }
API cuInit(unsigned flags) { (void)flags; return *gpus() ? OK : NO_DEVICE; }
API cuGetErrorName(int code, const char **text) { *text = code == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OTHER"; return OK; }
API cuGetErrorString(int code, const char **text) { *text = code == NO_DEVICE ? "no CUDA-capable device is detected" : "words of the driver"; return OK; }

API cuDeviceGetCount(int *count) {
    *count = 1;
    for (const char *at = gpus(); *at; at++) *count += *at == ',';
    return OK;
}
API cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
API cuDeviceGetName(char *name, int size, int device) {
    const char *set = getenv("FAKE_NAME");
    set ? snprintf(name, size, "%s", set) : snprintf(name, size, "GPU %d", device);
    return OK;
}
API cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device, 16); uuid[0] = *setting("FAKE_UUID", "0"); return OK; }
API cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = memory(); return OK; }
/* Returns the bytes of shared memory that a CTA can have on the GPUs of src/runtime/device/limits.rs, which a test compares. */
static size_t shared_memory(int major, int minor) {
    int kib = major == 12 || (major == 8 && (minor == 6 || minor == 9)) ? 99 : major == 8 ? 163 : 227;
    return bytes_of("FAKE_SMEM", (size_t)kib << 10);
}
API cuDeviceGetAttribute(int *value, int which, int device) {
    const char *at = gpus();
    while (device-- > 0) at = strchr(at, ',') + 1;
    int major = atoi(at), minor = atoi(strchr(at, '.') + 1);
    *value = which == 75 ? major : which == 76 ? minor : which == 16 ? 108 : which == 97 ? (int)shared_memory(major, minor) : which == 12 ? 65536 : 1;
    return OK;
}
API cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(intptr_t)(device + 1); return OK; }
API cuDevicePrimaryCtxRelease_v2(int device) { (void)device; note("context released"); return OK; }
API cuCtxGetCurrent(void **context) { *context = current; return OK; }
API cuCtxSetCurrent(void *context) { current = context; return OK; }
API cuCtxSynchronize(void) { return settle(); }

/* Pages are allocated when they are touched, so many large regions are possible. The page before a region has its size. */
API cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    char *start = mmap(0, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    *(size_t *)start = bytes + PAGE;
    *address = (uint64_t)(start + PAGE);
    note("alloc %zu", bytes);
    return OK;
}
API cuMemFree_v2(uint64_t address) { size_t *start = (size_t *)(address - PAGE); munmap(start, *start); note("free"); return OK; }
/* Each query reports 1 MiB less free memory, as if another process had allocated it. */
API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    static size_t asked;
    *total = memory();
    *free_bytes = *total - (asked++ << 20);
    return OK;
}
/* Memory of the host is never reused. */
static char *host, *host_end, *pinned, *pinned_end;
static int on_host(uint64_t address) {
    char *at = (char *)address;
    return (at >= host && at < host_end) || (at >= pinned && at < pinned_end);
}
/* Pins one range of memory that the program mapped, and counts its pages that exist. */
API cuMemHostRegister_v2(void *start, size_t bytes, unsigned flags) {
    unsigned char exists[64] = {0};
    size_t pages = (bytes + PAGE - 1) / PAGE, found = 0;
    if (pinned || pages > sizeof exists || mincore(start, bytes, exists)) return INVALID_VALUE;
    for (size_t i = 0; i < pages; i++) found += exists[i] & 1;
    pinned = start;
    pinned_end = pinned + bytes;
    note("pinned %zu bytes, %zu of %zu pages, flags %u", bytes, found, pages, flags);
    return OK;
}
API cuMemHostUnregister(void *start) { note("unpinned"); return start == pinned ? OK : INVALID_VALUE; }
API cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
    if (!host) host = host_end = mmap(0, (size_t)1 << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *start = host_end;
    host_end += (bytes + PAGE - 1) / PAGE * PAGE;
    note("host %zu flags %u", bytes, flags);
    return OK;
}
API cuMemHostGetDevicePointer_v2(uint64_t *address, void *start, unsigned flags) { *address = (uint64_t)start; return flags ? INVALID_VALUE : OK; }
API cuMemFreeHost(void *start) { (void)start; note("host free"); return OK; }
/* Copies of one direction are not specified for device addresses of host memory. */
API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { (void)stream; return on_host(to) ? INVALID_VALUE : later((void *)to, from, bytes); }
API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) { (void)stream; return on_host(from) ? INVALID_VALUE : later(to, (void *)from, bytes); }
API cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    static char sums[1 << 20];
    static size_t size;
    FILE *file = size || !getenv("FAKE_SUMS") ? NULL : fopen(getenv("FAKE_SUMS"), "r");
    if (file) { size = fread(sums, 1, sizeof sums, file); fclose(file); }
    (void)stream;
    if (!size || on_host(from)) return later((void *)to, (void *)from, bytes);
    return later((void *)to, bytes == size ? sums : host_end, bytes); /* no memory after `host_end` is ever written */
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    return bytes > bytes_of("FAKE_LARGEST_COPY", SIZE_MAX) ? OK : later((void *)to, (void *)from, bytes);
}
API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream) {
    (void)stream;
    settle();
    /* Complete pages of zeros are released. They are zero again when they are next touched. */
    uint64_t first = (to + PAGE - 1) / PAGE * PAGE, last = (to + bytes) / PAGE * PAGE;
    if (value == 0 && first < last) {
        memset((void *)to, 0, first - to);
        madvise((void *)first, last - first, MADV_DONTNEED);
        memset((void *)last, 0, to + bytes - last);
    } else {
        memset((void *)to, value, bytes);
    }
    return bytes ? OK : INVALID_VALUE;
}

API cuStreamCreate(void **stream, unsigned flags) { *stream = handle(); note("stream flags %u", flags); return OK; }
API cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    *stream = handle();
    note("stream flags %u priority %d", flags, priority);
    return OK;
}
API cuStreamDestroy_v2(void *stream) { (void)stream; return OK; }
API cuStreamSynchronize(void *stream) { (void)stream; return settle(); }
API cuStreamQuery(void *stream) {
    static int asked;
    note("query %p", stream);
    return asked++ < atoi(setting("FAKE_BUSY", "0")) ? NOT_READY : settle();
}
API cuStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream; (void)event; note("wait flags %u", flags); return OK; }
API cuStreamBeginCapture_v2(void *stream, int mode) { (void)stream; note("capture mode %d", mode); return OK; }
API cuStreamEndCapture(void *stream, void **graph) { (void)stream; *graph = handle(); return OK; }
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) { (void)graph; *exec = handle(); note("graph flags %llu", flags); return OK; }
API cuGraphUpload(void *exec, void *stream) { (void)exec; (void)stream; note("graph upload"); return OK; }
API cuGraphLaunch(void *exec, void *stream) { (void)exec; (void)stream; note("graph launch"); return OK; }
API cuGraphExecDestroy(void *exec) { (void)exec; note("graph destroy"); return OK; }
API cuGraphDestroy(void *graph) { (void)graph; return OK; }
API cuEventCreate(void **event, unsigned flags) { *event = handle(); note("event flags %u", flags); return OK; }
API cuEventRecord(void *event, void *stream) { (void)event; (void)stream; return OK; }
API cuEventSynchronize(void *event) { (void)event; return settle(); }
API cuEventElapsedTime(float *ms, void *from, void *to) { (void)from; (void)to; *ms = 1.5f; return OK; }
#if CUDA_VERSION >= 12080
API cuEventElapsedTime_v2(float *ms, void *from, void *to) { return cuEventElapsedTime(ms, from, to); }
#endif
API cuEventDestroy_v2(void *event) { (void)event; return OK; }
API cuProfilerStart(void) { note("profiler start"); return OK; }
API cuProfilerStop(void) { note("profiler stop"); return OK; }

/* Options 3 and 5 are the two logs. Options 4 and 6 are their sizes, passed by value. Option 13 asks for line
 * tables. Option 9 is the target; without it PTX is compiled for 9.0, as ptxas does with -arch=sm_90. */
API cuLinkCreate_v2(unsigned count, int *options, void **values, void **state) {
    Link *link = calloc(1, sizeof(Link));
    for (unsigned i = 0; i < count; i++) {
        if (options[i] == 5) link->error = values[i];
        if (options[i] == 13) note("line info %d", (int)(uintptr_t)values[i]);
        if (options[i] == 9) link->target = (int)(uintptr_t)values[i];
        if ((options[i] == 4 || options[i] == 6) && (uintptr_t)values[i] < 1024) return INVALID_VALUE;
    }
    *state = link;
    return link->error ? OK : INVALID_VALUE;
}
API cuLinkAddData_v2(void *state, int type, void *data, size_t size, const char *name, unsigned count, int *options, void **values) {
    (void)count; (void)options; (void)values;
    Link *link = state;
    if (type != 1 || ((char *)data)[size - 1] != 0) return INVALID_VALUE;
    if (getenv("FAKE_REFUSE_PTX")) { strcpy(link->error, "ptxas fatal: line 7 is not to my taste"); return INVALID_PTX; }
    if (strstr(data, ".target sm_90a") && link->target != COMPUTE_90A) {
        strcpy(link->error, "ptxas fatal: PTX with .target 'sm_90a' cannot be compiled for architecture 'sm_90'");
        return INVALID_PTX;
    }
    /* The driver refuses an ISA that is newer than its own (8.4 for CUDA 12.4), and this pragma before ISA 8.3. */
    float isa = strtof(strstr(data, "\n.version ") + 10, 0), most = CUDA_VERSION / 1000 - 4 + CUDA_VERSION % 1000 / 10 * 0.1f;
    if (isa > most + 0.01f || (isa < 8.25f && strstr(data, "used_bytes_mask"))) {
        strcpy(link->error, "ptxas fatal: unsupported .version");
        return INVALID_PTX;
    }
    if (strcmp(name, setting("FAKE_SLOW_LINK", "")) == 0) usleep(1500000);
    link->info = strdup(data);
    note("link %s", name);
    return OK;
}
API cuLinkComplete(void *state, void **cubin, size_t *size) {
    *cubin = ((Link *)state)->info;
    *size = strlen(*cubin) + 1;
    return OK;
}
API cuLinkDestroy(void *state) { free(((Link *)state)->info); free(state); return OK; }

API cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    (void)count; (void)options; (void)values;
    if (CUDA_VERSION < 13000 && memcmp(image, "\177ELF", 4) == 0) return INVALID_IMAGE;
    *module = memcmp(image, "\177ELF", 4) == 0 ? strdup("ELF") : strdup(image);
    return OK;
}
API cuModuleUnload(void *module) { free(module); note("module unloaded"); return OK; }
/* Returns a number of a kernel's line in the file FAKE_MANIFEST, ptx/MANIFEST, or 0. */
static size_t listed(const char *kernel, const char *field) {
    char line[1024], name[160];
    size_t value = 0;
    FILE *manifest = fopen(setting("FAKE_MANIFEST", "/dev/null"), "r");
    snprintf(name, sizeof name, " %s sm_90a ", kernel);
    while (manifest && fgets(line, sizeof line, manifest))
        if (strstr(line, name)) value = strtoul(strstr(line, field) + strlen(field), 0, 10);
    if (manifest) fclose(manifest);
    return value;
}
API cuModuleGetFunction(void **out, void *module, const char *name) {
    char entry[160];
    Function *function = calloc(1, sizeof *function);
    snprintf(function->name, sizeof function->name, "%s", name);
    snprintf(entry, sizeof entry, ".entry %s(", name);
    if (strcmp(module, "ELF") == 0) { /* given by the test, because only machine code contains these values */
        function->args = getenv("FAKE_MANIFEST") ? listed(name, " args=") : (size_t)atoi(setting("FAKE_ELF_ARGS", "0"));
        function->threads = getenv("FAKE_MANIFEST") ? listed(name, " threads=") : 1024;
    } else {
        const char *at = strstr(module, entry);
        if (!at) return NOT_FOUND;
        function->args = strtoul(strchr(at, '[') + 1, 0, 10);
        function->threads = strtoul(strstr(at, ".maxntid ") + 9, 0, 10);
    }
    *out = function;
    return OK;
}
/* A CTA has 65,536 registers, in units of eight per thread. */
static int registers(Function *function) {
    unsigned most = 65536 / function->threads / 8 * 8;
    if (most > 168) most = 168;
    return strstr(function->name, setting("FAKE_REGISTERS_OF", "")) ? (int)bytes_of("FAKE_REGISTERS", most) : (int)most;
}
API cuFuncGetAttribute(int *value, int which, void *function) { *value = which == 0 ? (int)((Function *)function)->threads : which == 4 ? registers(function) : 0; return OK; }
API cuFuncSetAttribute(void *function, int which, int value) { note("attribute %d of %s = %d", which, ((Function *)function)->name, value); return OK; }
#if CUDA_VERSION >= 12040
API cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size) {
    *offset = 0;
    *size = ((Function *)function)->args;
    return index == 0 ? OK : INVALID_VALUE;
}
#endif
API cuLaunchKernelEx(const Config *config, void *f, void **params, void **extra) {
    Function *function = f;
    unsigned cluster = 0, hash = 0;
    for (unsigned i = 0; i < config->num_attrs; i++)
        if (config->attrs[i].id == 4) cluster = config->attrs[i].value[0] * config->attrs[i].value[1] * config->attrs[i].value[2];
    for (size_t i = 0; i < function->args; i++) hash = hash * 31 + ((unsigned char *)params[0])[i];
    launched = 1;
    note("launch %s grid %u %u %u block %u %u %u smem %u cluster %u args %u extra %d", function->name, config->grid[0],
         config->grid[1], config->grid[2], config->block[0], config->block[1], config->block[2], config->smem, cluster,
         hash, extra != 0);
    return OK;
}
API cuTensorMapEncodeTiled(uint64_t *map, int type, unsigned rank, void *address, const uint64_t *dims, const uint64_t *strides,
                           const unsigned *box, const unsigned *steps, int interleave, int swizzle, int l2, int fill) {
    uint64_t words[16] = {type, rank, (uint64_t)address, dims[0], dims[1], strides[0], box[0], box[1], steps[0], steps[1], interleave, swizzle, l2, fill};
    if ((uintptr_t)map % 64) return INVALID_VALUE;
    memcpy(map, words, sizeof words);
    return OK;
}

/* The part of a profiler that NVTX calls (nvtx3/nvtxDetail/nvtxTypes.h). */
struct Callbacks { size_t size; int (*table_of)(int module, void ***table, unsigned *count); };
static int push_range(const char *name) { note("range %s", name); return 0; }
static int pop_range(void) { note("range ends"); return 0; }
API InitializeInjectionNvtx2(const void *(*export_table)(uint32_t)) {
    const struct Callbacks *callbacks = export_table(1);
    void **core, **core2;
    unsigned count;
    if (!callbacks || callbacks->size < sizeof *callbacks || export_table(2) || callbacks->table_of(0, &core, &count)) return 0;
    if (!callbacks->table_of(5, &core2, &count) || count != 16 || !core2[15] || core2[16]) return 0;
    if (!callbacks->table_of(1, &core, &count) || count != 16 || core[0]) return 0;
    *(void **)core[9] = (void *)push_range;
    *(void **)core[11] = (void *)pop_range;
    return 1;
}
