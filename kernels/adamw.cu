// AdamW with decoupled weight decay.
// Weights: bf16 `hi` of an exact fp32 master plus its signed rest `lo`; or (_rounded) only bf16, rounded
// stochastically.
// Moments: fp32, bf16, or 8-bit codes with one scale per block of 256 elements.
// Shapes: w bf16, lo i16, grad f32, m and v f32, bf16 or u8, all [len] in the same element order, starting at element
// `first` of a parameter; m_scales, v_scales f32 [ceil(len / 256)]; clip f32 [2]: factor and flag; flag 0 skips the
// update.
// Grid: ceil(len / 2048). One warp per block of 256 elements, two quads per lane.
// Bound: memory. Per element it reads 4 bytes of gradient, and reads and writes 4 bytes of weight and rest, and 8, 4 or
// 2 bytes of moments.
// Reference: src/runtime/ops/adamw/mod.rs, bitwise identical.
// Benchmark: `omr bench adamw`.
#include "common/code8.cuh"
#include "common/master.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace adamw {

// Settings of an update, as src/runtime/ops/adamw/mod.rs computes them.
struct Factors {
    float keep, one_minus_beta1, beta2, one_minus_beta2, step_size, inv_root, eps;
};

struct Args {
    bf16* w;
    int16_t* lo;
    const float* grad;
    void* m;
    void* v;
    float* m_scales;
    float* v_scales;
    const float* clip;
    int64_t len;
    int64_t first;
    Factors factors;
    uint32_t key[2];
    uint32_t param;
};

constexpr int THREADS = 256;
constexpr int EACH = 4;
constexpr int QUADS = code8::BLOCK / (32 * EACH);

// Last word of the Philox counter of a random word. It states what the random word rounds: a second moment or a weight.
constexpr uint32_t SECOND_MOMENT = 0, WEIGHT = 1;

// Four elements of weight and moments.
struct Quad {
    float w[EACH], m[EACH], v[EACH];
};

// Four elements at p, of which `count` exist; the others are zero.
template <class T>
struct Four {
    T v[EACH];
};

__device__ __forceinline__ Four<float> read(const float* p, int count) {
    if (count == EACH) {
        float4 f = isa::load<float4>(p);
        return {{f.x, f.y, f.z, f.w}};
    }
    Four<float> out = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) out.v[i] = p[i];
    }
    return out;
}

__device__ __forceinline__ void write(float* p, const float (&v)[EACH], int count) {
    if (count == EACH) {
        isa::store<float4>(p, make_float4(v[0], v[1], v[2], v[3]));
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) p[i] = v[i];
    }
}

// Reads 16-bit values into the low bits of words.
template <class T>
__device__ __forceinline__ Four<uint32_t> read_halves(const T* p, int count) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(p);
    if (count == EACH) {
        uint2 h = isa::load<uint2>(halves);
        return {{h.x & 0xffffu, h.x >> 16, h.y & 0xffffu, h.y >> 16}};
    }
    Four<uint32_t> out = {{0, 0, 0, 0}};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) out.v[i] = halves[i];
    }
    return out;
}

template <class T>
__device__ __forceinline__ void write_halves(T* p, const uint32_t (&v)[EACH], int count) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(p);
    if (count == EACH) {
        isa::store<uint2>(halves, make_uint2(v[0] | v[1] << 16, v[2] | v[3] << 16));
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) halves[i] = (uint16_t)v[i];
    }
}

// Reads bytes into the low bits of words.
__device__ __forceinline__ Four<uint32_t> read_bytes(const uint8_t* p, int count) {
    if (count == EACH) {
        uint32_t b = isa::load<uint32_t>(p);
        return {{b & 0xffu, b >> 8 & 0xffu, b >> 16 & 0xffu, b >> 24}};
    }
    Four<uint32_t> out = {{0, 0, 0, 0}};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) out.v[i] = p[i];
    }
    return out;
}

__device__ __forceinline__ void write_bytes(uint8_t* p, const uint32_t (&v)[EACH], int count) {
    if (count == EACH) {
        isa::store<uint32_t>(p, v[0] | v[1] << 8 | v[2] << 16 | v[3] << 24);
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < count) p[i] = (uint8_t)v[i];
    }
}

// Returns the random words of the four elements from `at` on. The counter uses their index in the complete parameter,
// `first` + `at`.
__device__ __forceinline__ Four<uint32_t> random(const Args& args, uint32_t what, int64_t at) {
    // A parameter has fewer than 2^31 elements. The second word of the counter, for indices past 2^34, is therefore
    // zero.
    uint32_t group = (uint32_t)((args.first + at) / EACH);
    philox::Words words = philox::philox4x32_10(args.key[0], args.key[1], group, 0, args.param, what);
    return {{words.x, words.y, words.z, words.w}};
}

__device__ __forceinline__ float element(float w, float g, float& m, float& v, float clip, const Factors& f) {
    g = g * clip;
    m = fmaf(g - m, f.one_minus_beta1, m);
    v = fmaf(g * f.one_minus_beta2, g, v * f.beta2);
    float denom = fmaf(sqrtf(v), f.inv_root, f.eps);
    return (w * f.keep) - f.step_size * (m / denom);
}

// Weights with an exact fp32 master: bf16 and its rest.
struct Split {
    __device__ __forceinline__ static void read(const Args& args, int64_t at, int count, float (&w)[EACH]) {
        Four<uint32_t> hi = read_halves(args.w + at, count), lo = read_halves(args.lo + at, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) w[i] = master::join(hi.v[i], lo.v[i]);
    }

    __device__ __forceinline__ static void write(const Args& args, int64_t at, int count, const float (&w)[EACH]) {
        uint32_t hi[EACH], lo[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            hi[i] = master::upper(w[i]) & 0xffffu;
            lo[i] = (__float_as_uint(w[i]) - (hi[i] << 16)) & 0xffffu;
        }
        write_halves(args.w + at, hi, count);
        write_halves(args.lo + at, lo, count);
    }
};

// Weights in bf16 only.
struct Rounded {
    __device__ __forceinline__ static void read(const Args& args, int64_t at, int count, float (&w)[EACH]) {
        Four<uint32_t> bits = read_halves(args.w + at, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) w[i] = __uint_as_float(bits.v[i] << 16);
    }

    __device__ __forceinline__ static void write(const Args& args, int64_t at, int count, const float (&w)[EACH]) {
        Four<uint32_t> words = random(args, WEIGHT, at);
        uint32_t bits[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) bits[i] = code8::stochastic(w[i], words.v[i]);
        write_halves(args.w + at, bits, count);
    }
};

// Moments in fp32.
struct Float {
    __device__ __forceinline__ static void read(const Args& args, int64_t, int64_t at, int count, Quad& q) {
        Four<float> m = adamw::read((const float*)args.m + at, count), v = adamw::read((const float*)args.v + at, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) q.m[i] = m.v[i], q.v[i] = v.v[i];
    }

    __device__ __forceinline__ static void write(const Args& args, int64_t, const int64_t (&at)[QUADS],
                                                 const int (&count)[QUADS], const Quad (&q)[QUADS]) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            adamw::write((float*)args.m + at[i], q[i].m, count[i]);
            adamw::write((float*)args.v + at[i], q[i].v, count[i]);
        }
    }
};

// Moments in bf16.
struct Short {
    __device__ __forceinline__ static void read(const Args& args, int64_t, int64_t at, int count, Quad& q) {
        Four<uint32_t> m = read_halves((const bf16*)args.m + at, count), v = read_halves((const bf16*)args.v + at, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) q.m[i] = __uint_as_float(m.v[i] << 16), q.v[i] = __uint_as_float(v.v[i] << 16);
    }

    __device__ __forceinline__ static void write(const Args& args, int64_t, const int64_t (&at)[QUADS],
                                                 const int (&count)[QUADS], const Quad (&q)[QUADS]) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            Four<uint32_t> words = random(args, SECOND_MOMENT, at[i]);
            uint32_t m[EACH], v[EACH];
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                m[j] = to_bf16(q[i].m[j]).bits;
                v[j] = code8::stochastic_above_zero(q[i].v[j], words.v[j]);
            }
            write_halves((bf16*)args.m + at[i], m, count[i]);
            write_halves((bf16*)args.v + at[i], v, count[i]);
        }
    }
};

// Moments in 8 bits. The block of the warp has one scale for m and one for v.
struct Code8 {
    __device__ __forceinline__ static void read(const Args& args, int64_t block, int64_t at, int count, Quad& q) {
        float m_scale = args.m_scales[block], v_scale = args.v_scales[block];
        Four<uint32_t> m = read_bytes((const uint8_t*)args.m + at, count);
        Four<uint32_t> v = read_bytes((const uint8_t*)args.v + at, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            q.m[i] = code8::of_signed(m.v[i], m_scale);
            q.v[i] = code8::of_unsigned(v.v[i], v_scale);
        }
    }

    __device__ __forceinline__ static void write(const Args& args, int64_t block, const int64_t (&at)[QUADS],
                                                 const int (&count)[QUADS], const Quad (&q)[QUADS]) {
        // Elements past the end are zero, so they do not affect a maximum.
        float m_most = 0.0f, v_most = 0.0f;
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                m_most = reduce::larger(m_most, fabsf(q[i].m[j]));
                v_most = reduce::larger(v_most, fabsf(q[i].v[j]));
            }
        }
        float m_scale = code8::scale<7>(reduce::warp_max(m_most)), v_scale = code8::scale<8>(reduce::warp_max(v_most));
        if (threadIdx.x % 32 == 0) {
            args.m_scales[block] = m_scale;
            args.v_scales[block] = v_scale;
        }
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            Four<uint32_t> words = random(args, SECOND_MOMENT, at[i]);
            uint32_t m[EACH], v[EACH];
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                m[j] = code8::to_signed(q[i].m[j], m_scale);
                v[j] = code8::to_unsigned(q[i].v[j], v_scale, words.v[j]);
            }
            write_bytes((uint8_t*)args.m + at[i], m, count[i]);
            write_bytes((uint8_t*)args.v + at[i], v, count[i]);
        }
    }
};

// Updates the warp's block of elements.
template <class Weights, class Moments>
__device__ __forceinline__ void update(const Args& args) {
    if (args.clip[1] == 0.0f) return;
    float clip = args.clip[0];
    int64_t block = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (block * code8::BLOCK >= args.len) return;
    Quad q[QUADS];
    int64_t at[QUADS];
    int count[QUADS];
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        at[i] = block * code8::BLOCK + i * 32 * EACH + threadIdx.x % 32 * EACH;
        int64_t left = args.len - at[i];
        count[i] = left < EACH ? (left > 0 ? (int)left : 0) : EACH;
        Weights::read(args, at[i], count[i], q[i].w);
        Moments::read(args, block, at[i], count[i], q[i]);
        Four<float> g = read(args.grad + at[i], count[i]);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            q[i].w[j] = element(q[i].w[j], g.v[j], q[i].m[j], q[i].v[j], clip, args.factors);
        }
        Weights::write(args, at[i], count[i], q[i].w);
    }
    Moments::write(args, block, at, count, q);
}

}  // namespace adamw

KERNEL(adamw_f32, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Split, adamw::Float>(args); }
KERNEL(adamw_bf16, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Split, adamw::Short>(args); }
KERNEL(adamw_8bit, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Split, adamw::Code8>(args); }
KERNEL(adamw_f32_rounded, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Rounded, adamw::Float>(args); }
KERNEL(adamw_bf16_rounded, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Rounded, adamw::Short>(args); }
KERNEL(adamw_8bit_rounded, adamw::Args, adamw::THREADS, 3) { adamw::update<adamw::Rounded, adamw::Code8>(args); }
