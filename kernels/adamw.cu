// AdamW with decoupled decay on bf16 weights with an exact fp32 master: hi is the weight, lo its signed rest.
// w bf16, lo i16, grad, m, v f32, all [len] in one element order; clip f32 [2]: factor and flag, 0 changes nothing.
// Four elements a thread, grid ceil(len / 1024). Bound by memory: 22 bytes an element read or written, at the copy
// bandwidth.
// Reference src/ops/adamw.rs, to the bit; bench adamw.
#include "isa/isa.cuh"

namespace adamw {

// The settings of an update, as src/ops/adamw.rs works them out.
struct Factors {
    float keep, one_minus_beta1, beta2, one_minus_beta2, step_size, inv_root, eps;
};

struct Args {
    bf16* w;
    int16_t* lo;
    const float* grad;
    float* m;
    float* v;
    const float* clip;
    int64_t len;
    Factors factors;
    int pad;
};

constexpr int THREADS = 256;
constexpr int EACH = 4;

// An fp32 from its halves, see src/ops/adamw.rs `split`.
__device__ __forceinline__ float join(uint32_t hi, int lo) { return __uint_as_float((hi << 16) + (uint32_t)lo); }

// The rounded upper half; ties go away from zero, so that the rest fits 16 signed bits.
__device__ __forceinline__ uint32_t upper(float master) { return (__float_as_uint(master) + 0x8000u) >> 16; }

__device__ __forceinline__ float element(float w, float g, float& m, float& v, float clip, const Factors& f) {
    g = g * clip;
    m = fmaf(g - m, f.one_minus_beta1, m);
    v = fmaf(g * f.one_minus_beta2, g, v * f.beta2);
    float denom = fmaf(sqrtf(v), f.inv_root, f.eps);
    return (w * f.keep) - f.step_size * (m / denom);
}

// One element whose halves are the low 16 bits of hi and lo.
__device__ __forceinline__ void update(uint32_t& hi, uint32_t& lo, float g, float& m, float& v, float clip,
                                       const Factors& f) {
    float master = element(join(hi & 0xffff, (int16_t)(lo & 0xffff)), g, m, v, clip, f);
    hi = upper(master) & 0xffff;
    lo = (__float_as_uint(master) - (hi << 16)) & 0xffff;
}

}  // namespace adamw

KERNEL(adamw_bf16, adamw::Args, adamw::THREADS, 4) {
    using namespace adamw;
    if (args.clip[1] == 0.0f) return;
    float clip = args.clip[0];
    const Factors& f = args.factors;
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    if (at + EACH <= args.len) {
        uint2 hi = isa::load<uint2>(args.w + at), lo = isa::load<uint2>(args.lo + at);
        float4 g = isa::load<float4>(args.grad + at);
        float4 m = isa::load<float4>(args.m + at), v = isa::load<float4>(args.v + at);
        uint32_t h[EACH] = {hi.x, hi.x >> 16, hi.y, hi.y >> 16};
        uint32_t l[EACH] = {lo.x, lo.x >> 16, lo.y, lo.y >> 16};
        update(h[0], l[0], g.x, m.x, v.x, clip, f);
        update(h[1], l[1], g.y, m.y, v.y, clip, f);
        update(h[2], l[2], g.z, m.z, v.z, clip, f);
        update(h[3], l[3], g.w, m.w, v.w, clip, f);
        isa::store<uint2>(args.w + at, make_uint2(h[0] | h[1] << 16, h[2] | h[3] << 16));
        isa::store<uint2>(args.lo + at, make_uint2(l[0] | l[1] << 16, l[2] | l[3] << 16));
        isa::store<float4>(args.m + at, m);
        isa::store<float4>(args.v + at, v);
        return;
    }
    for (int64_t i = at; i < args.len; i++) {
        uint32_t h = args.w[i].bits, l = (uint16_t)args.lo[i];
        float m = args.m[i], v = args.v[i];
        update(h, l, args.grad[i], m, v, clip, f);
        args.w[i].bits = (uint16_t)h;
        args.lo[i] = (int16_t)l;
        args.m[i] = m;
        args.v[i] = v;
    }
}
