// Epilogues of linear layers: bias and residual, GELU, SwiGLU, rope and the KV cache store, or none. common/gemm.cuh
// defines the interface.
#pragma once

#include "common/gemm.cuh"
#include "common/math.cuh"

namespace gemm {

// Returns the sums of a quad, plus the bias if there is one.
template <class T>
__device__ __forceinline__ Quad biased(const Sums<T>& tile, int row, int column, const bf16* bias, int n, bool whole,
                                       int count) {
    Quad q = sums_at<T>(tile, row, column);
    return bias ? q + load_quad(bias + n, whole, count) : q;
}

// y = sums (+ bias) (+ residual).
struct Linear : InOrder {
    struct Args {
        const bf16* bias;
        const bf16* residual;
        bf16* y;
    };
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        bool whole = in.cols % 4 == 0;
        each_quad<T>(in, m, n, [&](int row, int column, int count, size_t at) {
            Quad q = biased<T>(tile, row, column, to.bias, n + column, whole, count);
            if (to.residual) {
                q = q + load_quad(to.residual + at, whole, count);
            }
            store_quad(to.y + at, q, whole, count);
        });
    }
};

// y = sums, in fp32.
struct Logits : InOrder {
    struct Args {
        float* y;
    };
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        bool whole = in.cols % 4 == 0;
        each_quad<T>(in, m, n, [&](int row, int column, int count, size_t at) {
            store_quad(to.y + at, sums_at<T>(tile, row, column), whole, count);
        });
    }
};

// y = gelu(sums + bias), exact or with tanh. `pre` receives the value before the activation if it is not null.
template <bool TANH>
struct GeluOf : InOrder {
    struct Args {
        const bf16* bias;
        bf16* pre;
        bf16* y;
    };
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        bool whole = in.cols % 4 == 0;
        each_quad<T>(in, m, n, [&](int row, int column, int count, size_t at) {
            Quad q = biased<T>(tile, row, column, to.bias, n + column, whole, count);
            if (to.pre) {
                store_quad(to.pre + at, q, whole, count);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                q.v[i] = TANH ? math::gelu_tanh(q.v[i]) : math::gelu(q.v[i]);
            }
            store_quad(to.y + at, q, whole, count);
        });
    }
};

using Gelu = GeluOf<false>;
using GeluTanh = GeluOf<true>;

// y = silu(gate) * up. Gate and up columns alternate in blocks of 32. `gate_up` receives both if it is not null.
struct SwiGlu : InOrder {
    struct Args {
        const bf16* bias;
        bf16* gate_up;
        bf16* y;
    };
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        each<T, T::BLOCK_N / 2, 4>(in, m, [&](int row, int pair) {
            int column = pair / 32 * GROUP + pair % 32;
            if (n + column >= in.cols) {
                return;
            }
            // cols is a multiple of 64, so every quad is complete.
            Quad gate = biased<T>(tile, row, column, to.bias, n + column, true, 4);
            Quad up = biased<T>(tile, row, column + 32, to.bias, n + column + 32, true, 4);
            size_t at = (size_t)(m + row) * in.cols + n + column;
            if (to.gate_up) {
                store_quad(to.gate_up + at, gate, true, 4);
                store_quad(to.gate_up + at + 32, up, true, 4);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                gate.v[i] = math::silu(gate.v[i]) * up.v[i];
            }
            store_quad(to.y + (size_t)(m + row) * (in.cols / 2) + n / 2 + pair, gate, true, 4);
        });
    }
};

// qkv = rope(sums + bias) on the q and k heads. If a KV cache is given, the k and v heads are also stored in it.
// Columns are reordered so that the two elements of a rotated pair are in the same tile, for any head size: in a group
// of COLUMNS columns, the first half holds the first elements and the second half their partners, which lie half a head
// later.
template <int COLUMNS>
struct QkvIn : Sliced {
    static constexpr int PAIRS = COLUMNS / 2;
    struct Args {
        const bf16* bias;
        const float* cos;      // [T, dim / 2]
        const float* sin;
        const uint32_t* slots;  // [T], block * 128 + position; null if there is no cache
        bf16* k_cache;         // [blocks][kv_heads][128][dim]
        bf16* v_cache;
        bf16* qkv;             // [T, (q_heads + 2 kv_heads) * dim]
        int q_heads, kv_heads, dim, num_slots;
    };
    __device__ __forceinline__ static int columns(const Args&, const Operands& in) {
        return (in.cols / 2 + PAIRS - 1) / PAIRS * COLUMNS;
    }
    // Returns the column of the first element of pair `pair`.
    __device__ __forceinline__ static int first(const Args& to, int pair) {
        int half = to.dim / 2;
        return pair / half * to.dim + pair % half;
    }
    __device__ __forceinline__ static int weight_row(const Args& to, const Operands& in, int n) {
        int pair = n / COLUMNS * PAIRS + n % PAIRS;
        int second = n % COLUMNS / PAIRS * (to.dim / 2);
        return pair < in.cols / 2 ? first(to, pair) + second : -1;
    }
    // Returns the address in the KV cache for column `column` of a token, or null.
    __device__ __forceinline__ static bf16* cached(const Args& to, uint32_t slot, int column) {
        int head = column / to.dim - to.q_heads;
        if (head < 0 || slot >= (uint32_t)to.num_slots) {
            return nullptr;
        }
        bf16* base = head < to.kv_heads ? to.k_cache : to.v_cache;
        size_t block = (size_t)(slot / 128) * to.kv_heads + head % to.kv_heads;
        return base + (block * 128 + slot % 128) * to.dim + column % to.dim;
    }
    __device__ __forceinline__ static Quad rounded(Quad q) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            q.v[i] = isa::to_float(isa::to_bf16(q.v[i]));
        }
        return q;
    }
    // Rotates and stores `count` pairs of one head in row `token`: `a` starts at column `column`, `b` half a head
    // later.
    __device__ __forceinline__ static void rotate(const Args& to, const Operands& in, Quad a, Quad b, int token,
                                                  int column, bool whole, int count) {
        int half = to.dim / 2;
        if (to.bias) {
            a = a + load_quad(to.bias + column, whole, count);
            b = b + load_quad(to.bias + column + half, whole, count);
        }
        a = rounded(a);
        b = rounded(b);
        if (column < (to.q_heads + to.kv_heads) * to.dim) {
            size_t angle = (size_t)token * half + column % to.dim;
            Quad x = a, y = b;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i < count) {
                    float c = to.cos[angle + i], s = to.sin[angle + i];
                    a.v[i] = fmaf(x.v[i], c, -(y.v[i] * s));
                    b.v[i] = fmaf(y.v[i], c, x.v[i] * s);
                }
            }
        }
        bf16* qkv = to.qkv + (size_t)token * in.cols + column;
        store_quad(qkv, a, whole, count);
        store_quad(qkv + half, b, whole, count);
        if (to.slots) {
            bf16* cache = cached(to, to.slots[token], column);
            if (cache) {
                store_quad(cache, a, whole, count);
                store_quad(cache + half, b, whole, count);
            }
        }
    }
    template <class T>
    __device__ __forceinline__ static void finish(const Args& to, const Operands& in, const Sums<T>& tile, int m,
                                                  int n) {
        if (to.dim % 8 == 0) {
            // Four pairs that start at a multiple of four lie in one head, and all their accesses are aligned.
            each<T, T::BLOCK_N / 2, 4>(in, m, [&](int row, int in_tile) {
                int column = in_tile / PAIRS * COLUMNS + in_tile % PAIRS;
                int pair = n / 2 + in_tile;
                if (pair < in.cols / 2) {
                    Quad a = sums_at<T>(tile, row, column), b = sums_at<T>(tile, row, column + PAIRS);
                    rotate(to, in, a, b, m + row, first(to, pair), true, 4);
                }
            });
        } else {
            each<T, T::BLOCK_N / 2, 1>(in, m, [&](int row, int in_tile) {
                int column = in_tile / PAIRS * COLUMNS + in_tile % PAIRS;
                int pair = n / 2 + in_tile;
                if (pair < in.cols / 2) {
                    Quad a = Quad{{tile.at[row][column]}}, b = Quad{{tile.at[row][column + PAIRS]}};
                    rotate(to, in, a, b, m + row, first(to, pair), false, 1);
                }
            });
        }
    }
};
using Qkv = QkvIn<GROUP>;

}  // namespace gemm
