// Gradients of attention on compute capability 9.0: the accumulation chains of attention_bwd.cu with wgmma, and with
// operands loaded by TMA.
//
// As in attention_bwd.cu there are two kernels, and every CTA owns the elements that it writes.
// - One producer warp loads panels of 64 columns, swizzled as wgmma reads them. It clears the rows that TMA loads
//   beyond the last token of a sequence.
// - Two math warpgroups with 64 rows (dq) or 64 keys (dkv) each alternate on the tensor cores. While one runs its
//   scores and dP, the other computes its exponentials.
// - dkv holds the scores transposed, so that P^T and dS^T are left operands from registers, as dS is in dq. No score
//   goes through shared memory.
#pragma once

#include "common/attend_bwd.cuh"
#include "common/attend_sm90a.cuh"

namespace attend_bwd {

using namespace attend;
using attention_bwd::Place;

// Rows per pipeline stage of dkv, and number of its stages.
constexpr int ROWS = 64;
constexpr int ROW_STAGES = 3;

struct Args {
    isa::TensorMap keys;     // map of qkv; boxes: 64 columns by 128 keys
    isa::TensorMap q, dout;  // boxes: 64 columns by the heads of a group by `tokens`
    attention_bwd::Args in;
    int tokens;  // tokens per tile of dq or per stage of dkv
    int slots;   // slots of tiles (attend::sequence_of) for each key head
};

// Work item of a CTA. Callers number the slots so that, under a causal mask, the tiles of a sequence with the most work
// start first.
struct Item {
    int head, sequence, tile;

    __device__ __forceinline__ Item(const Args& args, int slot, int group, int rows) : head(blockIdx.x % args.in.kv_heads) {
        sequence = sequence_of(slot, args.in.cu_seqlens, args.in.sequences, group, rows, tile);
    }
};

// Issues the wgmmas of 64 rows of one operand, starting at row `first`, times all rows of another operand.
template <int HD, int COLUMNS, int A, int B>
__device__ __forceinline__ void scores(isa::WgmmaAcc<COLUMNS>& s, const isa::Shared<bf16> (&a)[PANELS<HD>][A],
                                       const isa::Shared<bf16> (&b)[PANELS<HD>][B], int first) {
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint64_t left = isa::matrix_descriptor(&a[step / 4][first * PANEL], 16, 1024, isa::Swizzle::b128);
        uint64_t right = isa::matrix_descriptor(&b[step / 4][0], 16, 1024, isa::Swizzle::b128);
        isa::wgmma(s, isa::advance(left, step % 4 * 32), isa::advance(right, step % 4 * 32), step > 0);
    }
    isa::wgmma_commit();
}

// Issues the wgmmas that add the weighted rows of shared memory to the accumulators.
template <int HD, int STEPS, int B>
__device__ __forceinline__ void weigh(isa::WgmmaAcc<HD>& sums, const isa::Frag<4> (&weights)[STEPS],
                                      const isa::Shared<bf16> (&rows)[PANELS<HD>][B]) {
    static_assert(B == 16 * STEPS * PANEL, "a weight for each row");
    uint64_t right = isa::matrix_descriptor(&rows[0][0], 16 * STEPS * PANEL_BYTES, 1024, isa::Swizzle::b128);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        isa::wgmma<isa::Major::mn>(sums, weights[step], isa::advance(right, step * 16 * PANEL_BYTES), true);
    }
    isa::wgmma_commit();
}

// Stores a value that depends on all probabilities. Without this store ptxas moves the wait for dP above the
// exponentials, and nothing overlaps.
template <class F>
__device__ __forceinline__ void hold(F& p, isa::Shared<uint16_t>* held) {
    uint32_t all = 0;
#pragma unroll
    for (int i = 0; i < tile::COUNT<F>; i++) {
        all |= __float_as_uint(tile::at(p, i));
    }
    isa::store(held + threadIdx.x, (uint16_t)all);
}

// Initialises the mbarriers: `once` for data loaded once, `tail` for the last partial block, and full/empty barriers of
// the stages. A `full` barrier completes after `arrivals` arrivals.
template <int N>
__device__ __forceinline__ void set_up(isa::Mbarrier* once, isa::Mbarrier* tail, isa::Mbarrier (&full)[N],
                                       isa::Mbarrier (&empty)[N], int arrivals) {
    if (threadIdx.x == 0) {
        isa::mbarrier_init(once, 1);
        isa::mbarrier_init(tail, 1);
        for (int i = 0; i < N; i++) {
            isa::mbarrier_init(&full[i], arrivals);
            isa::mbarrier_init(&empty[i], MATH / WARP);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
}

// Multiplies the warpgroup's 64 rows or keys with a stage. On return the scores are complete and dP is still in flight.
template <int HD, class S, class A, class B>
__device__ __forceinline__ void multiply(S& s, S& dp, const A& a, const B& b, const A& da, const B& db, isa::Mbarrier* full,
                                         uint32_t parity) {
    int group = threadIdx.x / 128;
    isa::sync_named(1 + group, MATH);  // exempt: a turn at the tensor cores, which no bit depends on
    isa::mbarrier_wait(full, parity);
    isa::wgmma_fence();
    scores<HD>(s, a, b, group * GROUP_ROWS);
    scores<HD>(dp, da, db, group * GROUP_ROWS);
    isa::arrive_named(2 - group, MATH);
    isa::wgmma_wait<1>();
}

// Loads the panels of a box. One lane calls this.
template <int HD, int B>
__device__ __forceinline__ void load(isa::Shared<bf16> (&to)[PANELS<HD>][B], const isa::TensorMap* map, isa::Mbarrier* full,
                                     int y, int z) {
    for (int p = 0; p < PANELS<HD>; p++) {
        isa::tma_load(to[p], map, full, p * PANEL, y, z);
    }
}

template <int HD>
struct QuerySmem {
    isa::Shared<bf16> q[PANELS<HD>][WIDE_ROWS * PANEL], dout[PANELS<HD>][WIDE_ROWS * PANEL];
    isa::Shared<bf16> k[STAGES][PANELS<HD>][BLOCK * PANEL], v[STAGES][PANELS<HD>][BLOCK * PANEL];
    isa::Shared<bf16> out[WIDE_ROWS * PITCH<HD>];
    isa::Shared<uint16_t> held[MATH];
    isa::Mbarrier rows, tail, full[STAGES], empty[STAGES];
};

// Producer: loads a tile's rows once, then blocks of keys and values: those of the prompt, then `keys` of the sequence's
// `tokens` own ones.
template <int HD>
__device__ __forceinline__ void copy_keys(QuerySmem<HD>& smem, const Args& args, const Item& item, int first, int keys,
                                          int tokens) {
    attention_bwd::Prompt prompt(args.in, item.sequence);
    int group = args.in.q_heads / args.in.kv_heads, start = args.in.cu_seqlens[item.sequence];
    int key_head = args.in.q_heads + item.head;
    clear_rows(smem.q, args.tokens * group);
    clear_rows(smem.dout, args.tokens * group);
    if (isa::elect()) {
        isa::mbarrier_arrive_expect_tx(&smem.rows, 2 * PANELS<HD> * PANEL_BYTES * args.tokens * group);
        load<HD>(smem.q, &args.q, &smem.rows, item.head * group, start + first);
        load<HD>(smem.dout, &args.dout, &smem.rows, item.head * group, start + first);
    }
    int own = prompt.padded(BLOCK), tails = 0;
    for (int begin = 0, round = 0; begin < own + keys; begin += BLOCK, round++) {
        Stage stage(round);
        bool shared = begin < own;
        int row = shared ? prompt.start + begin : start + begin - own, left = (shared ? prompt.tokens : own + tokens) - begin;
        bool tail = left < BLOCK;
        if (isa::elect()) {
            isa::Mbarrier* full = tail ? &smem.tail : &smem.full[stage.at];
            isa::mbarrier_wait(&smem.empty[stage.at], stage.parity ^ 1);
            isa::mbarrier_arrive_expect_tx(full, 2 * PANELS<HD> * PANEL_BYTES * BLOCK);
            load<HD>(smem.k[stage.at], &args.keys, full, key_head, row);
            load<HD>(smem.v[stage.at], &args.keys, full, key_head + args.in.kv_heads, row);
        }
        if (tail) {
            // Keys after the last token are cleared. The product dQ multiplies them by a dS of zero, so they must be
            // finite. Values need no clearing: a value only affects dP of its own key, which is masked.
            isa::mbarrier_wait(&smem.tail, tails++ % 2);
            clear_rows(smem.k[stage.at], left);
            release(&smem.full[stage.at]);
        }
    }
}

template <int HD>
__device__ __forceinline__ void dq(const Args& args) {
    auto& smem = isa::smem<QuerySmem<HD>>();
    int group = args.in.q_heads / args.in.kv_heads, size = args.tokens * group;
    Item item(args, args.slots - 1 - blockIdx.x / args.in.kv_heads, group, size);
    Place place(args.in, item.sequence, item.head, group);
    int from = item.tile * size, to = min(from + size, place.rows);
    if (from >= place.rows) {
        return;
    }
    int keys = args.in.causal ? (to - 1) / group + 1 : place.tokens;
    set_up(&smem.rows, &smem.tail, smem.full, smem.empty, 1);
    if (copies([&] { copy_keys<HD>(smem, args, item, from / group, keys, place.tokens); })) {
        return;
    }
    int mine = from + warp() * WARP_ROWS;
    attention_bwd::Prompt prompt(args.in, item.sequence);
    int own = prompt.padded(BLOCK);
    float lse[2], delta[2];
    int visible[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = mine + lane() / 4 + 8 * i, token = row / group, head = row % group;
        bool real = row < to;
        int64_t at = place.sums + (int64_t)token * args.in.q_heads + head;
        int64_t data = place.out + (int64_t)token * place.out_stride + head * HD;
        visible[i] = !real ? 0 : own + (args.in.causal ? token + 1 : place.tokens);
        lse[i] = real ? args.in.lse[at] * math::LOG2_E : 0.0f;
        delta[i] = tile::quad_sum(real ? attention_bwd::dot<HD / 8>(args.in.dout + data, args.in.out + data, HD) : 0.0f);
        if (real && lane() % 4 == 0) {
            args.in.delta[at] = delta[i];
        }
    }
    int least = own + (args.in.causal ? mine / group + 1 : place.tokens);
    isa::WgmmaAcc<HD> sums;
    isa::WgmmaAcc<BLOCK> s, dp;
    isa::Frag<4> ds[BLOCK / 16];
    tile::clear(sums);
    begin_turns();
    isa::mbarrier_wait(&smem.rows, 0);
#pragma unroll 1
    for (int begin = 0, round = 0; begin < own + keys; begin += BLOCK, round++) {
        Stage stage(round);
        multiply<HD>(s, dp, smem.q, smem.k[stage.at], smem.dout, smem.v[stage.at], &smem.full[stage.at], stage.parity);
        tile::row_exp2(s, args.in.scale_log2e, lse);
        hold(s, smem.held);
        isa::wgmma_wait<0>();
        tile::row_grads(dp, s, delta);
        bool shared = begin < own;
        if ((shared ? prompt.tokens : least) < begin + BLOCK) {
            int seen[2] = {(shared ? prompt.tokens : visible[0]) - begin, (shared ? prompt.tokens : visible[1]) - begin};
            tile::mask(dp, seen, 0.0f);
        }
        tile::round(ds, dp);
        isa::wgmma_fence();
        weigh<HD>(sums, ds, smem.k[stage.at]);
        isa::wgmma_wait<0>();
        release(&smem.empty[stage.at]);
    }
    attention_bwd::write<HD>(sums, args.in.scale, smem.out + warp() * WARP_ROWS * PITCH<HD>, args.in.dqkv + place.q, place,
                             group, mine, to, args.in);
}

template <int HD>
struct KeySmem {
    isa::Shared<bf16> k[PANELS<HD>][BLOCK * PANEL], v[PANELS<HD>][BLOCK * PANEL];
    isa::Shared<bf16> q[ROW_STAGES][PANELS<HD>][ROWS * PANEL], dout[ROW_STAGES][PANELS<HD>][ROWS * PANEL];
    isa::Shared<bf16> out[BLOCK * PITCH<HD>];
    // Log-sum-exp times log2 e, and D = dO . O, of the rows of a stage.
    isa::Shared<float> lse[ROW_STAGES][ROWS], delta[ROW_STAGES][ROWS];
    isa::Shared<uint16_t> held[MATH];
    isa::Mbarrier keys, tail, full[ROW_STAGES], empty[ROW_STAGES];
};

// Producer: loads a block's keys and values once, then the stages of rows of each sequence that reads them. The rows of
// their own sequence begin at token `first`.
template <int HD>
__device__ __forceinline__ void copy_rows(KeySmem<HD>& smem, const Args& args, const Item& item, int group, int first) {
    int block = (int)args.in.cu_seqlens[item.sequence] + item.tile * BLOCK, key_head = args.in.q_heads + item.head;
    int size = args.tokens * group, heads = item.head * group;
    for (int i = 0; i < ROW_STAGES; i++) {
        clear_rows(smem.q[i], size);
        clear_rows(smem.dout[i], size);
    }
    if (isa::elect()) {
        isa::mbarrier_arrive_expect_tx(&smem.keys, 2 * PANELS<HD> * PANEL_BYTES * BLOCK);
        load<HD>(smem.k, &args.keys, &smem.keys, key_head, block);
        load<HD>(smem.v, &args.keys, &smem.keys, key_head + args.in.kv_heads, block);
    }
    int reader = item.sequence, round = 0, tails = 0;
    do {
        reader = attention_bwd::next_reader(args.in, item.sequence, reader);
        Place place(args.in, reader, item.head, group);
        int start = args.in.cu_seqlens[reader];
        for (int token = reader == item.sequence ? first : 0; token < place.tokens; token += args.tokens, round++) {
            int at = round % ROW_STAGES, count = min(args.tokens, place.tokens - token) * group;
            isa::mbarrier_wait(&smem.empty[at], round / ROW_STAGES % 2 ^ 1);
            bool tail = count < size;
            if (isa::elect()) {
                isa::Mbarrier* full = tail ? &smem.tail : &smem.full[at];
                isa::mbarrier_arrive_expect_tx(full, 2 * PANELS<HD> * PANEL_BYTES * size);
                load<HD>(smem.q[at], &args.q, full, heads, start + token);
                load<HD>(smem.dout[at], &args.dout, full, heads, start + token);
            }
            // A row that does not exist has zero Q and dO, so it adds nothing as long as its other numbers are finite.
            for (int row = lane(); row < ROWS; row += WARP) {
                int64_t from = place.sums + (int64_t)(token + row / group) * args.in.q_heads + row % group;
                smem.lse[at][row] = row < count ? args.in.lse[from] * math::LOG2_E : 0.0f;
                smem.delta[at][row] = row < count ? args.in.delta[from] : 0.0f;
            }
            if (tail) {
                isa::mbarrier_wait(&smem.tail, tails++ % 2);
                clear_rows(smem.q[at], count);
                clear_rows(smem.dout[at], count);
                release(&smem.full[at]);
            }
            isa::sync_warp();
            release(&smem.full[at]);
        }
    } while (reader != item.sequence);
}

template <int HD>
__device__ __forceinline__ void dkv(const Args& args) {
    auto& smem = isa::smem<KeySmem<HD>>();
    int group = args.in.q_heads / args.in.kv_heads;
    int slot = blockIdx.x / args.in.kv_heads;
    Item item(args, slot % args.slots, 1, BLOCK);
    Place place(args.in, item.sequence, item.head, group);
    int first = args.in.causal ? item.tile * BLOCK : 0;
    // If prompts are shared, the grid has every slot twice. Their keys, which have the most rows, start first: the first
    // half of the grid computes them, and the second half all other keys.
    bool is_shared = attention_bwd::next_reader(args.in, item.sequence, item.sequence) != item.sequence;
    bool is_other_half = args.in.prompt_of != nullptr && is_shared == (slot >= args.slots);
    if (is_other_half || item.tile * BLOCK >= place.tokens) {
        return;
    }
    set_up(&smem.keys, &smem.tail, smem.full, smem.empty, 2);
    if (copies([&] { copy_rows<HD>(smem, args, item, group, first); })) {
        return;
    }
    int mine = item.tile * BLOCK + warp() * WARP_ROWS;
    isa::WgmmaAcc<HD> dk, dv;
    isa::WgmmaAcc<ROWS> s, dp;
    isa::Frag<4> p[ROWS / 16], ds[ROWS / 16];
    tile::clear(dk);
    tile::clear(dv);
    begin_turns();
    isa::mbarrier_wait(&smem.keys, 0);
    int reader = item.sequence, round = 0;
    do {
        reader = attention_bwd::next_reader(args.in, item.sequence, reader);
        place = Place(args.in, reader, item.head, group);
        bool causal = args.in.causal && reader == item.sequence;
        // First row that sees all keys of the warp (`all`), and first row that sees the lane's first key (`key`).
        int all = causal ? (mine + WARP_ROWS - 1) * group : 0;
        int key = causal ? (mine + lane() / 4) * group : 0;
#pragma unroll 1
        for (int row = causal ? first * group : 0; row < place.rows; row += args.in.step, round++) {
            int at = round % ROW_STAGES;
            multiply<HD>(s, dp, smem.k, smem.q[at], smem.v, smem.dout[at], &smem.full[at], round / ROW_STAGES % 2);
            tile::column_exp2(s, args.in.scale_log2e, smem.lse[at], 1.0f);
            hold(s, smem.held);
            isa::wgmma_wait<0>();
            tile::column_grads(dp, s, smem.delta[at]);
            if (row < all) {
                int seen[2] = {key - row, key - row + 8 * group};
                tile::mask_before(s, seen, 0.0f);
                tile::mask_before(dp, seen, 0.0f);
            }
            tile::round(p, s);
            tile::round(ds, dp);
            isa::wgmma_fence();
            weigh<HD>(dv, p, smem.dout[at]);
            weigh<HD>(dk, ds, smem.q[at]);
            isa::wgmma_wait<0>();
            release(&smem.empty[at]);
        }
        attention_bwd::end_reader<HD>(dk, dv, args.in, item.sequence, reader, item.head, mine);
    } while (reader != item.sequence);
    isa::Shared<bf16>* staged = smem.out + warp() * WARP_ROWS * PITCH<HD>;
    attention_bwd::write<HD>(dk, args.in.scale, staged, args.in.dqkv + place.k, place, 1, mine, place.tokens, args.in);
    isa::sync_warp();
    attention_bwd::write<HD>(dv, 1.0f, staged, args.in.dqkv + place.v, place, 1, mine, place.tokens, args.in);
}
}  // namespace attend_bwd
