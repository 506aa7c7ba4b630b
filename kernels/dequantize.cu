// Widens the codes of a quantised weight to bf16 (src/runtime/ops/quantized/mod.rs has the formats).
// Shapes: codes [N][ld] bytes (int8) or [N][ld / 2] bytes (nf4), scales [N][ld / 64], out [N][ld] bf16; ld is K padded to
// a multiple of 64.
// Grid: ceil(N ld / 2048). Each thread widens eight adjacent terms, which share a scale.
// Bound: memory, 3 bytes (int8) or 2.6 bytes (nf4) read or written per term, at the copy bandwidth.
// Reference: src/runtime/ops/quantized/widen.rs, bitwise identical.
// Benchmark: `omr bench dequantize`.
#include "common/codes.cuh"
#include "isa/isa.cuh"

namespace dequantize {

struct Args {
    const uint8_t* codes;
    const uint8_t* scales;
    bf16* out;
    int64_t len;
};

constexpr int THREADS = 256;
constexpr int EACH = 8;

template <class Format>
__device__ __forceinline__ void widen(const Args& args) {
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    bool inside = at < args.len;
    int64_t from = inside ? at : 0;
    auto codes = Format::codes(args.codes, from);
    uint4 values = Format::values(codes, Format::scale(args.scales, from / codes::BLOCK), Format::table());
    if (inside) isa::store<uint4>(args.out + at, values);
}

}  // namespace dequantize

KERNEL(dequantize_int8, dequantize::Args, dequantize::THREADS, 4) { dequantize::widen<codes::Int8>(args); }
KERNEL(dequantize_nf4, dequantize::Args, dequantize::THREADS, 4) { dequantize::widen<codes::Nf4>(args); }
