// The sum of lanes in their order: out = ((lane 0 + lane 1) + lane 2) + ...
// lanes fp32 [count, stride], out fp32 [len], len <= stride; out may lie where lane 0 begins.
// Four elements a thread, by 16-byte accesses where lanes and out are on such boundaries (wide), else and at the end one by
// one; grid ceil(len / 1024). Bound by memory: 4 bytes an element of each lane and of the sum, at the copy bandwidth.
// Reference src/ops/lane_sum.rs, to the bit; bench lane_sum.
#include "isa/isa.cuh"

namespace lane_sum {

struct Args {
    const float* lanes;
    float* out;
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
        float4 sum = isa::load<float4>(args.lanes + at);
#pragma unroll 4
        for (int lane = 1; lane < args.count; lane++) {
            float4 x = isa::load<float4>(args.lanes + lane * args.stride + at);
            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        isa::store<float4>(args.out + at, sum);
        return;
    }
    for (int64_t i = at; i < at + lane_sum::EACH && i < args.len; i++) {
        float sum = args.lanes[i];
        for (int lane = 1; lane < args.count; lane++) sum += args.lanes[lane * args.stride + i];
        args.out[i] = sum;
    }
}
