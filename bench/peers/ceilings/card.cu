// Measures upper bounds of a GPU without libraries: copy bandwidth, launch gaps in a graph, number of resident
// clusters, and the clock under load.
//
// usage: ./card [--dry-run]
// Prints one JSON line per result. Build: nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a card.cu -o ./card
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        cudaError_t code = (call);                                                                   \
        if (code != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(code)); \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

// Each thread copies 16 bytes per turn, coalesced, with four loads in flight.
__global__ void copy(const uint4* __restrict__ from, uint4* __restrict__ to, size_t count) {
    size_t stride = size_t(gridDim.x) * blockDim.x;
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < count; i += 4 * stride) {
        uint4 a = from[i], b = from[i + stride], c = from[i + 2 * stride], d = from[i + 3 * stride];
        to[i] = a;
        to[i + stride] = b;
        to[i + 2 * stride] = c;
        to[i + 3 * stride] = d;
    }
    for (; i < count; i += stride) to[i] = from[i];
}

__global__ void reading(const uint4* __restrict__ from, uint32_t* to, size_t count) {
    size_t stride = size_t(gridDim.x) * blockDim.x;
    uint32_t sum = 0;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
        uint4 v = from[i];
        sum += v.x ^ v.y ^ v.z ^ v.w;
    }
    if (sum == 0x12345678u) *to = sum;
}

__global__ void scramble(uint32_t* p, size_t count) {
    size_t stride = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        p[i] = uint32_t(z >> 32);
    }
}

__global__ void nothing() {}

// Measures clock cycles and nanoseconds during a few milliseconds of fused multiply-adds.
__global__ void clocked(float* out, long long* cycles, long long* nanoseconds, int rounds) {
    long long t0, t1;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t0));
    long long c0 = clock64();
    float x = threadIdx.x;
    for (int i = 0; i < rounds; i++) x = fmaf(x, 0.999f, 0.001f);
    long long c1 = clock64();
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t1));
    out[blockIdx.x * blockDim.x + threadIdx.x] = x;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *cycles = c1 - c0;
        *nanoseconds = t1 - t0;
    }
}

__global__ void clustered() {
    extern __shared__ char memory[];
    if (threadIdx.x == 0) memory[0] = 0;
}

template <class F>
float milliseconds(F work) {
    cudaEvent_t before, after;
    CHECK(cudaEventCreate(&before));
    CHECK(cudaEventCreate(&after));
    CHECK(cudaEventRecord(before));
    work();
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(after));
    CHECK(cudaEventSynchronize(after));
    float ms;
    CHECK(cudaEventElapsedTime(&ms, before, after));
    CHECK(cudaEventDestroy(before));
    CHECK(cudaEventDestroy(after));
    return ms;
}

template <class F>
float best(int times, F work) {
    work();
    float least = 1e30f;
    for (int i = 0; i < times; i++) least = fminf(least, milliseconds(work));
    return least;
}

int main(int count, char** arguments) {
    if (count > 1 && strcmp(arguments[1], "--dry-run") == 0) {
        puts("{\"name\": \"card\", \"skipped\": \"dry run\"}");
        return 0;
    }
    cudaDeviceProp gpu;
    CHECK(cudaGetDeviceProperties(&gpu, 0));
    printf("{\"name\": \"card\", \"shape\": \"%s\", \"multiprocessors\": %d, \"l2_bytes\": %d, \"shared_per_block\": %zu}\n",
           gpu.name, gpu.multiProcessorCount, gpu.l2CacheSize, gpu.sharedMemPerBlockOptin);

    size_t bytes = size_t(4) << 30;
    uint4 *from, *to;
    CHECK(cudaMalloc(&from, bytes));
    CHECK(cudaMalloc(&to, bytes));
    scramble<<<gpu.multiProcessorCount * 8, 256>>>(reinterpret_cast<uint32_t*>(from), bytes / 4);
    int ctas = gpu.multiProcessorCount * 16;
    float ms = best(10, [&] { copy<<<ctas, 512>>>(from, to, bytes / 16); });
    printf("{\"name\": \"copy by 16 bytes a thread\", \"shape\": \"4 GiB\", \"ours_ms\": %.4f, \"bytes\": %zu, \"data\": \"random\"}\n",
           ms, 2 * bytes);
    ms = best(10, [&] { CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice)); });
    printf("{\"name\": \"cudaMemcpy on the device\", \"shape\": \"4 GiB\", \"ours_ms\": %.4f, \"bytes\": %zu, \"data\": \"random\"}\n",
           ms, 2 * bytes);
    ms = best(10, [&] { reading<<<ctas, 512>>>(from, reinterpret_cast<uint32_t*>(to), bytes / 16); });
    printf("{\"name\": \"read alone\", \"shape\": \"4 GiB\", \"ours_ms\": %.4f, \"bytes\": %zu, \"data\": \"random\"}\n", ms,
           bytes);
    ms = best(10, [&] { CHECK(cudaMemsetAsync(to, 0, bytes)); });
    printf("{\"name\": \"cudaMemset\", \"shape\": \"4 GiB\", \"ours_ms\": %.4f, \"bytes\": %zu, \"data\": \"zeros\"}\n", ms, bytes);

    // Empty kernels, launched one after another and as a graph, measure the cost of a launch without work.
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    const int launches = 1000;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; i++) nothing<<<1, 32, 0, stream>>>();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    ms = best(10, [&] {
        for (int i = 0; i < launches; i++) nothing<<<1, 32>>>();
    });
    printf("{\"name\": \"launch gap\", \"shape\": \"stream, empty kernels\", \"ours_ms\": %.6f}\n", ms / launches);
    cudaEvent_t before, after;
    CHECK(cudaEventCreate(&before));
    CHECK(cudaEventCreate(&after));
    float least = 1e30f;
    for (int i = 0; i < 10; i++) {
        CHECK(cudaEventRecord(before, stream));
        CHECK(cudaGraphLaunch(ready, stream));
        CHECK(cudaEventRecord(after, stream));
        CHECK(cudaEventSynchronize(after));
        CHECK(cudaEventElapsedTime(&ms, before, after));
        least = fminf(least, ms);
    }
    printf("{\"name\": \"launch gap\", \"shape\": \"graph, empty kernels\", \"ours_ms\": %.6f}\n", least / launches);

    // The same with programmatic dependent launch, captured in the same way.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(1);
    config.blockDim = dim3(32);
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = 1;
    for (int i = 0; i < launches; i++) CHECK(cudaLaunchKernelEx(&config, nothing));
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    least = 1e30f;
    for (int i = 0; i < 10; i++) {
        CHECK(cudaEventRecord(before, stream));
        CHECK(cudaGraphLaunch(ready, stream));
        CHECK(cudaEventRecord(after, stream));
        CHECK(cudaEventSynchronize(after));
        CHECK(cudaEventElapsedTime(&ms, before, after));
        least = fminf(least, ms);
    }
    printf("{\"name\": \"launch gap\", \"shape\": \"graph, programmatic dependent launches\", \"ours_ms\": %.6f}\n",
           least / launches);

    // Number of clusters that are resident at the same time, by cluster size and shared memory per CTA.
    for (int size : {1, 2, 4, 8}) {
        for (int kib : {48, 113, 227}) {
            CHECK(cudaFuncSetAttribute(clustered, cudaFuncAttributeMaxDynamicSharedMemorySize, kib * 1024));
            cudaLaunchAttribute cluster = {};
            cluster.id = cudaLaunchAttributeClusterDimension;
            cluster.val.clusterDim.x = size;
            cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
            cudaLaunchConfig_t shape = {};
            shape.gridDim = dim3(gpu.multiProcessorCount * 8 / size * size);
            shape.blockDim = dim3(384);
            shape.dynamicSmemBytes = kib * 1024;
            shape.attrs = &cluster;
            shape.numAttrs = 1;
            int clusters = 0;
            CHECK(cudaOccupancyMaxActiveClusters(&clusters, clustered, &shape));
            printf("{\"name\": \"clusters that fit\", \"shape\": \"%d CTAs of 384 threads and %d KiB\", \"clusters\": %d}\n",
                   size, kib, clusters);
        }
    }

    // Measures the clock in five turns of arithmetic.
    float* out;
    long long *cycles, *nanoseconds;
    CHECK(cudaMalloc(&out, size_t(gpu.multiProcessorCount) * 2 * 1024 * 4));
    CHECK(cudaMalloc(&cycles, 8));
    CHECK(cudaMalloc(&nanoseconds, 8));
    for (int turn = 0; turn < 5; turn++) {
        clocked<<<gpu.multiProcessorCount * 2, 1024>>>(out, cycles, nanoseconds, 2000000);
        long long c, ns;
        CHECK(cudaMemcpy(&c, cycles, 8, cudaMemcpyDeviceToHost));
        CHECK(cudaMemcpy(&ns, nanoseconds, 8, cudaMemcpyDeviceToHost));
        printf("{\"name\": \"clock\", \"shape\": \"multiply-adds, turn %d\", \"clock_mhz\": %.0f}\n", turn,
               1e3 * double(c) / double(ns));
    }
    return 0;
}
