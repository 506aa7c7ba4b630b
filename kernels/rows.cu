// Operations on rows selected by index:
// - rows_gather: dst[i] = src[idx[i]].
// - rows_scatter: dst[idx[i]] = src[i % sources].
// - rows_scatter_add: dst[idx[i]] += src[i], bf16.
// - rows_scatter_add_segments: the same for indices that may repeat. The rows of an index are added in ascending
//   position, in one f32 chain that begins with the row of dst, and the sum is rounded to bf16 once.
// Shapes: idx [rows] u32; src and dst [., words] in words of two bytes; the indexed side has `bound` rows. A row that
// is gathered or summed from an index past the bound is NaN; a row scattered there is dropped. Scattered indices must
// be distinct; otherwise one of the rows wins. Segments have positions [rows] u32 sorted by index, and ids [segments, 2]
// u32 (index, number of its first entry in positions).
// Grid: ceil(rows / 4), one warp per row, 4 rows per CTA.
// Bound: memory, each row read and written once.
// Reference: src/runtime/ops/rows.rs.
// Benchmark: `omr bench rows`.
#include "common/elements.cuh"
#include "common/rows.cuh"
#include "isa/isa.cuh"

namespace rows {

struct Args {
    const uint16_t* src;
    const uint32_t* idx;
    uint16_t* dst;
    int rows, words;
    uint32_t bound;
    int sources;
};

struct SegmentArgs {
    const bf16* src;
    const uint32_t* positions;
    const uint32_t* ids;
    bf16* dst;
    int rows, segments, columns;
    uint32_t bound;
};

constexpr int THREADS = 128;

using elements::Elements;

__device__ __forceinline__ int warp_row() { return blockIdx.x * (THREADS / 32) + threadIdx.x / 32; }

// Adds a row to dst, N elements of a lane at a time.
template <int N>
__device__ __forceinline__ void add(bf16* dst, const bf16* src, int columns) {
    // Accesses to each row that are in flight.
    constexpr int BATCH = 2;
    for (int first = threadIdx.x % 32 * N; first < columns; first += 32 * N * BATCH) {
        Elements<N> sum[BATCH], more[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = first + i * 32 * N;
            if (at < columns) sum[i].load(dst + at), more[i].load(src + at);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = first + i * 32 * N;
            if (at < columns) {
                sum[i].add(more[i]);
                sum[i].store(dst + at);
            }
        }
    }
}

// Adds the rows of positions `from` to `end` to row `to` of dst, N elements of a lane at a time.
template <int N>
__device__ __forceinline__ void add_segment(const SegmentArgs& args, uint32_t to, int from, int end) {
    for (int at = threadIdx.x % 32 * N; at < args.columns; at += 32 * N) {
        bf16* dst = args.dst + (int64_t)to * args.columns + at;
        Elements<N> sum, more;
        sum.load(dst);
#pragma unroll 4
        for (int i = from; i < end; i++) {
            more.load(args.src + (int64_t)args.positions[i] * args.columns + at);
            sum.add(more);
        }
        sum.store(dst);
    }
}

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
    int from = row % args.sources;
    rows::copy(args.dst + (int64_t)to * args.words, args.src + (int64_t)from * args.words, args.words, lane);
}

KERNEL(rows_scatter_add, rows::Args, rows::THREADS, 8) {
    int row = rows::warp_row();
    if (row >= args.rows) return;
    uint32_t to = args.idx[row];
    if (to >= args.bound) return;
    bf16* dst = reinterpret_cast<bf16*>(args.dst) + (int64_t)to * args.words;
    const bf16* src = reinterpret_cast<const bf16*>(args.src) + (int64_t)row * args.words;
    if (elements::are_wide(args.words)) {
        rows::add<elements::WIDE>(dst, src, args.words);
    } else {
        rows::add<1>(dst, src, args.words);
    }
}

KERNEL(rows_scatter_add_segments, rows::SegmentArgs, rows::THREADS, 8) {
    int segment = rows::warp_row();
    if (segment >= args.segments) return;
    uint32_t to = args.ids[2 * segment];
    if (to >= args.bound) return;
    int from = args.ids[2 * segment + 1];
    int end = segment + 1 < args.segments ? (int)args.ids[2 * segment + 3] : args.rows;
    if (elements::are_wide(args.columns)) {
        rows::add_segment<elements::WIDE>(args, to, from, end);
    } else {
        rows::add_segment<1>(args, to, from, end);
    }
}
