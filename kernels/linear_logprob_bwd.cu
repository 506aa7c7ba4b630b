// Gradient of log-probs with respect to logits, for one wave (a range of ids that is processed at a time): dz =
// (dlogprob (1[target] - p) - dentropy p (ln p + entropy)) / temperature. gemm_bwd.cu then computes the products with
// dz.
// Shapes: hidden [T, K] bf16, W [wave][ld]; allowed, targets, lse, dlogprob, entropy, dentropy as in the forward pass;
// dz [T][stride] bf16.
// Grid: one tile of common/gemm.cuh with 128 ids per CTA, as in the forward pass, so that the logits have the same
// bits. The epilogue uses one warp per row.
// Bound: the tensor cores (2 T V K flops, 6 T V K with both products). The 2 T V bytes of dz, written once and read
// twice, take less time.
// Reference: src/runtime/ops/linear_logprob/backward.rs; tests/runtime/kernels/linear_logprob_bwd.rs.
// Benchmark: `omr bench linear_logprob`.
#include "common/logits.cuh"
#include "isa/isa.cuh"

namespace linear_logprob_bwd {

struct LogitGradient : gemm::InOrder {
    struct Args {
        logits::Allowed allowed;  // over all ids
        const uint32_t* targets;
        const float* lse;
        const float* dlogprob;
        const float* entropy;     // read only with dentropy
        const float* dentropy;    // or null
        bf16* dz;                 // columns after V belong to ids that are not allowed
        float scale;
        int first;                // first id of the wave, a multiple of 128
        int stride;               // a multiple of 8
        int pad;
    };

    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const gemm::Operands& in, const gemm::Sums<T>& tile,
                                                  int m, int n) {
        static_assert(T::BLOCK_N == 4 * reduce::WARP, "a lane has four columns of each row");
        int column = T::thread() % reduce::WARP * 4;
        if (n + column >= to.stride) return;
        uint32_t id = to.first + n + column;
        uint32_t on = to.allowed.word(id / 32 * 32) >> id % 32;
        for (int row = T::thread() / reduce::WARP; row < T::BLOCK_M && m + row < in.rows;
             row += T::THREADS / reduce::WARP) {
            int token = m + row;
            float lse = to.lse[token], dlogprob = to.dlogprob[token];
            float entropy = to.dentropy ? to.entropy[token] : 0.0f;
            float dentropy = to.dentropy ? to.dentropy[token] : 0.0f;
            uint32_t target = to.targets[token] - id;
            gemm::Quad q = gemm::sums_at<T>(tile, row, column);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float z = logits::logit(q.v[i], to.scale, on >> i & 1u);
                bool off = z == -math::infinity();
                float ln_p = off ? 0.0f : z - lse;
                float p = off ? 0.0f : math::exp(ln_p);
                float dz = -p * fmaf(dentropy, ln_p + entropy, dlogprob);
                if (target == (uint32_t)i && (on >> i & 1u)) dz += dlogprob;
                q.v[i] = dz * to.scale;
            }
            gemm::store_quad(to.dz + (size_t)token * to.stride + n + column, q, true, 4);
        }
    }
};

struct Args {
    gemm::Operands in;
    LogitGradient::Args out;
};

}  // namespace linear_logprob_bwd

KERNEL(linear_logprob_dz_m16, linear_logprob_bwd::Args, logits::TileM16::THREADS, 2) {
    gemm::run<logits::TileM16, linear_logprob_bwd::LogitGradient>(args.in, args.out);
}

KERNEL(linear_logprob_dz_m64, linear_logprob_bwd::Args, logits::TileM64::THREADS, 2) {
    gemm::run<logits::TileM64, linear_logprob_bwd::LogitGradient>(args.in, args.out);
}

KERNEL(linear_logprob_dz_m128, linear_logprob_bwd::Args, logits::TileM128::THREADS, 2) {
    gemm::run<logits::TileM128, linear_logprob_bwd::LogitGradient>(args.in, args.out);
}

// instructions linear_logprob_dz_wide: HGMMA UTMALDG
// main loop linear_logprob_dz_wide: 4 HGMMA
// registers linear_logprob_dz_wide <= 168
// registers linear_logprob_dz_square <= 168
KERNEL_SM90A(linear_logprob_dz_wide, gemm::WideArgs<linear_logprob_bwd::LogitGradient>, logits::TileWide::THREADS, 1) {
    gemm::run_wide<logits::TileWide, linear_logprob_bwd::LogitGradient>(args);
}
KERNEL_SM90A(linear_logprob_dz_square, gemm::WideArgs<linear_logprob_bwd::LogitGradient>, logits::TileSquare::THREADS, 1) {
    gemm::run_wide<logits::TileSquare, linear_logprob_bwd::LogitGradient>(args);
}
KERNEL_SM90A(linear_logprob_dz_short, gemm::WideArgs<linear_logprob_bwd::LogitGradient>, logits::TileShort::THREADS, 1) {
    gemm::run_wide<logits::TileShort, linear_logprob_bwd::LogitGradient>(args);
}
