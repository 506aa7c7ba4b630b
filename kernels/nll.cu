// Adds the negative log-likelihood of a micro-batch's targets to a loss, and writes its gradient, which is a constant.
// Shapes of nll_chunks: log_prob f32 [len] -> dlog_prob f32 [len], all of one value, and partials f64 [ceil(len /
// CHUNK)]. Grid: one CTA of 256 threads per chunk of 8,192 targets.
// Shapes of nll_add: partials -> loss f64 [1]; subtracts weight x their sum. Grid: one thread.
// Bound: memory, 8 bytes per target.
// Order of summation: f64; target i of a chunk is added by thread i % 256, then one fixed tree, then the chunks in
// order.
// Reference: src/runtime/ops/nll.rs.
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace nll {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int CHUNK = 8192;

struct ChunksArgs {
    const float* log_prob;
    float* dlog_prob;
    double* partials;
    int64_t len;
    float coefficient;
    int pad;
};

struct AddArgs {
    const double* partials;
    double* loss;
    double weight;
    int64_t count;
};

struct Smem {
    isa::Shared<double> warps[WARPS];
};

}  // namespace nll

KERNEL(nll_chunks, nll::ChunksArgs, nll::THREADS, 4) {
    using namespace nll;
    auto& smem = isa::smem<Smem>();
    int64_t from = (int64_t)blockIdx.x * CHUNK, left = args.len - from;
    int count = left < CHUNK ? (int)left : CHUNK;
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) {
        sum += (double)args.log_prob[from + i];
        args.dlog_prob[from + i] = args.coefficient;
    }
    sum = reduce::warp_sum(sum);
    if (threadIdx.x % 32 == 0) smem.warps[threadIdx.x / 32] = sum;
    isa::sync_cta();
    if (threadIdx.x != 0) return;
    sum = 0.0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += smem.warps[w];
    args.partials[blockIdx.x] = sum;
}

KERNEL(nll_add, nll::AddArgs, 32, 1) {
    if (threadIdx.x != 0) return;
    double sum = 0.0;
    for (int64_t i = 0; i < args.count; i++) sum += args.partials[i];
    args.loss[0] -= sum * args.weight;
}
