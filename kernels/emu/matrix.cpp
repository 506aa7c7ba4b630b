// Warp instructions: lanes post them, and the last lane to arrive executes the instruction for all. All operations that
// the lanes of a warp execute together form one numbered sequence. If two lanes post different operations under one
// number, the lanes have diverged, which ends the launch.
#include "emu/matrix.h"

#include <immintrin.h>

#include "emu/operand.h"
#include "emu/runtime.h"
#include "emu/warp.h"

namespace emu {

namespace {

std::string kind_name(uint32_t kind) {
    static const char* const exchange[] = {"shfl", "shfl_xor", "shfl_down", "shfl_up", "vote"};
    if (kind >= kExchange) return exchange[kind - kExchange];
    if (kind == kMma) return "mma";
    std::string name = (kind & kStore) != 0 ? "stmatrix.x" : "ldmatrix.x";
    return name + std::to_string(kind & kMatrices) + ((kind & kTransposed) != 0 ? ".trans" : "");
}

void wake(Warp& warp) {
    for (uint32_t bits = warp.waiting; bits != 0; bits &= bits - 1) {
        Fiber& fiber = warp.lanes[__builtin_ctz(bits)];
        if (int32_t(warp.done - fiber.wait_number) < 0) continue;
        warp.waiting &= ~(1u << fiber.lane);
        make_ready(fiber);
    }
}

void wait_for(uint32_t number, const Where& where) {
    Fiber& fiber = self();
    Warp& warp = *fiber.warp;
    if (int32_t(warp.done - number) >= 0) return;
    warp.waiting |= 1u << fiber.lane;
    block(Wait::instruction, number, where);
}

[[noreturn]] void diverged(const Op& op, uint32_t kind, const Where& where) {
    fail("the lanes of a warp do different things: %s at %s by %s, where another lane is at %s in %s",
         kind_name(kind).c_str(), place_name(where).c_str(), thread_name(self()).c_str(), kind_name(op.kind).c_str(),
         place_name(op.where).c_str());
}

// Returns the posted instruction that this lane joins next.
Op& join(Fiber& fiber, uint32_t kind, const Where& where) {
    Warp& warp = *fiber.warp;
    if (fiber.posted - warp.base >= kSlots) wait_for(fiber.posted, where);
    if (fiber.posted == warp.posted) {
        if (warp.done == warp.posted) warp.base = warp.posted;
        Op& op = warp.op(++warp.posted);
        op.kind = kind;
        op.lanes = 0;
        op.where = where;
    }
    Op& op = warp.op(++fiber.posted);
    if (op.kind != kind || op.where.line() != where.line()) [[unlikely]] diverged(op, kind, where);
    op.lanes |= 1u << fiber.lane;
    return op;
}

void finish(Warp& warp, Op& op) {
    execute(warp, op);
    warp.done++;
    if (warp.waiting != 0) wake(warp);
}

void exchange_all(Warp& warp, Op& op) {
    uint64_t value[kLanes];
    for (uint32_t i = 0; i < kLanes; i++) value[i] = warp.lanes[i].result;
    auto kind = Exchange(op.kind - kExchange);
    uint32_t votes = 0;
    for (uint32_t i = 0; i < kLanes; i++) votes |= uint32_t(value[i] != 0) << i;
    for (uint32_t i = 0; i < kLanes; i++) {
        uint32_t operand = uint32_t(reinterpret_cast<uintptr_t>(op.operand[0][i]));
        uint32_t from = i;
        switch (kind) {
            case Exchange::index: from = operand % kLanes; break;
            case Exchange::bitwise_xor: from = i ^ operand; break;
            case Exchange::down: from = i + operand; break;
            case Exchange::up: from = i - operand; break;
            case Exchange::ballot: break;
        }
        // If the source lane is out of range, a lane keeps its own value, as on a GPU.
        if (from >= kLanes) from = i;
        warp.lanes[i].result = kind == Exchange::ballot ? votes : value[from];
    }
}

// Returns the checked address of row i of matrix j, which lane 8j + i passed.
const unsigned char* row_address(Warp& warp, const Op& op, uint32_t lane, bool write) {
    auto p = static_cast<const unsigned char*>(op.operand[1][lane]);
    shared_matrix_row(warp.lanes[lane], p, write, place_of(*warp.cta->emu, op.where));
    return p;
}

// Returns the cycles that eight 16-byte rows cost beyond one pass over the 32 banks of 4 bytes.
uint32_t bank_conflicts(const unsigned char* const* rows) {
    uint32_t worst = 1;
    uint32_t hits[8] = {};
    for (uint32_t i = 0; i < 8; i++) {
        bool repeated = false;
        for (uint32_t j = 0; j < i; j++) repeated |= rows[j] == rows[i];
        if (repeated) continue;
        uint32_t group = uint32_t(reinterpret_cast<uintptr_t>(rows[i]) / 16 % 8);
        if (++hits[group] > worst) worst = hits[group];
    }
    return worst - 1;
}

void load_matrices(Warp& warp, Op& op, uint32_t matrices, bool transposed) {
    Instance& emu = instance();
    for (uint32_t j = 0; j < matrices; j++) {
        const unsigned char* rows[8];
        alignas(32) uint16_t tile[8][8];
        for (uint32_t i = 0; i < 8; i++) {
            rows[i] = row_address(warp, op, 8 * j + i, false);
            memcpy(tile[i], rows[i], 16);
        }
        emu.bank_conflicts += bank_conflicts(rows);
        for (uint32_t lane = 0; lane < kLanes; lane++) {
            auto d = static_cast<uint32_t*>(const_cast<void*>(op.operand[0][lane]));
            uint32_t major = lane / 4, minor = lane % 4 * 2;
            d[j] = transposed ? uint32_t(tile[minor][major]) | uint32_t(tile[minor + 1][major]) << 16
                              : uint32_t(tile[major][minor]) | uint32_t(tile[major][minor + 1]) << 16;
        }
    }
}

void store_matrices(Warp& warp, Op& op, uint32_t matrices, bool transposed) {
    Instance& emu = instance();
    for (uint32_t j = 0; j < matrices; j++) {
        const unsigned char* rows[8];
        for (uint32_t i = 0; i < 8; i++) rows[i] = row_address(warp, op, 8 * j + i, true);
        emu.bank_conflicts += bank_conflicts(rows);
        for (uint32_t lane = 0; lane < kLanes; lane++) {
            auto s = static_cast<const uint32_t*>(op.operand[0][lane]);
            uint32_t major = lane / 4, minor = lane % 4 * 2;
            if (transposed) {
                uint16_t halves[2] = {uint16_t(s[j]), uint16_t(s[j] >> 16)};
                memcpy(const_cast<unsigned char*>(rows[minor]) + major * 2, &halves[0], 2);
                memcpy(const_cast<unsigned char*>(rows[minor + 1]) + major * 2, &halves[1], 2);
            } else {
                memcpy(const_cast<unsigned char*>(rows[major]) + minor * 2, &s[j], 4);
            }
        }
    }
}

// Converts eight bf16 to eight floats.
__m256 widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }

void eight_rows(const float (*a)[16], const __m256* b, __m256* d) {
    __m256 d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5], d6 = d[6], d7 = d[7];
    for (uint32_t k = 0; k < 16; k++) {
        d0 = _mm256_fmadd_ps(_mm256_set1_ps(a[0][k]), b[k], d0);
        d1 = _mm256_fmadd_ps(_mm256_set1_ps(a[1][k]), b[k], d1);
        d2 = _mm256_fmadd_ps(_mm256_set1_ps(a[2][k]), b[k], d2);
        d3 = _mm256_fmadd_ps(_mm256_set1_ps(a[3][k]), b[k], d3);
        d4 = _mm256_fmadd_ps(_mm256_set1_ps(a[4][k]), b[k], d4);
        d5 = _mm256_fmadd_ps(_mm256_set1_ps(a[5][k]), b[k], d5);
        d6 = _mm256_fmadd_ps(_mm256_set1_ps(a[6][k]), b[k], d6);
        d7 = _mm256_fmadd_ps(_mm256_set1_ps(a[7][k]), b[k], d7);
    }
    d[0] = d0, d[1] = d1, d[2] = d2, d[3] = d3, d[4] = d4, d[5] = d5, d[6] = d6, d[7] = d7;
}

// Computes d = fma(a[k], b[k], d) for ascending k, as sixteen independent chains of eight columns.
void multiply(Op& op) {
    alignas(32) float a[16][16];
    alignas(32) uint32_t pair[8][8];  // [k / 2][column]: the pairs of B
    __m256 d[16];
    for (uint32_t g = 0; g < 8; g++) {
        __m128i r[4];
        for (uint32_t i = 0; i < 4; i++) {
            r[i] = _mm_loadu_si128(static_cast<const __m128i*>(op.operand[1][4 * g + i]));
            uint64_t b;
            memcpy(&b, op.operand[2][4 * g + i], 8);
            pair[i][g] = uint32_t(b);
            pair[i + 4][g] = uint32_t(b >> 32);
        }
        __m128i lo01 = _mm_unpacklo_epi32(r[0], r[1]), lo23 = _mm_unpacklo_epi32(r[2], r[3]);
        __m128i hi01 = _mm_unpackhi_epi32(r[0], r[1]), hi23 = _mm_unpackhi_epi32(r[2], r[3]);
        _mm256_store_ps(&a[g][0], widen(_mm_unpacklo_epi64(lo01, lo23)));
        _mm256_store_ps(&a[g + 8][0], widen(_mm_unpackhi_epi64(lo01, lo23)));
        _mm256_store_ps(&a[g][8], widen(_mm_unpacklo_epi64(hi01, hi23)));
        _mm256_store_ps(&a[g + 8][8], widen(_mm_unpackhi_epi64(hi01, hi23)));
        __m128 c[4];
        for (uint32_t i = 0; i < 4; i++) c[i] = _mm_loadu_ps(static_cast<const float*>(op.operand[0][4 * g + i]));
        d[g] = _mm256_set_m128(_mm_movelh_ps(c[2], c[3]), _mm_movelh_ps(c[0], c[1]));
        d[g + 8] = _mm256_set_m128(_mm_movehl_ps(c[3], c[2]), _mm_movehl_ps(c[1], c[0]));
    }
    __m256 b[16];
    for (uint32_t k = 0; k < 8; k++) {
        __m256i two = _mm256_load_si256(reinterpret_cast<const __m256i*>(pair[k]));
        b[2 * k] = _mm256_castsi256_ps(_mm256_slli_epi32(two, 16));
        b[2 * k + 1] = _mm256_castsi256_ps(_mm256_and_si256(two, _mm256_set1_epi32(int(0xffff0000u))));
    }
    if (uint32_t sums = instance().options.sums; sums != EMU_CHAIN) {
        Floats rows{&a[0][0], 16, 1};
        multiply_aligned(rows, 16, reinterpret_cast<const float*>(b), 8, reinterpret_cast<float*>(d), sum_rule(sums));
    } else {
        eight_rows(&a[0], b, &d[0]);
        eight_rows(&a[8], b, &d[8]);
    }
    for (uint32_t g = 0; g < 8; g++) {
        __m128 top[2] = {_mm256_castps256_ps128(d[g]), _mm256_extractf128_ps(d[g], 1)};
        __m128 bottom[2] = {_mm256_castps256_ps128(d[g + 8]), _mm256_extractf128_ps(d[g + 8], 1)};
        for (uint32_t i = 0; i < 4; i++) {
            __m128 t = top[i / 2], u = bottom[i / 2];
            __m128 c = i % 2 == 0 ? _mm_movelh_ps(t, u) : _mm_movehl_ps(u, t);
            _mm_storeu_ps(static_cast<float*>(const_cast<void*>(op.operand[0][4 * g + i])), c);
        }
    }
}

}  // namespace

void execute(Warp& warp, Op& op) {
    if (op.kind >= kExchange) {
        exchange_all(warp, op);
    } else if (op.kind == kMma) {
        multiply(op);
    } else {
        auto move = (op.kind & kStore) != 0 ? store_matrices : load_matrices;
        move(warp, op, op.kind & kMatrices, (op.kind & kTransposed) != 0);
    }
}

uint32_t post(uint32_t kind, const void* a, const void* b, const void* c, const Where& where) {
    Fiber& fiber = self();
    Op& op = join(fiber, kind, where);
    op.operand[0][fiber.lane] = a;
    op.operand[1][fiber.lane] = b;
    op.operand[2][fiber.lane] = c;
    uint32_t number = fiber.posted;
    if (op.lanes == ~0u) finish(*fiber.warp, op);
    return number;
}

void await(uint32_t number) {
    wait_for(number, Where());
}

uint64_t exchange(Exchange kind, uint64_t value, int operand, const Where& where) {
    Fiber& fiber = self();
    Op& op = join(fiber, kExchange + uint32_t(kind), where);
    op.operand[0][fiber.lane] = reinterpret_cast<const void*>(uintptr_t(uint32_t(operand)));
    fiber.result = value;
    if (op.lanes == ~0u) {
        finish(*fiber.warp, op);
    } else {
        wait_for(fiber.posted, where);
    }
    return fiber.result;
}

}  // namespace emu
