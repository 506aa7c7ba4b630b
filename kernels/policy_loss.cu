// Policy losses over packed sequences: d loss / d log_prob (and d loss / d entropy), and sums of metrics, which are
// added to `stats`.
// Shapes of policy_loss_rows: log_prob, old_log_prob f32 [R], cu_seqlens u32 [rows + 1] -> dlog_prob f32 [R], partials
// f64 [rows, STATS]. Grid: one CTA of 256 threads per sequence.
// Shapes of policy_loss_add: partials -> stats f64 [STATS]. Grid: one warp.
// Bound: launch overhead and latency; 8 to 24 bytes per token.
// Order of summation: f64; token i of a sequence is added by thread i % 256, then one fixed tree.
// Reference: src/runtime/ops/policy_loss/row.rs.
#include "common/math_f64.cuh"
#include "common/reduce.cuh"
#include "isa/isa.cuh"

namespace policy_loss {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Indices as in src/runtime/ops/policy_loss/stats.rs: first sums, then maxima.
enum Stat {
    PG_LOSS,
    KL_LOSS,
    ENTROPY,
    TOKENS,
    CLIPPED,
    CLIPPED_UPPER,
    CLIPPED_LOWER,
    DUAL_CLIPPED,
    PPO_KL,
    PROB_DIFF,
    PROB_DIFF_SQUARED,
    PROB,
    OLD_PROB,
    PROB_SQUARED,
    OLD_PROB_SQUARED,
    PROB_PRODUCT,
    DIFFERENT,
    MAXIMA,
    MINUS_RATIO = MAXIMA,
    RATIO,
    MAX_PROB_DIFF,
    MAX_LOG_PROB_DIFF,
    MINUS_FIRST_DIFFERENT,
    STATS
};

enum LossMode { VANILLA, GSPO, CISPO };
enum AggMode { TOKEN_MEAN, SEQ_MEAN_TOKEN_SUM, SEQ_MEAN_TOKEN_MEAN, SEQ_MEAN_TOKEN_SUM_NORM };
enum KlType { NO_KL, KL, ABS, MSE, LOW_VAR_KL };

struct Args {
    const float* log_prob;
    const float* old_log_prob;
    const float* ref_log_prob;  // null if there is no KL term
    const float* teacher_log_prob;  // null without distillation
    const float* entropy;       // null if not given
    const uint32_t* cu_seqlens;
    const double* advantages;
    float* dlog_prob;
    float* dentropy;  // null if not requested
    double* partials;
    double low, high;  // 1 - clip_ratio_low, 1 + clip_ratio_high
    double clip_ratio_c;  // infinite if dual clip is off
    double kl_loss_coef, distillation_coef, loss_max_clamp, entropy_coeff;
    double batch_num_tokens, num_seqs, loss_scale_factor;
    int loss_mode, pg_agg_mode, loss_agg_mode, kl_loss_type;
};

struct AddArgs {
    const double* partials;
    double* stats;
    int rows, pad;
};

// verl's limits: for the log ratio of a token; for k3 and for GSPO's mean log ratio; and the epsilon of masked means.
constexpr double MAX_LOG_RATIO = 20.0;
constexpr double MAX_TEN = 10.0;
constexpr double MEAN_EPS = 1e-8;

struct Smem {
    isa::Shared<double> log_ratio[WARPS];
    isa::Shared<double> stats[STATS][WARPS];
};

__device__ __forceinline__ double larger(double a, double b) { return b > a ? b : a; }

__device__ __forceinline__ double magnitude(double x) {
    return __longlong_as_double(__double_as_longlong(x) & 0x7fffffffffffffffLL);
}

// Returns the weight in the loss of one token of a sequence with n tokens.
__device__ __forceinline__ double token_weight(const Args& args, int mode, double n) {
    if (mode == TOKEN_MEAN) return 1.0 / args.batch_num_tokens;
    if (mode == SEQ_MEAN_TOKEN_SUM) return 1.0 / args.num_seqs;
    if (mode == SEQ_MEAN_TOKEN_MEAN) return 1.0 / ((n + MEAN_EPS) * args.num_seqs);
    return 1.0 / args.loss_scale_factor;
}

// Returns a KL estimate, and stores its derivative with respect to log_prob in `grad`.
__device__ __forceinline__ double kl(int type, double log_prob, double ref_log_prob, double& grad) {
    double x = log_prob - ref_log_prob;
    if (type == KL) {
        grad = 1.0;
        return x;
    }
    if (type == ABS) {
        grad = x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x;
        return magnitude(x);
    }
    if (type == MSE) {
        grad = x;
        return 0.5 * x * x;
    }
    double u = math::hold(-x, -MAX_LOG_RATIO, MAX_LOG_RATIO);
    double e = math::exp_f64(u);
    double value = e - u - 1.0;
    grad = magnitude(x) > MAX_LOG_RATIO || magnitude(value) > MAX_TEN ? 0.0 : 1.0 - e;
    return math::hold(value, -MAX_TEN, MAX_TEN);
}

}  // namespace policy_loss

KERNEL(policy_loss_rows, policy_loss::Args, policy_loss::THREADS, 1) {
    using namespace policy_loss;
    auto& smem = isa::smem<Smem>();
    int row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int from = args.cu_seqlens[row], to = args.cu_seqlens[row + 1];

    double log_ratio = 0.0;
    for (int t = from + threadIdx.x; t < to; t += THREADS) {
        log_ratio += (double)args.log_prob[t] - (double)args.old_log_prob[t];
    }
    log_ratio = reduce::warp_sum(log_ratio);
    if (lane == 0) smem.log_ratio[warp] = log_ratio;
    isa::sync_cta();
    log_ratio = 0.0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) log_ratio += smem.log_ratio[w];

    double seq_advantage = args.advantages[row], count = to - from;
    double pg_weight = token_weight(args, args.pg_agg_mode, count);
    double weight = token_weight(args, args.loss_agg_mode, count);
    double mean_log_ratio = log_ratio / (count < 1.0 ? 1.0 : count);
    double seq_ratio = math::exp_f64(mean_log_ratio > MAX_TEN ? MAX_TEN : mean_log_ratio);
    double dentropy = -args.entropy_coeff * weight;

    double s[STATS];
#pragma unroll
    for (int m = 0; m < STATS; m++) s[m] = m < MAXIMA ? 0.0 : -INFINITY;
    for (int t = from + threadIdx.x; t < to; t += THREADS) {
        double log_prob = args.log_prob[t], old = args.old_log_prob[t];
        double advantage = seq_advantage;
        if (args.teacher_log_prob) {
            double gap = log_prob - (double)args.teacher_log_prob[t];
            advantage -= args.distillation_coef * math::hold(gap, -args.loss_max_clamp, args.loss_max_clamp);
        }
        double d = log_prob - old, ratio = seq_ratio;
        bool outside = mean_log_ratio > MAX_TEN;
        if (args.loss_mode != GSPO) {
            outside = magnitude(d) > MAX_LOG_RATIO;
            d = math::hold(d, -MAX_LOG_RATIO, MAX_LOG_RATIO);
            ratio = math::exp_f64(d);
        }
        double held = math::hold(ratio, args.low, args.high);
        double loss = -advantage * ratio, bound = -advantage * held, grad = loss;
        bool cispo = args.loss_mode == CISPO, clipped = cispo ? held != ratio : bound > loss;
        if (clipped) loss = bound;
        double cap = -advantage * args.clip_ratio_c;
        bool dual = advantage < 0.0 && loss > cap;
        if (dual) loss = cap;
        // The bounded ratio of CISPO is a constant weight of the log-prob.
        if (cispo) {
            loss = bound * log_prob;
            grad = bound;
        }
        s[PG_LOSS] += loss * pg_weight;
        grad = !cispo && (clipped || dual || outside) ? 0.0 : grad * pg_weight;
        if (args.kl_loss_type != NO_KL) {
            double kl_grad;
            double value = kl(args.kl_loss_type, log_prob, (double)args.ref_log_prob[t], kl_grad);
            s[KL_LOSS] += value * weight;
            grad += args.kl_loss_coef * kl_grad * weight;
        }
        args.dlog_prob[t] = (float)grad;
        if (args.entropy) s[ENTROPY] += (double)args.entropy[t] * weight;
        if (args.dentropy) args.dentropy[t] = (float)dentropy;

        s[TOKENS] += 1.0;
        s[CLIPPED] += clipped ? 1.0 : 0.0;
        s[CLIPPED_UPPER] += clipped && advantage > 0.0 ? 1.0 : 0.0;
        s[CLIPPED_LOWER] += clipped && advantage < 0.0 ? 1.0 : 0.0;
        s[DUAL_CLIPPED] += dual ? 1.0 : 0.0;
        s[PPO_KL] -= d;
        // Uses 1 - p, so that the squares of probabilities close to 1, which are the most frequent, keep their digits.
        double p = 1.0 - math::exp_f64(log_prob), q = 1.0 - math::exp_f64(old);
        double diff = magnitude(p - q);
        s[PROB_DIFF] += diff;
        s[PROB_DIFF_SQUARED] += diff * diff;
        s[PROB] += p;
        s[OLD_PROB] += q;
        s[PROB_SQUARED] += p * p;
        s[OLD_PROB_SQUARED] += q * q;
        s[PROB_PRODUCT] += p * q;
        s[MINUS_RATIO] = larger(s[MINUS_RATIO], -ratio);
        s[RATIO] = larger(s[RATIO], ratio);
        s[MAX_PROB_DIFF] = larger(s[MAX_PROB_DIFF], diff);
        s[MAX_LOG_PROB_DIFF] = larger(s[MAX_LOG_PROB_DIFF], magnitude(log_prob - old));
        if (!(log_prob == old)) {
            s[DIFFERENT] += 1.0;
            s[MINUS_FIRST_DIFFERENT] = larger(s[MINUS_FIRST_DIFFERENT], -(double)t);
        }
    }
#pragma unroll
    for (int m = 0; m < STATS; m++) {
#pragma unroll
        for (int half = 16; half > 0; half /= 2) {
            double other = isa::shfl_xor(s[m], half);
            s[m] = m < MAXIMA ? s[m] + other : larger(s[m], other);
        }
        if (lane == 0) smem.stats[m][warp] = s[m];
    }
    isa::sync_cta();
    int m = threadIdx.x;
    if (m >= STATS) return;
    double v = m < MAXIMA ? 0.0 : -INFINITY;
#pragma unroll
    for (int w = 0; w < WARPS; w++) v = m < MAXIMA ? v + smem.stats[m][w] : larger(v, smem.stats[m][w]);
    args.partials[(int64_t)row * STATS + m] = v;
}

KERNEL(policy_loss_add, policy_loss::AddArgs, 32, 1) {
    using namespace policy_loss;
    int m = threadIdx.x;
    if (m >= STATS) return;
    double v = m < MAXIMA ? 0.0 : -INFINITY;
#pragma unroll 8
    for (int row = 0; row < args.rows; row++) {
        double x = args.partials[(int64_t)row * STATS + m];
        v = m < MAXIMA ? v + x : larger(v, x);
    }
    args.stats[m] = m < MAXIMA ? args.stats[m] + v : larger(args.stats[m], v);
}
