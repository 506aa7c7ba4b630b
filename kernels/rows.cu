// Rows by index: rows_gather dst[i] = src[idx[i]], rows_scatter dst[idx[i]] = src[i], rows_scatter_add += (bf16).
// idx [rows] u32, src and dst [., words] in words of two bytes, `bound` rows on the indexed side. Gathered from past
// the bound a row is NaN, scattered there it is dropped; scattered indices are distinct, or one of the rows wins.
// A warp a row, 4 rows a CTA, grid ceil(rows / 4). Bound by memory: each row read and written once.
// Reference src/ops/rows.rs, bench rows.
#include "common/rows.cuh"
#include "isa/isa.cuh"

namespace rows {

struct Args {
    const uint16_t* src;
    const uint32_t* idx;
    uint16_t* dst;
    int rows, words;
    uint32_t bound;
    int pad;
};

constexpr int THREADS = 128;

__device__ __forceinline__ int warp_row() { return blockIdx.x * (THREADS / 32) + threadIdx.x / 32; }

}  // namespace rows

KERNEL(rows_gather, rows::Args, rows::THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = rows::warp_row();
    if (row >= args.rows) return;
    uint32_t from = args.idx[row];
    uint16_t* dst = args.dst + (int64_t)row * args.words;
    if (from < args.bound) {
        rows::copy(dst, args.src + (int64_t)from * args.words, args.words, lane);
    } else {
        rows::fill(dst, rows::NOT_A_NUMBER, args.words, lane);
    }
}

KERNEL(rows_scatter, rows::Args, rows::THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = rows::warp_row();
    if (row >= args.rows) return;
    uint32_t to = args.idx[row];
    if (to >= args.bound) return;
    rows::copy(args.dst + (int64_t)to * args.words, args.src + (int64_t)row * args.words, args.words, lane);
}

KERNEL(rows_scatter_add, rows::Args, rows::THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = rows::warp_row();
    if (row >= args.rows) return;
    uint32_t to = args.idx[row];
    if (to >= args.bound) return;
    bf16* dst = reinterpret_cast<bf16*>(args.dst) + (int64_t)to * args.words;
    const bf16* src = reinterpret_cast<const bf16*>(args.src) + (int64_t)row * args.words;
    for (int i = lane; i < args.words; i += 32) dst[i] = to_bf16(to_float(dst[i]) + to_float(src[i]));
}
