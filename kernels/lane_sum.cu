// Adds the gradients of several ranks to a sum in their order: sum = ((sum + lane 0) + lane 1) + ...
// Shapes: lanes fp32 [count, stride], sum fp32 [len], len <= stride.
// Grid: ceil(len / 1024). A thread handles four elements with 16-byte accesses if lanes and sum are aligned (wide),
// otherwise and at the end one by one.
// Bound: memory, 4 bytes per element of each lane and 8 of the sum, at the copy bandwidth.
// Reference: src/runtime/ops/lane_sum.rs, bitwise identical.
// Benchmark: `omr bench lane_sum`.
#include "isa/isa.cuh"

namespace lane_sum {

struct Args {
    const float* lanes;
    float* sum;
    int64_t stride;
    int64_t len;
    int count;
    int wide;
};

constexpr int THREADS = 256;
constexpr int EACH = 4;

}  // namespace lane_sum

KERNEL(lane_sum, lane_sum::Args, lane_sum::THREADS, 4) {
    int64_t at = ((int64_t)blockIdx.x * lane_sum::THREADS + threadIdx.x) * lane_sum::EACH;
    if (args.wide && at + lane_sum::EACH <= args.len) {
        float4 sum = isa::load<float4>(args.sum + at);
#pragma unroll 4
        for (int lane = 0; lane < args.count; lane++) {
            float4 x = isa::load<float4>(args.lanes + lane * args.stride + at);
            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        isa::store<float4>(args.sum + at, sum);
        return;
    }
    for (int64_t i = at; i < at + lane_sum::EACH && i < args.len; i++) {
        float sum = args.sum[i];
        for (int lane = 0; lane < args.count; lane++) sum += args.lanes[lane * args.stride + i];
        args.sum[i] = sum;
    }
}
