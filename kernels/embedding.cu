// y[t] = row ids[t] of the token table.
// ids [rows] u32, table [n][ld] in words of two bytes, y [rows, words]; an id of n or more gives a row of NaN.
// A warp a row, 4 rows a CTA, grid ceil(rows / 4).
// Bound by memory: each row read and written once.
// Reference src/ops/embedding.rs, bench embedding.
#include "common/rows.cuh"
#include "isa/isa.cuh"

namespace embedding {

struct Args {
    const uint32_t* ids;
    const uint16_t* table;
    uint16_t* y;
    int rows, words, ld;
    uint32_t n;
};

constexpr int THREADS = 128;

}  // namespace embedding

KERNEL(embedding_fwd, embedding::Args, embedding::THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * (embedding::THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    uint32_t id = args.ids[row];
    uint16_t* y = args.y + (int64_t)row * args.words;
    if (id < args.n) {
        rows::copy(y, args.table + (int64_t)id * args.ld, args.words, lane);
    } else {
        rows::fill(y, rows::NOT_A_NUMBER, args.words, lane);
    }
}
