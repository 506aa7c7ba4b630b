// Log-probs of given tokens from hidden states and the output weight. Only one tile of logits exists at a time.
// Shapes: x [T, K] bf16, W [V][ld] bf16, allowed [ceil(V / 32)] u32 or null, targets [T] u32; logprob, lse, entropy [T]
// f32.
// Grid of linear_logprob_m*: one tile of common/gemm.cuh per CTA. Its 128 columns give one partial sum per row, with
// half a warp per row.
// Grid of linear_logprob_fold: one warp per row, 4 rows per CTA.
// Bound: the tensor cores (2 T V K flops) from 256 rows on.
// Reference: src/runtime/ops/linear_logprob/mod.rs.
// Benchmark: `omr bench linear_logprob`.
#include "common/logits.cuh"
#include "isa/isa.cuh"

namespace linear_logprob {

// Epilogue: stores the partial sum of the segment for each row, and the logit of the row's target if the segment
// contains it.
struct Segment : gemm::InOrder {
    struct Args {
        logits::Allowed allowed;
        const uint32_t* targets;
        float* logit;                // [T]
        logits::Partial* partials;   // [T][segments]
        float scale;
        int segments;
    };
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const gemm::Operands& in, const gemm::Sums<T>& tile,
                                                  int m, int n) {
        logits::Mask mask(to.allowed, n);
        for (logits::Rows<T> rows; rows.more(); rows.next()) {
            int row = m + rows.row();
            logits::Logits z(tile, rows.row(), rows.j, to.scale, mask);
            logits::Partial partial = logits::partial(z, rows.j);
            if (row < in.rows) {
                if (rows.j == 0) {
                    float4 v = make_float4(partial.max, partial.sum, partial.weighted, 0.0f);
                    isa::store<float4>(to.partials + (int64_t)row * to.segments + n / logits::SEGMENT, v);
                }
                // Finds the target by comparison, because an index that is not constant would put z into local memory.
                uint32_t target = to.targets[row];
#pragma unroll
                for (int i = 0; i < logits::PER_LANE; i++) {
                    if (target == (uint32_t)(n + rows.j + i * logits::LANES)) to.logit[row] = z.z[i];
                }
            }
        }
    }
};

struct Args {
    gemm::Operands in;
    Segment::Args out;
};

struct FoldArgs {
    const logits::Partial* partials;
    const uint32_t* targets;
    float* logprob;  // holds the logits of the targets on entry
    float* lse;
    float* entropy;  // or null
    int rows, segments, vocab, pad;
};

constexpr int FOLD_THREADS = 128;

}  // namespace linear_logprob

KERNEL(linear_logprob_m16, linear_logprob::Args, logits::TileM16::THREADS, 2) {
    gemm::run<logits::TileM16, linear_logprob::Segment>(args.in, args.out);
}

KERNEL(linear_logprob_m64, linear_logprob::Args, logits::TileM64::THREADS, 2) {
    gemm::run<logits::TileM64, linear_logprob::Segment>(args.in, args.out);
}

KERNEL(linear_logprob_m128, linear_logprob::Args, logits::TileM128::THREADS, 2) {
    gemm::run<logits::TileM128, linear_logprob::Segment>(args.in, args.out);
}

// instructions linear_logprob_wide: HGMMA UTMALDG
// main loop linear_logprob_wide: 4 HGMMA
// registers linear_logprob_wide <= 168
// registers linear_logprob_square <= 168
KERNEL_SM90A(linear_logprob_wide, gemm::WideArgs<linear_logprob::Segment>, logits::TileWide::THREADS, 1) {
    gemm::run_wide<logits::TileWide, linear_logprob::Segment>(args);
}
KERNEL_SM90A(linear_logprob_square, gemm::WideArgs<linear_logprob::Segment>, logits::TileSquare::THREADS, 1) {
    gemm::run_wide<logits::TileSquare, linear_logprob::Segment>(args);
}
KERNEL_SM90A(linear_logprob_short, gemm::WideArgs<linear_logprob::Segment>, logits::TileShort::THREADS, 1) {
    gemm::run_wide<logits::TileShort, linear_logprob::Segment>(args);
}

KERNEL(linear_logprob_fold, linear_logprob::FoldArgs, linear_logprob::FOLD_THREADS, 8) {
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * (linear_logprob::FOLD_THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    const logits::Partial* partials = args.partials + (int64_t)row * args.segments;
    // The sum has the same bits with and without the entropy.
    logits::Fold fold;
    if (args.entropy) {
        fold = logits::fold<true>(partials, args.segments, lane);
    } else {
        fold = logits::fold<false>(partials, args.segments, lane);
    }
    if (lane == 0) {
        float lse = fold.logsumexp();
        args.lse[row] = lse;
        // A target outside the vocabulary has no logit.
        args.logprob[row] = args.targets[row] < (uint32_t)args.vocab ? args.logprob[row] - lse : math::nan();
        if (args.entropy) args.entropy[row] = fold.entropy();
    }
}
