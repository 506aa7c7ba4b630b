// Samples tokens from softmax(z) with z = x W^T / temperature over the allowed ids: the argmax of z + Gumbel noise, or
// of z if greedy.
// Shapes: x [B, K], W [V][ld] bf16; rows [B] sample::Row; ids [B] u32, logprobs [B] f32. Scratch: logits [B][segments *
// 128] f32, used only by rows with top-k, top-p or min-p; partials and winners [B][segments].
// Grid: sample_logits_m*: one tile of common/gemm.cuh per CTA, half a warp per row; sample_tokens: one CTA per row.
// Bound: memory. sample_logits_m* reads the weight; sample_tokens reads the logits (from L2).
// Reference: src/runtime/ops/sample/mod.rs.
// Benchmark: `omr bench sample`.
#include "common/logits.cuh"
#include "common/philox.cuh"
#include "isa/isa.cuh"

namespace sample {

// Sampling parameters of a row: `Draw` of src/runtime/ops/sample/draw.rs.
struct Row {
    float temperature, min_p, top_p;
    uint32_t top_k;
    uint32_t prompt, rollout, position, key0;
    uint32_t key1, pad[3];

    // Temperature 0 is greedy whatever the other limits are, and uses the logits of temperature 1.
    __device__ __forceinline__ bool greedy() const { return temperature == 0.0f; }
    __device__ __forceinline__ float scale() const { return greedy() ? 1.0f : 1.0f / temperature; }
    __device__ __forceinline__ bool narrows() const {
        return !greedy() && (min_p > 0.0f || top_k > 0 || top_p < 1.0f);
    }

    // Returns the smallest weight that min_p keeps. Weights are integers, so this is `min_p` 2^32 rounded up.
    __device__ __forceinline__ uint64_t least() const {
        float bound = min_p * 4294967296.0f;
        uint64_t whole = bound > 0.0f ? (uint64_t)bound : 0;
        return (float)whole < bound ? whole + 1 : whole;
    }
};

__device__ __forceinline__ Row load_row(const Row* p) {
    uint4 a = isa::load<uint4>(&p->temperature);
    uint4 b = isa::load<uint4>(&p->prompt);
    uint4 c = isa::load<uint4>(&p->key1);
    return Row{__uint_as_float(a.x), __uint_as_float(a.y), __uint_as_float(a.z), a.w, b.x, b.y, b.z, b.w, c.x, {}};
}

// Returns the random words of the four ids from 4 * quad on.
__device__ __forceinline__ philox::Words noise(const Row& row, uint32_t quad) {
    return philox::philox4x32_10(row.key0, row.key1, row.prompt, row.rollout, row.position, quad);
}

constexpr uint32_t NOBODY = 0xffffffffu;

// Best id so far: the highest score; among equal scores the lowest id.
struct alignas(16) Winner {
    float score, z;
    uint32_t id, pad;

    __device__ __forceinline__ static Winner none() { return Winner{-math::infinity(), -math::infinity(), NOBODY, 0}; }

    __device__ __forceinline__ void meet(float other_score, float other_z, uint32_t other_id) {
        bool better = other_score > score || (other_score == score && other_id < id);
        score = better ? other_score : score;
        z = better ? other_z : z;
        id = better ? other_id : id;
    }

    // Finds the best winner of 2 * HALF lanes. Each of these lanes gets it.
    template <int HALF>
    __device__ __forceinline__ void agree() {
#pragma unroll
        for (int half = HALF; half > 0; half /= 2) {
            float other_score = isa::shfl_xor(score, half);
            float other_z = isa::shfl_xor(z, half);
            uint32_t other_id = isa::shfl_xor(id, half);
            meet(other_score, other_z, other_id);
        }
    }
};

// Scores the four ids from 4 * quad on. Ids that are not `on` are ignored.
__device__ __forceinline__ void score(Winner& winner, const Row& row, uint32_t quad, const float (&z)[4],
                                      const bool (&on)[4], bool greedy) {
    philox::Words words{0, 0, 0, 0};
    if (!greedy) words = noise(row, quad);
    uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float s = greedy ? z[i] : z[i] + philox::gumbel(word[i]);
        // The score must be above minus infinity, so that an id with zero probability never wins.
        if (on[i] && s > -math::infinity()) winner.meet(s, z[i], quad * 4 + i);
    }
}

// Epilogue: stores the partial sum of the segment for each row. It also stores the row's best id in the segment, or the
// logits if min-p, top-k or top-p narrows the row's ids.
struct Segment : gemm::InOrder {
    struct Args {
        logits::Allowed allowed;
        const Row* rows;
        float* logits;               // [B][segments * 128]
        logits::Partial* partials;   // [B][segments]
        Winner* winners;             // [B][segments]
        int segments, pad;
    };

    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const gemm::Operands& in, const gemm::Sums<T>& tile,
                                                  int m, int n) {
        logits::Mask mask(to.allowed, n);
        for (logits::Rows<T> rows; rows.more(); rows.next()) {
            int row = m + rows.row();
            bool live = row < in.rows;
            Row how = load_row(to.rows + (live ? row : in.rows - 1));
            float scale = how.scale();
            logits::Logits z(tile, rows.row(), rows.j, scale, mask);
            logits::Partial partial = logits::partial(z, rows.j);
            Winner winner = Winner::none();
            if (how.narrows()) {
                float* out = to.logits + ((int64_t)row * to.segments * logits::SEGMENT + n + rows.j);
#pragma unroll
                for (int i = 0; i < logits::PER_LANE; i++) {
                    if (live) out[i * logits::LANES] = z.z[i];
                }
            } else {
                // Four ids share one call of Philox. Each lane handles two quads of adjacent columns.
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int column = 4 * (rows.j + i * logits::LANES);
                    gemm::Quad q = gemm::sums_at<T>(tile, rows.row(), column);
                    uint32_t bits = (rows.j < 8 ? mask.word[2 * i] : mask.word[2 * i + 1]) >> column % 32;
                    bool on[4] = {(bits & 1u) != 0, (bits & 2u) != 0, (bits & 4u) != 0, (bits & 8u) != 0};
                    float zs[4];
#pragma unroll
                    for (int c = 0; c < 4; c++) zs[c] = logits::logit(q.v[c], scale, on[c]);
                    score(winner, how, (n + column) / 4, zs, on, how.greedy());
                }
            }
            winner.agree<logits::LANES / 2>();
            if (live && rows.j == 0) {
                int64_t at = (int64_t)row * to.segments + n / logits::SEGMENT;
                float4 v = make_float4(partial.max, partial.sum, partial.weighted, 0.0f);
                isa::store<float4>(to.partials + at, v);
                uint4 w = make_uint4(__float_as_uint(winner.score), __float_as_uint(winner.z), winner.id, 0);
                isa::store<uint4>(to.winners + at, w);
            }
        }
    }
};

struct Args {
    gemm::Operands in;
    Segment::Args out;
};

struct GivenArgs {
    const float* sums;  // [rows, cols]
    int rows, cols;
    Segment::Args out;
};

struct TokenArgs {
    const Row* rows;
    const float* logits;
    const logits::Partial* partials;
    const Winner* winners;
    uint32_t* ids;
    float* logprobs;
    int segments, pad;
};

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;
constexpr int BINS = 4;

// Number and total weight of some candidates. Both are integers, so the sums do not depend on the order.
struct Tally {
    uint32_t count;
    uint64_t sum;

    __device__ __forceinline__ bool reaches(uint64_t target, bool by_sum) const {
        return (by_sum ? sum : (uint64_t)count) >= target;
    }
};

__device__ __forceinline__ Tally operator+(Tally a, Tally b) { return Tally{a.count + b.count, a.sum + b.sum}; }

struct Smem {
    isa::Shared<uint64_t> sum[BINS][THREADS];
    isa::Shared<uint32_t> count[BINS][THREADS];
    isa::Shared<uint64_t> total_sum[BINS];
    isa::Shared<uint32_t> total_count[BINS];
    isa::Shared<float> score[WARPS];
    isa::Shared<float> z[WARPS];
    isa::Shared<uint32_t> id[WARPS];
    isa::Shared<float> max;
    isa::Shared<float> lse;
};

// Maps floats to unsigned integers in descending order. Both zeros map to the same integer.
__device__ __forceinline__ uint32_t descending(float z) {
    uint32_t bits = __float_as_uint(z + 0.0f);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

// State of a search for the last id that is kept: the range of keys from..to, the candidates before this range, and the
// candidates inside it.
struct Bracket {
    uint32_t from, to;
    Tally before, inside;
};

// The ids that are kept, with their count and weight: all ids up to (`key`, `id`) in the order logit descending, id
// ascending.
struct Cut {
    uint32_t key, id;
    Tally kept;
};

// A row whose ids are narrowed by min-p, top-k or top-p. All threads of the CTA call its methods.
struct Narrowing {
    Smem& smem;
    Row row;
    const float* z;
    int quads;
    float max;
    uint64_t least;

    // Computes the weight floor(e^(z - max) 2^32). Returns false if the id is not a candidate.
    __device__ __forceinline__ bool weigh(float x, uint64_t& weight) const {
        float e = math::exp(x - max) * 4294967296.0f;
        bool number = e >= 0.0f;
        weight = number ? (uint64_t)e : 0;
        return number && weight >= least;
    }

    // Sums the candidates of the bracket in bins, which end at the pivots and at the end of the bracket. The key of a
    // candidate is its place in `descending`. With IDS the key is its id, and only candidates at place `tied` count.
    template <bool IDS>
    __device__ __forceinline__ void tally(uint32_t from, uint32_t to, const uint32_t (&pivot)[BINS - 1], uint32_t tied,
                                          Tally (&bin)[BINS]) {
        Tally mine[BINS] = {};
        for (int q = threadIdx.x; q < quads; q += THREADS) {
            float4 v = isa::load<float4>(z + 4 * q);
            float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t place = descending(x[i]);
                uint32_t key = IDS ? 4 * q + i : place;
                bool inside = x[i] > -math::infinity() && key >= from && key <= to && (!IDS || place == tied);
                uint64_t weight;
                if (inside && weigh(x[i], weight)) {
                    int at = (key > pivot[0]) + (key > pivot[1]) + (key > pivot[2]);
#pragma unroll
                    for (int b = 0; b < BINS; b++) {
                        mine[b].count += at == b ? 1 : 0;
                        mine[b].sum += at == b ? weight : 0;
                    }
                }
            }
        }
#pragma unroll
        for (int b = 0; b < BINS; b++) {
            smem.count[b][threadIdx.x] = mine[b].count;
            smem.sum[b][threadIdx.x] = mine[b].sum;
        }
        isa::sync_cta();
        int warp = threadIdx.x / 32;
        if (warp < BINS) {
            int lane = threadIdx.x % 32;
            Tally all{0, 0};
            for (int i = lane; i < THREADS; i += 32) all = all + Tally{smem.count[warp][i], smem.sum[warp][i]};
            uint32_t count = reduce::warp_sum(all.count);
            uint64_t sum = reduce::warp_sum(all.sum);
            if (lane == 0) {
                smem.total_count[warp] = count;
                smem.total_sum[warp] = sum;
            }
        }
        isa::sync_cta();
#pragma unroll
        for (int b = 0; b < BINS; b++) bin[b] = Tally{smem.total_count[b], smem.total_sum[b]};
    }

    // Chooses the first bin at whose end the target is reached. The last bin always reaches it.
    __device__ __forceinline__ static Bracket choose(Bracket in, const uint32_t (&pivot)[BINS - 1],
                                                     const Tally (&bin)[BINS], uint64_t target, bool by_sum) {
        Bracket out{in.from, in.to, in.before, bin[BINS - 1]};
        bool found = false;
#pragma unroll
        for (int b = 0; b < BINS - 1; b++) {
            Tally upto = out.before + bin[b];
            bool here = !found && upto.reaches(target, by_sum);
            if (here) {
                out.to = pivot[b];
                out.inside = bin[b];
                found = true;
            } else if (!found) {
                out.from = pivot[b] + 1;
                out.before = upto;
            }
        }
        return out;
    }

    // Narrows the bracket until one candidate or one key is left.
    template <bool IDS>
    __device__ __forceinline__ Bracket search(Bracket b, uint32_t tied, uint64_t target, bool by_sum) {
        while (b.inside.count > 1 && b.from < b.to) {
            uint32_t span = b.to - b.from;
            uint32_t pivot[BINS - 1] = {b.from + span / 4, b.from + span / 2, b.from + span / 2 + span / 4};
            Tally bin[BINS];
            tally<IDS>(b.from, b.to, pivot, tied, bin);
            b = choose(b, pivot, bin, target, by_sum);
        }
        return b;
    }

    // Returns the smallest prefix of the ordered ids whose number or weight reaches the target.
    __device__ __forceinline__ Cut cut(Bracket b, uint64_t target, bool by_sum) {
        b = search<false>(b, 0, target, by_sum);
        uint32_t key = b.to, id = NOBODY;
        if (b.inside.count > 1) {
            // Several logits are equal, so their ids decide.
            b.from = 0;
            b.to = 4 * quads - 1;
            b = search<true>(b, key, target, by_sum);
            id = b.to;
        }
        return Cut{key, id, b.before + b.inside};
    }

    // Returns the ids that min_p, top_k and top_p keep.
    __device__ __forceinline__ Cut narrow() {
        // First pivots for a peaked distribution: probabilities within e^-1, e^-4 and e^-12 of the largest.
        uint32_t pivot[BINS - 1] = {descending(max - 1.0f), descending(max - 4.0f), descending(max - 12.0f)};
        Tally bin[BINS];
        tally<false>(0, NOBODY, pivot, 0, bin);
        Bracket whole{0, NOBODY, Tally{0, 0}, bin[0] + bin[1] + (bin[2] + bin[3])};
        Cut left{NOBODY, NOBODY, whole.inside};
        if (row.top_k > 0 && row.top_k < left.kept.count) {
            left = cut(choose(whole, pivot, bin, row.top_k, false), row.top_k, false);
        }
        if (row.top_p < 1.0f && left.kept.count > 0) {
            // An id is kept if the sum before it is below `enough`. For integers this means below the ceiling of
            // `enough`. Sums are below 2^53, so they are exact as doubles.
            double enough = (double)row.top_p * (double)left.kept.sum;
            uint64_t target = enough > 0.0 ? (uint64_t)enough : 0;
            if ((double)target < enough) target++;
            // If all weights round to 0, only the first id is kept.
            bool by_sum = target > 0;
            if (!by_sum) target = 1;
            left = cut(choose(whole, pivot, bin, target, by_sum), target, by_sum);
        }
        return left;
    }

    // Returns the thread's best id among its ids up to the cut.
    __device__ __forceinline__ Winner draw(const Cut& left) const {
        Winner winner = Winner::none();
        for (int q = threadIdx.x; q < quads; q += THREADS) {
            float4 v = isa::load<float4>(z + 4 * q);
            float x[4] = {v.x, v.y, v.z, v.w};
            bool on[4];
            bool any = false;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t place = descending(x[i]);
                uint32_t id = 4 * q + i;
                uint64_t weight;
                bool upto = place < left.key || (place == left.key && id <= left.id);
                on[i] = x[i] > -math::infinity() && upto && weigh(x[i], weight);
                any = any || on[i];
            }
            if (any) score(winner, row, q, x, on, false);
        }
        return winner;
    }
};

// Finds the best winner of all threads; thread 0 holds it.
__device__ __forceinline__ Winner best_of_cta(Smem& smem, Winner winner) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    winner.agree<16>();
    if (lane == 0) {
        smem.score[warp] = winner.score;
        smem.z[warp] = winner.z;
        smem.id[warp] = winner.id;
    }
    isa::sync_cta();
    if (threadIdx.x == 0) {
        for (int i = 1; i < WARPS; i++) winner.meet(smem.score[i], smem.z[i], smem.id[i]);
    }
    return winner;
}

}  // namespace sample

KERNEL(sample_logits_m16, sample::Args, logits::TileM16::THREADS, 2) {
    gemm::run<logits::TileM16, sample::Segment>(args.in, args.out);
}

KERNEL(sample_logits_m64, sample::Args, logits::TileM64::THREADS, 2) {
    gemm::run<logits::TileM64, sample::Segment>(args.in, args.out);
}

KERNEL(sample_logits_m128, sample::Args, logits::TileM128::THREADS, 2) {
    gemm::run<logits::TileM128, sample::Segment>(args.in, args.out);
}

// instructions sample_logits_wide: HGMMA UTMALDG
// main loop sample_logits_wide: 4 HGMMA
// registers sample_logits_wide <= 168
// registers sample_logits_square <= 168
KERNEL_SM90A(sample_logits_wide, gemm::WideArgs<sample::Segment>, logits::TileWide::THREADS, 1) {
    gemm::run_wide<logits::TileWide, sample::Segment>(args);
}
KERNEL_SM90A(sample_logits_square, gemm::WideArgs<sample::Segment>, logits::TileSquare::THREADS, 1) {
    gemm::run_wide<logits::TileSquare, sample::Segment>(args);
}
KERNEL_SM90A(sample_logits_short, gemm::WideArgs<sample::Segment>, logits::TileShort::THREADS, 1) {
    gemm::run_wide<logits::TileShort, sample::Segment>(args);
}

// Runs the epilogue on given sums, to compare samplers on equal logits. Grid: (segments, rows / 16).
KERNEL(sample_given, sample::GivenArgs, logits::TileM16::THREADS, 2) {
    using T = logits::TileM16;
    auto& tile = isa::smem<gemm::Sums<T>>();
    int m = blockIdx.y * T::BLOCK_M, n = blockIdx.x * logits::SEGMENT;
    for (int i = threadIdx.x; i < T::BLOCK_M * logits::SEGMENT; i += T::THREADS) {
        int row = i / logits::SEGMENT, column = i % logits::SEGMENT;
        bool inside = m + row < args.rows && n + column < args.cols;
        tile.at[row][column] = inside ? args.sums[(int64_t)(m + row) * args.cols + n + column] : 0.0f;
    }
    isa::sync_cta();
    gemm::Operands in{nullptr, nullptr, args.rows, args.cols, 0, 0};
    sample::Segment::finish<T>(args.out, in, tile, m, n);
}

KERNEL(sample_tokens, sample::TokenArgs, sample::THREADS, 2) {
    using namespace sample;
    auto& smem = isa::smem<Smem>();
    int64_t segment = (int64_t)blockIdx.x * args.segments;
    Row row = load_row(args.rows + blockIdx.x);
    if (threadIdx.x < 32) {
        logits::Fold fold = logits::fold<false>(args.partials + segment, args.segments, threadIdx.x);
        if (threadIdx.x == 0) {
            smem.max = fold.max;
            smem.lse = fold.logsumexp();
        }
    }
    isa::sync_cta();
    Winner winner = Winner::none();
    if (row.narrows()) {
        const float* z = args.logits + segment * logits::SEGMENT;
        Narrowing narrowing{smem, row, z, args.segments * (logits::SEGMENT / 4), smem.max, row.least()};
        Cut left = narrowing.narrow();
        winner = narrowing.draw(left);
        // Without a winner, id 0 is drawn. Its logit is minus infinity, or any value if another logit is infinite.
        winner.z = winner.id == NOBODY ? z[0] : winner.z;
    } else {
        for (int i = threadIdx.x; i < args.segments; i += THREADS) {
            uint4 v = isa::load<uint4>(args.winners + segment + i);
            winner.meet(__uint_as_float(v.x), __uint_as_float(v.y), v.z);
        }
    }
    winner = best_of_cta(smem, winner);
    if (threadIdx.x == 0) {
        args.ids[blockIdx.x] = winner.id == NOBODY ? 0 : winner.id;
        args.logprobs[blockIdx.x] = winner.z - smem.lse;
    }
}
