// Computes the norm over all gradients, the clip factor, and a flag that is 1 if all gradients are finite. The results
// stay on the device. Shapes of grad_norm_squares: x f32 [len] -> partials f64 [ceil(len / CHUNK)]. Grid: one CTA of
// 256 threads per chunk of 65,536 elements. Shapes of grad_norm_finish: partials [count], guard f64 [guards] -> out f32
// [3]: norm; clip factor min(1, max_norm / (norm + 1e-6)), or 0 if the flag is 0; flag, 1 if norm and guards are
// finite. Grid: one CTA.
// Bound: memory, 4 bytes per element read, at the copy bandwidth. Squares are summed in f64, in one fixed order.
// Reference: src/runtime/ops/grad_norm.rs.
// Benchmark: `omr bench grad_norm`.
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace grad_norm {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int CHUNK = 65536;

struct SquaresArgs {
    const float* x;
    double* partials;
    int64_t len;
};

struct FinishArgs {
    const double* partials;
    const double* guard;
    float* out;
    int64_t count;
    float max_norm;
    int guards;
};

struct Smem {
    isa::Shared<double> warps[WARPS];
};

// Sums over a CTA; thread 0 holds the result.
__device__ __forceinline__ double cta_sum(double v) {
    auto& smem = isa::smem<Smem>();
    v = reduce::warp_sum(v);
    if (threadIdx.x % 32 == 0) smem.warps[threadIdx.x / 32] = v;
    isa::sync_cta();
    double sum = 0.0;
    if (threadIdx.x == 0) {
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += smem.warps[w];
    }
    return sum;
}

__device__ __forceinline__ double square(float x) { return (double)x * (double)x; }

}  // namespace grad_norm

KERNEL(grad_norm_squares, grad_norm::SquaresArgs, grad_norm::THREADS, 4) {
    using namespace grad_norm;
    int64_t from = (int64_t)blockIdx.x * CHUNK, left = args.len - from;
    int count = left < CHUNK ? (int)left : CHUNK;
    const float* x = args.x + from;
    double sum = 0.0;
    for (int i = threadIdx.x * 4; i < count; i += THREADS * 4) {
        if (i + 4 <= count) {
            float4 v = isa::load<float4>(x + i);
            sum += square(v.x) + square(v.y) + square(v.z) + square(v.w);
        } else {
            for (int j = i; j < count; j++) sum += square(x[j]);
        }
    }
    sum = cta_sum(sum);
    if (threadIdx.x == 0) args.partials[blockIdx.x] = sum;
}

KERNEL(grad_norm_finish, grad_norm::FinishArgs, grad_norm::THREADS, 1) {
    using namespace grad_norm;
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < args.count; i += THREADS) sum += args.partials[i];
    sum = cta_sum(sum);
    if (threadIdx.x != 0) return;
    float norm = (float)sqrt(sum);
    // Not finite means infinite or NaN.
    bool finite = fabsf(norm) < INFINITY;
    for (int i = 0; i < args.guards; i++) finite = finite && fabs(args.guard[i]) < INFINITY;
    float factor = args.max_norm / (norm + 1e-6f);
    args.out[0] = norm;
    args.out[1] = finite ? (factor < 1.0f ? factor : 1.0f) : 0.0f;
    args.out[2] = finite ? 1.0f : 0.0f;
}
