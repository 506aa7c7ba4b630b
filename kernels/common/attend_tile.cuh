// Two ways in which a CTA of four warps computes attention of a tile of rows (attend.cuh) over a source of key blocks:
// - `attend_rows`: 16 rows per warp, for prefill and training.
// - `attend_together`: 16 rows in total, for decode. The warps share the keys of a score and the dimensions of an
//   output.
// Keys and values have one buffer each. Values load while the scores are computed, and the next keys load during the
// product with the values.
#pragma once

#include "common/attend_item.cuh"

namespace attend {

// Rows per CTA of attend_rows.
constexpr int TILE_ROWS = WARPS * WARP_ROWS;

template <int HD>
struct RowsSmem {
    isa::Shared<bf16> k[BLOCK * PITCH<HD>];
    isa::Shared<bf16> v[BLOCK * PITCH<HD>];  // before the first values: the queries
};

template <int HD>
struct TogetherSmem {
    static constexpr int TILES = (HD / 8 + WARPS - 1) / WARPS;  // tiles of 8 output dimensions per warp
    isa::Shared<bf16> k[BLOCK * PITCH<HD>];
    isa::Shared<bf16> v[BLOCK * PITCH<HD>];
    isa::Shared<bf16> q[WARP_ROWS * PITCH<HD>];
    isa::Shared<bf16> p[WARP_ROWS * PITCH<BLOCK>];
    isa::Shared<float> most[WARPS * WARP_ROWS];
    isa::Shared<float> sum[WARPS * WARP_ROWS * 4];
};

// Copies the keys or values of the block that starts at key `begin` to shared memory.
template <int HD, class R>
__device__ __forceinline__ void copy_block(isa::Shared<bf16>* to, const bf16* from, int64_t stride, int begin, int keys,
                                           const R& rows) {
    copy_rows<HD, BLOCK>(to, KeyRows{from, stride}, keys - begin, rows.dim, rows.wide);
}

// Computes attention of the rows rows.from .. rows.to, at most TILE_ROWS rows.
template <int HD, class Source>
__device__ __forceinline__ void attend_rows(const Rows& rows, const Source& source) {
    auto& smem = isa::smem<RowsSmem<HD>>();
    int keys = rows.visible(rows.to - 1);
    if (keys <= 0) {
        write_zeros(rows, THREADS);
        return;
    }
    int from = rows.from + warp() * WARP_ROWS;
    bool active = from < rows.to;
    VisibleKeys visible_keys(rows, from);
    isa::Frag<4> q[HD / 16];
    State<isa::Acc[HD / 8]> state;
    // State of the previous chunks. It is used once per chunk, so it takes neither registers nor shared memory.
    Local<float> total[4 + HD / 2];
    state.reset();
    Keys block = source.block(0);
    copy_rows<HD, TILE_ROWS>(smem.v, QueryRows{rows}, rows.to - rows.from, rows.dim, rows.wide);
    isa::cp_async_commit();
    copy_block<HD>(smem.k, block.k, source.stride, 0, keys, rows);
    isa::cp_async_commit();
    isa::cp_async_wait<1>();
    isa::sync_cta();
    load_queries<HD>(q, smem.v + warp() * WARP_ROWS * PITCH<HD>);

    for (int begin = 0; begin < keys; begin += BLOCK) {
        if (begin > 0 && begin % CHUNK == 0) {
            if (begin > CHUNK) {
                state.fold(total);
            }
            state.save(total);
            state.reset();
        }
        isa::Frag<4> p[BLOCK / 16];
        float alpha[2], sum[2];
        bool more = begin + BLOCK < keys;
        isa::cp_async_wait<0>();
        // The keys have arrived, and no warp still reads the values of the previous block.
        isa::sync_cta();
        copy_block<HD>(smem.v, block.v, source.stride, begin, keys, rows);
        isa::cp_async_commit();
        if (more) {
            block = source.block(begin / BLOCK + 1);
        }
        if (active) {
            isa::Acc s[BLOCK / 8];
            float most[2];
            int visible[2] = {visible_keys.keys[0] - begin, visible_keys.keys[1] - begin};
            scores<HD>(s, q, smem.k);
            mask_and_max(s, visible_keys.least < begin + BLOCK, visible, most);
            state.raise(most, rows.scale_log2e, alpha);
            probabilities(s, rows.scale_log2e, state.m, visible, sum);
            tile::round(p, s);
            sum[0] = tile::quad_sum(sum[0]);
            sum[1] = tile::quad_sum(sum[1]);
        }
        isa::cp_async_wait<0>();
        // The values have arrived, and no warp still reads the keys.
        isa::sync_cta();
        if (more) {
            copy_block<HD>(smem.k, block.k, source.stride, begin + BLOCK, keys, rows);
            isa::cp_async_commit();
        }
        if (active) {
            state.rescale(alpha, sum);
            state.template weigh<HD>(p, smem.v, 0);
        }
    }
    if (keys > CHUNK) {
        state.fold(total);
    }
    isa::Shared<bf16>* staged = smem.k + warp() * WARP_ROWS * PITCH<HD>;
    state.template stage<HD>(staged, 0);
    isa::sync_warp();
    write_rows<HD>(rows, staged, from, rows.to, lane(), WARP);
    if (rows.lse != nullptr) {
        state.write_lse(rows, from);
    }
}

struct ItemQueries {
    const Item& item;
    int from;
    __device__ __forceinline__ const bf16* operator()(int row) const {
        const DecodeArgs& args = item.args;
        int64_t at = item.token((from + row) / item.pitch) * (args.q_heads + 2 * args.kv_heads) + item.query(from + row);
        return args.qkv + at * args.dim;
    }
};

// Computes attention of WARP_ROWS rows of an item, starting at row `from`, over the item's keys. The accumulation
// chains are those of attend_rows: a warp computes one group of 32 keys of every score row and sum, and complete chains
// for its dimensions of the output. A warp may finish while others still read the last values. This is safe: for the
// next item, the warp writes only queries and keys before it waits for the other warps.
template <int HD, class Source>
__device__ __forceinline__ void attend_together(const Item& item, int from, const Source& source) {
    constexpr int TILES = TogetherSmem<HD>::TILES;
    auto& smem = isa::smem<TogetherSmem<HD>>();
    const DecodeArgs& args = item.args;
    int first_tile = warp() * TILES, first_key = warp() * 32, keys = item.keys;
    isa::Frag<4> q[HD / 16];
    State<isa::Acc[TILES]> state;
    Keys block = source.block(item.begin / BLOCK);
    copy_rows<HD, WARP_ROWS>(smem.q, ItemQueries{item, from}, item.tokens * item.group - from, args.dim, args.wide);
    isa::cp_async_commit();
    copy_block<HD>(smem.k, block.k, source.stride, item.begin, keys, args);
    isa::cp_async_commit();
    isa::cp_async_wait<1>();
    isa::sync_cta();
    load_queries<HD>(q, smem.q);
    resume_state<HD>(state, item, from, first_tile, warp());

    for (int begin = item.begin; begin < item.end; begin += BLOCK) {
        isa::Acc s[4];
        float alpha[2], most[2], sum[2];
        int left = keys - begin, visible[2] = {left - first_key, left - first_key};
        bool more = begin + BLOCK < item.end;
        isa::cp_async_wait<0>();
        // The keys have arrived, and no warp still reads the values, probabilities and sums of the previous block.
        isa::sync_cta();
        copy_block<HD>(smem.v, block.v, source.stride, begin, keys, args);
        isa::cp_async_commit();
        if (more) {
            block = source.block(begin / BLOCK + 1);
        }
        scores<HD>(s, q, smem.k + first_key * PITCH<HD>);
        mask_and_max(s, left < BLOCK, visible, most);
        if (lane() % 4 == 0) {
            smem.most[warp() * WARP_ROWS + lane() / 4] = most[0];
            smem.most[warp() * WARP_ROWS + lane() / 4 + 8] = most[1];
        }
        isa::sync_cta();
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            most[0] = fmaxf(most[0], smem.most[w * WARP_ROWS + lane() / 4]);
            most[1] = fmaxf(most[1], smem.most[w * WARP_ROWS + lane() / 4 + 8]);
        }
        state.raise(most, args.scale_log2e, alpha);
        visible[0] = visible[1] = left;
        probabilities(s, args.scale_log2e, state.m, visible, sum);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = lane() / 4 + 8 * i;
            smem.sum[(warp() * WARP_ROWS + row) * 4 + lane() % 4] = sum[i];
#pragma unroll
            for (int tile = 0; tile < 4; tile++) {
                isa::Shared<bf16>* to = smem.p + row * PITCH<BLOCK> + first_key + tile * 8 + lane() % 4 * 2;
                isa::store<uint32_t>(to, pack(s[tile][2 * i], s[tile][2 * i + 1]));
            }
        }
        isa::cp_async_wait<0>();
        // The values, probabilities and sums are complete, and no warp still reads the keys.
        isa::sync_cta();
        if (more) {
            copy_block<HD>(smem.k, block.k, source.stride, begin + BLOCK, keys, args);
            isa::cp_async_commit();
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const isa::Shared<float>* part = smem.sum + (lane() / 4 + 8 * i) * 4 + lane() % 4;
            sum[i] = part[0];
#pragma unroll
            for (int w = 1; w < WARPS; w++) {
                sum[i] += part[w * WARP_ROWS * 4];
            }
            sum[i] = tile::quad_sum(sum[i]);
        }
        isa::Frag<4> p[BLOCK / 16];
        load_queries<BLOCK>(p, smem.p);
        state.rescale(alpha, sum);
        state.template weigh<HD>(p, smem.v, first_tile);
    }
    // From here the warps are independent: each holds finished outputs, and has its own ticket for these rows of a
    // sequence.
    if (fold_if_last<HD>(state, item, from, first_tile, warp(), from / WARP_ROWS * WARPS + warp())) {
        write_out<HD>(state, item, from, first_tile);
    }
}
}  // namespace attend
