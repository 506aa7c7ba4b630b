// Attention of a tile of rows on compute capability 9.0: the accumulation chains of attend.cuh with wgmma, and with
// operands loaded by TMA.
//
// A CTA is persistent and loops over tiles of full tokens of one key head. Within a sequence the tiles with the most
// keys come first. A CTA that has finished a tile takes the next one from a counter in global memory.
// - One producer warp takes the tiles. It loads the queries of a tile, then its blocks of keys and values through two
//   pipeline stages each. Tiles lie in shared memory as panels of 64 columns, swizzled as wgmma reads them.
// - A `full` mbarrier completes when the bytes of its buffer have arrived. An `empty` mbarrier completes when one lane
//   of each math warp has arrived, after the wgmmas that read the buffer are done.
// - Two math warpgroups with 64 rows each alternate on the tensor cores. While one runs its scores and the product of
//   its previous probabilities with their values, the other computes its softmax.
// - The state of the previous chunks waits in registers (base and sum) and in shared memory (outputs).
// In decode a tile is a work item (attend_item.cuh). One warpgroup computes it and stores its state for the next item.
#pragma once

#include "common/attend_calls.cuh"
#include "common/attend_item.cuh"
#include "isa/hopper.cuh"

namespace attend {

// Largest number of rows of a CTA; rows of a warpgroup; pipeline stages of keys and of values.
constexpr int WIDE_ROWS = 128;
constexpr int GROUP_ROWS = 64;
constexpr int STAGES = 2;
constexpr int MATH = 256;
constexpr int WIDE_THREADS = MATH + 128;
// Columns of a panel (128 bytes).
constexpr int PANEL = 64;
constexpr int PANEL_BYTES = PANEL * 2;
// Registers per thread. Every thread starts with 168. The producer warpgroup gives up registers, which the math
// warpgroups need for scores and outputs.
constexpr int REGISTERS_COPY = 40, REGISTERS_MATH = 232;

template <int HD>
constexpr int PANELS = (HD + PANEL - 1) / PANEL;

template <int HD>
struct WideSmem {
    isa::Shared<bf16> q[PANELS<HD>][WIDE_ROWS * PANEL];
    isa::Shared<bf16> k[STAGES][PANELS<HD>][BLOCK * PANEL];
    isa::Shared<bf16> v[STAGES][PANELS<HD>][BLOCK * PANEL];
    // Per math warp: the outputs of the previous chunks, then the rows to be stored.
    isa::Shared<float> total[MATH / WARP][WARP * HD / 2];
    // Two row sums per math thread.
    isa::Shared<float> l[MATH * 2];
    // Item whose queries are in `q`, or -1 after the last one.
    isa::Shared<int> item[2];
    isa::Mbarrier q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES], v_tail;
};

template <class A>
struct WideArgs {
    isa::TensorMap q;     // boxes: 64 columns by the heads of a group by the tokens of a tile
    isa::TensorMap k, v;  // boxes: 64 columns by 128 keys
    A in;
    uint32_t* counter;  // tiles taken after the first one of each CTA; zero before the launch
    int tile_rows;  // rows per tile: full tokens, at most WIDE_ROWS
    int slots;      // slots of tiles (attend::sequence_of) for each key head
};

// A tile of the grid, which sees keys `begin` .. `end` of the sequence's `keys` keys.
struct WideTile {
    Place place;
    int head;
    int begin, end, keys;
    bool any;  // true if the slot has rows
};

// Returns work item i of the grid.
template <class A>
__device__ __forceinline__ WideTile tile_of(const WideArgs<A>& args, int i) {
    WideTile tile;
    tile.head = i % args.in.kv_heads;
    tile.any = place_of(args.in, args.slots - 1 - i / args.in.kv_heads, tile.head, args.tile_rows, tile.place);
    tile.begin = 0;
    tile.end = tile.place.rows.visible(tile.place.rows.to - 1);
    tile.keys = tile.place.keys;
    return tile;
}

// Takes the next item from a counter. One warp calls this, and all its lanes receive the item.
__device__ __forceinline__ int take_item(uint32_t* counter) {
    uint32_t taken = lane() == 0 ? isa::atomic_add(counter, 1u) : 0;
    return gridDim.x + isa::shfl(taken, 0);
}

// Arguments of decode. The boxes of q have 64 columns by the heads of one token.
struct WideItemArgs {
    isa::TensorMap q, k, v;
    DecodeArgs in;
};

// Second and third coordinate of a box. The first one is its column.
struct Box {
    int y, z;
};

// Pipeline stage and mbarrier parity of block number `block`.
struct Stage {
    int at;
    uint32_t parity;
    __device__ __forceinline__ explicit Stage(int block) : at(block % STAGES), parity(block / STAGES % 2) {}
};

// Clears rows from `from` on in a wgmma operand. One warp calls this.
template <int N, int ELEMENTS>
__device__ __forceinline__ void clear_rows(isa::Shared<bf16> (&panels)[N][ELEMENTS], int from) {
#pragma unroll 1
    for (int i = from * PANEL + lane() * 8; i < ELEMENTS; i += WARP * 8) {
#pragma unroll
        for (int panel = 0; panel < N; panel++) {
            isa::store<uint4>(&panels[panel][i], make_uint4(0, 0, 0, 0));
        }
    }
    isa::fence_proxy_async();
    isa::sync_warp();
}

// Arrives at `empty` with one lane of each warp. Callers must have waited for the warp's wgmmas that read the buffer.
__device__ __forceinline__ void release(isa::Mbarrier* empty) {
    if (lane() == 0) {
        isa::mbarrier_arrive(empty);
    }
}

// Runs `copy` in the first warp of the producer warpgroup, and returns true in all threads of that warpgroup. In the
// math warpgroups it returns false, and they take the registers that the producer gave up.
template <class F>
__device__ __forceinline__ bool copies(F&& copy) {
    if (threadIdx.x < MATH) {
        isa::registers_increase<REGISTERS_MATH>();
        return false;
    }
    isa::registers_decrease<REGISTERS_COPY>();
    if (threadIdx.x < MATH + WARP) {
        copy();
    }
    return true;
}

// Lets the first math warpgroup take the first turn on the tensor cores.
__device__ __forceinline__ void begin_turns() {
    if (threadIdx.x / 128 == 1) {
        isa::arrive_named(1, MATH);
    }
}

// Passes an item to the math warps, whose queries have `bytes` bytes. One lane calls this.
template <int HD>
__device__ __forceinline__ void pass_item(WideSmem<HD>& smem, int item, int tiles, int bytes) {
    isa::mbarrier_wait(&smem.q_empty, tiles % 2 ^ 1);
    smem.item[0] = item;
    isa::mbarrier_arrive_expect_tx(&smem.q_full, bytes);
}

// Passes a tile to the math warps and loads its queries: full tokens, one box per panel.
template <int HD, class A>
__device__ __forceinline__ void copy_queries(WideSmem<HD>& smem, const WideArgs<A>& args, const WideTile& tile, int item,
                                             int tiles) {
    if (!isa::elect()) return;
    int group = tile.place.rows.group, token = tile.place.start + tile.place.rows.from / group;
    pass_item(smem, item, tiles, PANELS<HD> * PANEL_BYTES * args.tile_rows);
    for (int p = 0; p < PANELS<HD>; p++) {
        isa::tma_load(smem.q[p], &args.q, &smem.q_full, p * PANEL, tile.head * group, token);
    }
}

// Does the same for a decode item. Its tokens may lie anywhere, so each token is a box of its own, issued by a separate
// lane.
template <int HD>
__device__ __forceinline__ void copy_queries(WideSmem<HD>& smem, const WideItemArgs& args, const Item& item, int i,
                                             int tiles) {
    if (lane() == 0) {
        pass_item(smem, i, tiles, PANELS<HD> * PANEL_BYTES * item.tokens * item.group);
    }
    isa::sync_warp();
    if (lane() < item.tokens) {
        int token = item.token(lane()), row = lane() * item.pitch;
        for (int p = 0; p < PANELS<HD>; p++) {
            isa::tma_load(&smem.q[p][row * PANEL], &args.q, &smem.q_full, p * PANEL, item.query(0), token);
        }
    }
}

// Producer warp: one lane issues the loads of keys and values. All lanes clear the values after a sequence's last key,
// where TMA loads unrelated data.
template <int HD, class Call>
__device__ __forceinline__ void copy_tiles(WideSmem<HD>& smem, const Call& call) {
    int block = 0, tiles = 0, tails = 0;
    // Stage of a block with values of another sequence that are not cleared yet, and its first such row. -1 if none.
    int tail_stage = -1, tail_row = 0;
    auto clear_tail = [&] {
        if (tail_stage >= 0) {
            isa::mbarrier_wait(&smem.v_tail, tails % 2);
            tails++;
            clear_rows(smem.v[tail_stage], tail_row);
            release(&smem.v_full[tail_stage]);
            tail_stage = -1;
        }
    };
    clear_rows(smem.q, call.cleared());
    for (int i = blockIdx.x; i < call.items(); i = call.next(i)) {
        auto tile = call.tile(i);
        if (!tile.any) continue;
        if (tile.end <= 0) {
            // The math warps need the last values of the previous tile before they take this one.
            clear_tail();
            if (lane() == 0) {
                pass_item(smem, i, tiles, 0);
            }
            tiles++;
        }
        for (int begin = tile.begin; begin < tile.end; begin += BLOCK, block++) {
            Stage stage(block);
            bool tail = begin + BLOCK > tile.keys;
            // The places of the boxes may come from global memory, so they are read before the waits.
            Box keys = call.keys(tile, begin / BLOCK), values = call.values(tile, begin / BLOCK);
            if (isa::elect()) {
                isa::mbarrier_wait(&smem.k_empty[stage.at], stage.parity ^ 1);
                isa::mbarrier_arrive_expect_tx(&smem.k_full[stage.at], PANELS<HD> * PANEL_BYTES * BLOCK);
                for (int p = 0; p < PANELS<HD>; p++) {
                    isa::tma_load(smem.k[stage.at][p], &call.args.k, &smem.k_full[stage.at], p * PANEL, keys.y, keys.z);
                }
            }
            // The next keys are already in flight while the last block of the previous tile is waited for.
            clear_tail();
            if (isa::elect()) {
                isa::Mbarrier* full = tail ? &smem.v_tail : &smem.v_full[stage.at];
                isa::mbarrier_wait(&smem.v_empty[stage.at], stage.parity ^ 1);
                isa::mbarrier_arrive_expect_tx(full, PANELS<HD> * PANEL_BYTES * BLOCK);
                for (int p = 0; p < PANELS<HD>; p++) {
                    isa::tma_load(smem.v[stage.at][p], &call.args.v, full, p * PANEL, values.y, values.z);
                }
            }
            // This wait comes after the first key loads, because the math warps may still need the queries of the
            // previous tile.
            if (begin == tile.begin) {
                copy_queries(smem, call.args, tile, i, tiles++);
            }
            if (tail) {
                tail_stage = stage.at;
                tail_row = tile.keys - begin;
            }
        }
    }
    clear_tail();
    if (lane() == 0) {
        pass_item(smem, -1, tiles, 0);
    }
}

// One warpgroup's part of the tiles. TURNS: true if two warpgroups alternate on the tensor cores.
template <int HD, bool TURNS>
struct WideMath {
    WideSmem<HD>& smem;
    int group;      // index of this math warpgroup: 0 or 1
    int block = 0;   // blocks processed so far
    int tiles = 0;  // tiles whose queries this warpgroup has waited for
    State<isa::WgmmaAcc<HD>> state;
    isa::WgmmaAcc<BLOCK> s;
    isa::Frag<4> p[BLOCK / 16];
    float alpha[2];

    __device__ __forceinline__ explicit WideMath(WideSmem<HD>& smem) : smem(smem), group(threadIdx.x / 128) {}

    // Issues the wgmmas for the scores of the rows with the key block of a stage.
    __device__ __forceinline__ void scores(int stage) {
#pragma unroll
        for (int step = 0; step < HD / 16; step++) {
            const isa::Shared<bf16>*q = &smem.q[step / 4][group * GROUP_ROWS * PANEL], *k = smem.k[stage][step / 4];
            uint64_t a = isa::matrix_descriptor(q, 16, 1024, isa::Swizzle::b128);
            uint64_t b = isa::matrix_descriptor(k, 16, 1024, isa::Swizzle::b128);
            isa::wgmma(s, isa::advance(a, step % 4 * 32), isa::advance(b, step % 4 * 32), step > 0);
        }
        isa::wgmma_commit();
    }

    // Issues the wgmmas for the product of the probabilities with the values of a stage.
    __device__ __forceinline__ void weigh(int stage) {
        uint64_t b = isa::matrix_descriptor(&smem.v[stage][0][0], BLOCK * PANEL_BYTES, 1024, isa::Swizzle::b128);
#pragma unroll
        for (int step = 0; step < BLOCK / 16; step++) {
            isa::wgmma<isa::Major::mn>(state.o, p[step], isa::advance(b, step * 16 * PANEL_BYTES), true);
        }
        isa::wgmma_commit();
    }

    // Turns scores into fp32 probabilities, and updates the base and the sum.
    __device__ __forceinline__ void softmax(const VisibleKeys& visible_keys, int begin, float scale) {
        float most[2], sum[2];
        int visible[2] = {visible_keys.keys[0] - begin, visible_keys.keys[1] - begin};
        mask_and_max(s, visible_keys.least < begin + BLOCK, visible, most);
        state.raise(most, scale, alpha);
        probabilities(s, scale, state.m, visible, sum);
        sum[0] = tile::quad_sum(sum[0]);
        sum[1] = tile::quad_sum(sum[1]);
        // The sums live in shared memory because a store that depends on all exponentials constrains ptxas. Without
        // such a store, ptxas moves the wait for the product with the values above the exponentials, and nothing
        // overlaps.
        isa::Shared<float>* mine = smem.l + 2 * threadIdx.x;
        float2 l = isa::load<float2>(mine);
        isa::store(mine, make_float2(fmaf(l.x, alpha[0], sum[0]), fmaf(l.y, alpha[1], sum[1])));
    }

    // Waits for the queries of the next item, and returns the item.
    __device__ __forceinline__ int wait_item() {
        isa::mbarrier_wait(&smem.q_full, tiles++ % 2);
        return smem.item[0];
    }

    // Passes over blocks begin .. end in a warpgroup that has no rows. It releases a stage when the values have
    // arrived, because their load is issued after the load of the keys. The sync keeps every lane in the same mbarrier
    // phase as the lane that releases the stage.
    __device__ __forceinline__ void pass(int begin, int end) {
        for (; begin < end; begin += BLOCK) {
            Stage stage(block++);
            isa::mbarrier_wait(&smem.v_full[stage.at], stage.parity);
            isa::sync_warp();  // exempt: schedules in which a lane falls two phases behind are rare
            release(&smem.k_empty[stage.at]);
            release(&smem.v_empty[stage.at]);
        }
    }

    // Computes blocks begin .. end of a chunk and adds them to the state.
    __device__ __forceinline__ void chunk(const VisibleKeys& visible_keys, int begin, int end, float scale) {
        isa::store(smem.l + 2 * threadIdx.x, make_float2(state.l[0], state.l[1]));
        Stage stage(block);
        isa::mbarrier_wait(&smem.k_full[stage.at], stage.parity);
        isa::wgmma_fence();
        scores(stage.at);
        isa::wgmma_wait<0>();
        release(&smem.k_empty[stage.at]);
        softmax(visible_keys, begin, scale);
        tile::row_scale(state.o, alpha);
        tile::round(p, s);
#pragma unroll 1
        for (; begin + BLOCK < end; begin += BLOCK) {
            Stage before(block), now(++block);
            if constexpr (TURNS) {
                isa::sync_named(1 + group, MATH);  // exempt: a turn at the tensor cores, which no bit depends on
            }
            isa::mbarrier_wait(&smem.k_full[now.at], now.parity);
            isa::wgmma_fence();
            scores(now.at);
            isa::mbarrier_wait(&smem.v_full[before.at], before.parity);
            isa::wgmma_fence();  // exempt: without it ptxas fences in a branch and serialises the products (C7520)
            weigh(before.at);
            if constexpr (TURNS) {
                isa::arrive_named(2 - group, MATH);
            }
            isa::wgmma_wait<1>();
            release(&smem.k_empty[now.at]);
            softmax(visible_keys, begin + BLOCK, scale);
            isa::wgmma_wait<0>();
            release(&smem.v_empty[before.at]);
            tile::row_scale(state.o, alpha);
            tile::round(p, s);
        }
        Stage last(block++);
        isa::mbarrier_wait(&smem.v_full[last.at], last.parity);
        isa::wgmma_fence();
        weigh(last.at);
        isa::wgmma_wait<0>();
        release(&smem.v_empty[last.at]);
        float2 l = isa::load<float2>(smem.l + 2 * threadIdx.x);
        state.l[0] = l.x;
        state.l[1] = l.y;
    }
};

// Computes a tile's rows and writes them. Rows without keys become zeros.
template <int HD, bool TURNS, class A>
__device__ __forceinline__ void attend_tile(WideMath<HD, TURNS>& math, const WideArgs<A>& args, const WideTile& tile) {
    const Rows& rows = tile.place.rows;
    if (tile.end <= 0) {
        write_zeros(rows, MATH);
        isa::sync_warp();
        release(&math.smem.q_empty);
        return;
    }
    int from = rows.from + warp() * WARP_ROWS;
    isa::Shared<float>* total = math.smem.total[warp()] + lane();
    auto* staged = reinterpret_cast<isa::Shared<bf16>*>(math.smem.total[warp()]);
    float m[2], l[2];
    VisibleKeys visible_keys(rows, from);
    for (int begin = 0; begin < tile.end; begin += CHUNK) {
        int end = min(begin + CHUNK, tile.end);
        math.state.reset();
        math.chunk(visible_keys, begin, end, rows.scale_log2e);
        if (begin > 0) {
            math.state.fold(m, l, total, WARP);
        }
        if (end < tile.end) {
            math.state.save(m, l, total, WARP);
        }
    }
    release(&math.smem.q_empty);
    // All lanes have read the outputs of the previous chunks.
    isa::sync_warp();
    math.state.template stage<HD>(staged, 0);
    isa::sync_warp();
    write_rows<HD>(rows, staged, from, rows.to, lane(), WARP);
    if (rows.lse != nullptr) {
        math.state.write_lse(rows, from);
    }
}

// Computes the rows of a decode item.
template <int HD, bool TURNS>
__device__ __forceinline__ void attend_tile(WideMath<HD, TURNS>& math, const WideItemArgs& args, const Item& item) {
    int from = warp() * WARP_ROWS, rows = item.tokens * item.pitch;
    if (math.group * GROUP_ROWS >= rows) {
        math.pass(item.begin, item.end);
        release(&math.smem.q_empty);
        return;
    }
    resume_state<HD>(math.state, item, from, 0, 0);
    math.chunk(VisibleKeys(item.keys), item.begin, item.end, args.in.scale_log2e);
    release(&math.smem.q_empty);
    if (from < rows && fold_if_last<HD>(math.state, item, from, 0, 0, warp())) {
        write_out<HD>(math.state, item, from, 0);
    }
}

template <int HD, class Call>
__device__ __forceinline__ void attend_wide(const Call& call) {
    auto& smem = isa::smem<WideSmem<HD>>();
    if (threadIdx.x == 0) {
        isa::mbarrier_init(&smem.q_full, 1);
        isa::mbarrier_init(&smem.q_empty, MATH / WARP);
        isa::mbarrier_init(&smem.v_tail, 1);
        for (int i = 0; i < STAGES; i++) {
            isa::mbarrier_init(&smem.k_full[i], 1);
            isa::mbarrier_init(&smem.k_empty[i], MATH / WARP);
            isa::mbarrier_init(&smem.v_full[i], 1);
            isa::mbarrier_init(&smem.v_empty[i], MATH / WARP);
        }
        isa::fence_mbarrier_init();
    }
    isa::sync_cta();
    if (copies([&] { copy_tiles<HD>(smem, call); })) {
        return;
    }
    WideMath<HD, Call::TURNS> math(smem);
    if constexpr (Call::TURNS) {
        begin_turns();
    }
    for (int i = math.wait_item(); i >= 0; i = math.wait_item()) {
        attend_tile(math, call.args, call.tile(i));
    }
}
}  // namespace attend
