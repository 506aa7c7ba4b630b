// Determines how matrix instructions add: compares bits of wgmma (m64nNk16, bf16, f32 sums, operands from shared
// memory) for N of 8 to 256 and for swapped operands, with mma.sync and with a single chain of fused multiply-adds.
//
// usage: sums [--dry-run]
// Prints one JSON line per comparison. Build: nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a sums.cu -o sums
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
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

constexpr int M = 64, STEP = 16, MAX_N = 256;

// Returns a matrix descriptor without swizzle. The blocks are 8 x 8 elements (128 bytes). Neighbouring blocks are
// `k_bytes` apart along k and `row_bytes` apart along rows (PTX ISA, matrix descriptor: for K-major operands the
// leading offset is along k and the stride offset along rows).
__device__ uint64_t descriptor(const void* p, uint32_t k_bytes, uint32_t row_bytes) {
    uint32_t address = uint32_t(__cvta_generic_to_shared(p));
    return uint64_t((address & 0x3ffff) >> 4) | uint64_t(k_bytes >> 4) << 16 | uint64_t(row_bytes >> 4) << 32;
}

template <int N>
struct Product;

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])

template <>
struct Product<8> {
    static __device__ __forceinline__ void run(float (&d)[4], uint64_t a, uint64_t b) {
        asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                     : D4(0) : "l"(a), "l"(b));
    }
};
template <>
struct Product<16> {
    static __device__ __forceinline__ void run(float (&d)[8], uint64_t a, uint64_t b) {
        asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, 1, 1, 1, 0, 0;"
                     : D4(0), D4(4) : "l"(a), "l"(b));
    }
};
template <>
struct Product<64> {
    static __device__ __forceinline__ void run(float (&d)[32], uint64_t a, uint64_t b) {
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"
            : D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28) : "l"(a), "l"(b));
    }
};
template <>
struct Product<256> {
    static __device__ __forceinline__ void run(float (&d)[128], uint64_t a, uint64_t b) {
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,"
            "%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,"
            "%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,"
            "%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,"
            "%119,%120,%121,%122,%123,%124,%125,%126,%127}, %128, %129, 1, 1, 1, 0, 0;"
            : D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28), D4(32), D4(36), D4(40), D4(44), D4(48), D4(52),
              D4(56), D4(60), D4(64), D4(68), D4(72), D4(76), D4(80), D4(84), D4(88), D4(92), D4(96), D4(100), D4(104),
              D4(108), D4(112), D4(116), D4(120), D4(124)
            : "l"(a), "l"(b));
    }
};

// Computes d [64][N] = a [64][k] b [N][k]^T in steps of 16 along k, with 128 threads.
template <int N>
__global__ void __launch_bounds__(128, 1) by_wgmma(const uint16_t* a, const uint16_t* b, float* d, int k) {
    __shared__ __align__(1024) uint16_t tile_a[M * STEP];
    __shared__ __align__(1024) uint16_t tile_b[N * STEP];
    float sums[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) sums[i] = 0.0f;
    for (int step = 0; step < k; step += STEP) {
        __syncthreads();
        // Element (row, column) belongs to block (row / 8, column / 8) of 64 elements. The two blocks of the same rows
        // are adjacent.
        for (int i = threadIdx.x; i < M * STEP; i += 128) {
            int row = i / STEP, column = i % STEP;
            tile_a[row / 8 * 128 + column / 8 * 64 + row % 8 * 8 + column % 8] = a[row * k + step + column];
        }
        for (int i = threadIdx.x; i < N * STEP; i += 128) {
            int row = i / STEP, column = i % STEP;
            tile_b[row / 8 * 128 + column / 8 * 64 + row % 8 * 8 + column % 8] = b[row * k + step + column];
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        Product<N>::run(sums, descriptor(tile_a, 128, 256), descriptor(tile_b, 128, 256));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        int row = warp * 16 + lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        d[row * N + column] = sums[i];
    }
}

// Computes the same with mma.sync m16n8k16. Each warp computes a tile of 16 x 8.
__global__ void by_mma(const uint16_t* a, const uint16_t* b, float* d, int n, int k) {
    int lane = threadIdx.x, row = blockIdx.x * 16 + lane / 4, column = blockIdx.y * 8 + lane / 4;
    float s[4] = {0, 0, 0, 0};
    auto pair = [&](const uint16_t* m, int r, int c) { return *reinterpret_cast<const uint32_t*>(m + r * k + c); };
    for (int step = 0; step < k; step += STEP) {
        int c = step + 2 * (lane % 4);
        uint32_t a0 = pair(a, row, c), a1 = pair(a, row + 8, c), a2 = pair(a, row, c + 8), a3 = pair(a, row + 8, c + 8);
        uint32_t b0 = pair(b, column, c), b1 = pair(b, column, c + 8);
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
    int out = blockIdx.y * 8 + lane % 4 * 2;
    d[row * n + out] = s[0];
    d[row * n + out + 1] = s[1];
    d[(row + 8) * n + out] = s[2];
    d[(row + 8) * n + out + 1] = s[3];
}

static uint64_t state = 1;
static double uniform() {
    state += 0x9E3779B97F4A7C15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}
static uint16_t bf16(double x) {
    float f = float(x);
    uint32_t u;
    memcpy(&u, &f, 4);
    return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
static float value(uint16_t bits) {
    uint32_t u = uint32_t(bits) << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static uint16_t normal(double spread) {
    double r = sqrt(-2.0 * log(1.0 - uniform())) * cos(6.283185307179586 * uniform());
    return bf16(r * exp2(spread * uniform()));
}

template <class T>
T* device(size_t count) {
    T* p;
    CHECK(cudaMalloc(&p, count * sizeof(T)));
    return p;
}

struct Run {
    int k;
    std::vector<uint16_t> a, b;
    uint16_t *da, *db;

    Run(int k, double spread) : k(k), a(MAX_N * k), b(MAX_N * k) {
        for (auto& x : a) x = normal(spread);
        for (auto& x : b) x = normal(spread);
        da = device<uint16_t>(a.size());
        db = device<uint16_t>(b.size());
        CHECK(cudaMemcpy(da, a.data(), a.size() * 2, cudaMemcpyHostToDevice));
        CHECK(cudaMemcpy(db, b.data(), b.size() * 2, cudaMemcpyHostToDevice));
    }

    template <int N>
    std::vector<float> wgmma(const uint16_t* x, const uint16_t* y) {
        float* d = device<float>(M * N);
        by_wgmma<N><<<1, 128>>>(x, y, d, k);
        return back(d, M * N);
    }

    std::vector<float> mma() {
        float* d = device<float>(M * MAX_N);
        by_mma<<<dim3(M / 16, MAX_N / 8), 32>>>(da, db, d, MAX_N, k);
        return back(d, M * MAX_N);
    }

    std::vector<float> back(float* d, size_t count) {
        CHECK(cudaGetLastError());
        std::vector<float> out(count);
        CHECK(cudaMemcpy(out.data(), d, count * 4, cudaMemcpyDeviceToHost));
        CHECK(cudaFree(d));
        return out;
    }

    // Counts the elements of `found` [64][n] that are bitwise equal to the first n columns of `want` [64][MAX_N].
    void compare(const char* what, const std::vector<float>& found, int n, const std::vector<float>& want) {
        int equal = 0;
        double largest = 0;
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < n; j++) {
                float x = found[i * n + j], y = want[i * MAX_N + j];
                equal += memcmp(&x, &y, 4) == 0;
                largest = fmax(largest, fabs(double(x) - double(y)) / fmax(fabs(double(y)), 1e-30));
            }
        }
        printf("{\"name\": \"%s\", \"shape\": \"k %d\", \"equal\": %d, \"of\": %d, \"largest_relative\": %.3e}\n", what, k,
               equal, M * n, largest);
    }

    void ask() {
        auto want = wgmma<256>(da, db);
        compare("wgmma: N 64 beside N 256", wgmma<64>(da, db), 64, want);
        compare("wgmma: N 16 beside N 256", wgmma<16>(da, db), 16, want);
        compare("wgmma: N 8 beside N 256", wgmma<8>(da, db), 8, want);
        compare("wgmma: the same again", wgmma<256>(da, db), 256, want);
        // (b a^T)^T on the first 64 rows of both operands.
        auto swapped = wgmma<64>(db, da);
        std::vector<float> turned(M * 64);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < 64; j++) turned[i * 64 + j] = swapped[j * 64 + i];
        }
        compare("wgmma: operands swapped", turned, 64, want);
        auto by_mma = mma();
        std::vector<float> full(by_mma);
        compare("mma.sync beside wgmma", full, 256, want);
        std::vector<float> chain(M * MAX_N), ascending(M * MAX_N);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < MAX_N; j++) {
                float s = 0;
                double exact = 0;
                for (int c = 0; c < k; c++) {
                    s = fmaf(value(a[i * k + c]), value(b[j * k + c]), s);
                    exact += double(value(a[i * k + c])) * double(value(b[j * k + c]));
                }
                chain[i * MAX_N + j] = s;
                ascending[i * MAX_N + j] = float(exact);
            }
        }
        compare("wgmma beside a chain of fused multiply-adds", want, 256, chain);
        compare("mma.sync beside a chain of fused multiply-adds", full, 256, chain);
        compare("wgmma beside the exact sum, rounded once", want, 256, ascending);
    }
};

int main(int count, char** arguments) {
    if (count > 1 && strcmp(arguments[1], "--dry-run") == 0) {
        puts("{\"name\": \"sums\", \"skipped\": \"dry run\"}");
        return 0;
    }
    for (int k : {16, 64, 1024}) Run(k, 0).ask();
    Run(64, 12).ask();
    // Measures what is lost next to a larger term: 2^e plus 15 ones in one instruction of depth 16.
    for (int e = 20; e < 31; e++) {
        Run run(16, 0);
        std::vector<uint16_t> a(MAX_N * 16, bf16(1.0)), b(MAX_N * 16, bf16(1.0));
        for (int i = 0; i < MAX_N; i++) a[i * 16] = bf16(exp2(e));
        CHECK(cudaMemcpy(run.da, a.data(), a.size() * 2, cudaMemcpyHostToDevice));
        CHECK(cudaMemcpy(run.db, b.data(), b.size() * 2, cudaMemcpyHostToDevice));
        printf("{\"name\": \"2^%d and 15 ones\", \"shape\": \"one instruction\", \"wgmma\": %.1f, \"mma\": %.1f}\n", e,
               double(run.wgmma<8>(run.da, run.db)[0]) - exp2(e), double(run.mma()[0]) - exp2(e));
    }
    return 0;
}
