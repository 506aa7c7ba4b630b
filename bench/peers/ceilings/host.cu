// Measures the link between host and GPU: copies in each direction and in both at once, and how long memory of the host takes to
// be pinned by several threads.
//
// usage: ./host [--dry-run]
// Prints one JSON line per result, with GB/s. Build: nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a host.cu -o ./host
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <cuda_runtime.h>
#include <sys/mman.h>

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        cudaError_t code = (call);                                                                   \
        if (code != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(code)); \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

constexpr size_t GIB = size_t(1) << 30;
constexpr size_t PINNED = 4 * GIB;
constexpr int COPIES = 5;

static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static void report(const char* name, const char* shape, double spent, size_t bytes, const char* more = "") {
    printf("{\"name\": \"%s\", \"shape\": \"%s\", \"ours_ms\": %.3f, \"bytes\": %zu, \"gb_s\": %.2f%s}\n", name, shape, 1e3 * spent,
           bytes, bytes / spent / 1e9, more);
    fflush(stdout);
}

// Returns the seconds of the fastest of some copies that `work` queues.
static double fastest(const std::function<void()>& work) {
    double least = 1e30;
    for (int i = 0; i < COPIES; i++) {
        double begun = seconds();
        work();
        CHECK(cudaDeviceSynchronize());
        least = std::min(least, seconds() - begun);
    }
    return least;
}

static void copies() {
    char *to_gpu, *from_gpu, *device;
    CHECK(cudaMallocHost(&to_gpu, GIB));
    CHECK(cudaMallocHost(&from_gpu, GIB));
    CHECK(cudaMalloc(&device, 2 * GIB));
    memset(to_gpu, 1, GIB);
    cudaStream_t up, down;
    CHECK(cudaStreamCreate(&up));
    CHECK(cudaStreamCreate(&down));
    auto upload = [&] { CHECK(cudaMemcpyAsync(device, to_gpu, GIB, cudaMemcpyHostToDevice, up)); };
    auto download = [&] { CHECK(cudaMemcpyAsync(from_gpu, device + GIB, GIB, cudaMemcpyDeviceToHost, down)); };
    report("PCIe, host to device", "1 GiB, pinned", fastest(upload), GIB);
    report("PCIe, device to host", "1 GiB, pinned", fastest(download), GIB);
    report("PCIe, both at once", "1 GiB each way, pinned", fastest([&] { upload(), download(); }), 2 * GIB);
    CHECK(cudaFreeHost(to_gpu));
    CHECK(cudaFreeHost(from_gpu));
    CHECK(cudaFree(device));
}

// Runs `work` for equal parts of `memory` on several threads, and returns the seconds of all.
static double divided(char* memory, int threads, const std::function<void(char*, size_t)>& work) {
    double begun = seconds();
    std::vector<std::thread> all;
    for (int i = 0; i < threads; i++) all.emplace_back(work, memory + i * (PINNED / threads), PINNED / threads);
    for (auto& one : all) one.join();
    return seconds() - begun;
}

// Measures fresh pages that `threads` threads write and then pin. The first write of a page allocates it.
static void pinning(int threads) {
    void* memory = mmap(nullptr, PINNED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    char* pages = static_cast<char*>(memory);
    double written = divided(pages, threads, [](char* part, size_t bytes) { memset(part, 0, bytes); });
    double pinned = divided(pages, threads, [](char* part, size_t bytes) {
        CHECK(cudaSetDevice(0));
        CHECK(cudaHostRegister(part, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
    });
    char shape[64], more[128];
    snprintf(shape, sizeof shape, "4 GiB, %d threads", threads);
    double gib = double(PINNED) / GIB;
    snprintf(more, sizeof more, ", \"seconds_per_gib\": %.4f, \"to_write\": %.4f, \"to_pin\": %.4f", (written + pinned) / gib, written / gib,
             pinned / gib);
    report("pinning", shape, written + pinned, PINNED, more);
    for (int i = 0; i < threads; i++) CHECK(cudaHostUnregister(pages + i * (PINNED / threads)));
    munmap(memory, PINNED);
}

// The same by the call that allocates pinned memory, which one thread makes.
static void allocation() {
    void* memory;
    double begun = seconds();
    CHECK(cudaHostAlloc(&memory, PINNED, cudaHostAllocPortable | cudaHostAllocMapped));
    double spent = seconds() - begun;
    char more[64];
    snprintf(more, sizeof more, ", \"seconds_per_gib\": %.4f", spent * GIB / PINNED);
    report("pinning", "4 GiB, cudaHostAlloc", spent, PINNED, more);
    CHECK(cudaFreeHost(memory));
}

int main(int count, char** arguments) {
    if (count > 1 && strcmp(arguments[1], "--dry-run") == 0) {
        puts("{\"name\": \"host\", \"skipped\": \"dry run\"}");
        return 0;
    }
    CHECK(cudaFree(nullptr));
    copies();
    for (int threads : {16, 4, 1}) pinning(threads);
    allocation();
    return 0;
}
