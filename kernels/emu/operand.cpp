// Conversion of 16-byte chunks to floats, and the product of a k16 step.
#include "emu/operand.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

namespace emu {

namespace {

__m256 widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }

// Transposes eight chunks of eight elements.
void transpose(const __m128i* in, __m128i* out) {
    __m128i a[8], b[8];
    for (uint32_t i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(in[2 * i], in[2 * i + 1]);
        a[2 * i + 1] = _mm_unpackhi_epi16(in[2 * i], in[2 * i + 1]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        b[4 * i] = _mm_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        out[2 * i] = _mm_unpacklo_epi64(b[i], b[i + 4]);
        out[2 * i + 1] = _mm_unpackhi_epi64(b[i], b[i + 4]);
    }
}

__m128i chunk_at(const unsigned char* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); }

}  // namespace

void widen_chunks(const unsigned char* const* chunks, uint32_t rows, bool mn, float* to, uint32_t stride) {
    if (mn) {
        for (uint32_t k = 0; k < kStep; k++) {
            for (uint32_t g = 0; g < rows / 8; g++) {
                _mm256_storeu_ps(to + k * stride + g * 8, widen(chunk_at(chunks[k * (rows / 8) + g])));
            }
        }
        return;
    }
    for (uint32_t row = 0; row < rows; row += 8) {
        for (uint32_t half = 0; half < 2; half++) {
            __m128i in[8], out[8];
            for (uint32_t i = 0; i < 8; i++) in[i] = chunk_at(chunks[(row + i) * 2 + half]);
            transpose(in, out);
            for (uint32_t k = 0; k < 8; k++) _mm256_storeu_ps(to + (half * 8 + k) * stride + row, widen(out[k]));
        }
    }
}

void multiply_step(const float* a, const float* b, float* sums, uint32_t columns) {
    // Computes four rows by sixteen columns at a time: eight chains keep both multipliers busy.
    for (uint32_t m = 0; m < kTileRows; m += 4) {
        uint32_t n = 0;
        for (; n + 16 <= columns; n += 16) {
            __m256 d[4][2];
            for (uint32_t i = 0; i < 4; i++) {
                d[i][0] = _mm256_loadu_ps(sums + (m + i) * columns + n);
                d[i][1] = _mm256_loadu_ps(sums + (m + i) * columns + n + 8);
            }
            for (uint32_t k = 0; k < kStep; k++) {
                __m256 low = _mm256_loadu_ps(b + k * columns + n), high = _mm256_loadu_ps(b + k * columns + n + 8);
                for (uint32_t i = 0; i < 4; i++) {
                    __m256 x = _mm256_broadcast_ss(a + k * kTileRows + m + i);
                    d[i][0] = _mm256_fmadd_ps(x, low, d[i][0]);
                    d[i][1] = _mm256_fmadd_ps(x, high, d[i][1]);
                }
            }
            for (uint32_t i = 0; i < 4; i++) {
                _mm256_storeu_ps(sums + (m + i) * columns + n, d[i][0]);
                _mm256_storeu_ps(sums + (m + i) * columns + n + 8, d[i][1]);
            }
        }
        for (; n < columns; n += 8) {
            for (uint32_t i = 0; i < 4; i++) {
                __m256 d = _mm256_loadu_ps(sums + (m + i) * columns + n);
                for (uint32_t k = 0; k < kStep; k++) {
                    d = _mm256_fmadd_ps(_mm256_broadcast_ss(a + k * kTileRows + m + i), _mm256_loadu_ps(b + k * columns + n), d);
                }
                _mm256_storeu_ps(sums + (m + i) * columns + n, d);
            }
        }
    }
}

namespace {

// Parts of eight numbers: value = magnitude * 2^(exponent - b), where b is 7 for bf16 and 23 for f32. `sign` is 0 or -1.
struct Parts {
    __m256i magnitude, exponent, sign;
};

// Splits numbers. For infinities and NaN, `special` becomes -1.
Parts split(__m256i bits, int fraction_bits, __m256i& special) {
    const __m256i one = _mm256_set1_epi32(1);
    __m256i field = _mm256_and_si256(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(255));
    special = _mm256_or_si256(special, _mm256_cmpeq_epi32(field, _mm256_set1_epi32(255)));
    __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff));
    __m256i normal = _mm256_slli_epi32(_mm256_min_epi32(field, one), 23);
    return {_mm256_srli_epi32(_mm256_or_si256(fraction, normal), 23 - fraction_bits),
            _mm256_sub_epi32(_mm256_max_epi32(field, one), _mm256_set1_epi32(127)), _mm256_srai_epi32(bits, 31)};
}

__m256i negated_if(__m256i sign, __m256i x) { return _mm256_sub_epi32(_mm256_xor_si256(x, sign), sign); }

// Truncates to f32.
float truncated(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    bits &= ~uint64_t(0x1fffffff);
    double cut;
    memcpy(&cut, &bits, 8);
    return float(fabs(cut) >= 0x1p-126 ? cut : double(int64_t(x * 0x1p149)) * 0x1p-149);
}

// Adds products and the accumulator if one of them is not finite.
float special_sum(Floats a, uint32_t m, const float* b, uint32_t columns, SumRule rule, float sum) {
    double total = sum;
    for (uint32_t k = 0; k < rule.block; k++) total += double(a.at[m * a.row + k * a.step]) * double(b[k * columns]);
    return isnan(total) ? __builtin_bit_cast(float, 0x7fffffff) : float(total);
}

// Adds a block of products to eight columns of row m. `b` are the parts of the columns, and `special` is their flag.
void add_block(Floats a, uint32_t m, const Parts* b, __m256i& special, SumRule rule, float* sums) {
    __m256i products[kStep], exponents[kStep], signs[kStep];
    Parts c = split(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums)), 23, special);
    __m256i largest = c.exponent;
    for (uint32_t k = 0; k < rule.block; k++) {
        Parts x = split(_mm256_castps_si256(_mm256_broadcast_ss(a.at + m * a.row + k * a.step)), 7, special);
        // Multiplies like mullo_epi32, but faster: magnitudes of bf16 have eight bits.
        products[k] = _mm256_slli_epi32(_mm256_madd_epi16(x.magnitude, b[k].magnitude), rule.bits - 14);
        exponents[k] = _mm256_add_epi32(x.exponent, b[k].exponent);
        signs[k] = _mm256_xor_si256(x.sign, b[k].sign);
        largest = _mm256_max_epi32(largest, exponents[k]);
    }
    auto aligned = [&](__m256i magnitude, __m256i exponent, __m256i sign) {
        return negated_if(sign, _mm256_srlv_epi32(magnitude, _mm256_sub_epi32(largest, exponent)));
    };
    // A product is below 2^27. Sixteen of them and the accumulator may need more than 32 bits, so there are two totals.
    __m256i total[2] = {aligned(_mm256_slli_epi32(c.magnitude, rule.bits - 23), c.exponent, c.sign),
                        _mm256_setzero_si256()};
    for (uint32_t k = 0; k < rule.block; k++) {
        total[k / 8] = _mm256_add_epi32(total[k / 8], aligned(products[k], exponents[k], signs[k]));
    }
    alignas(32) int32_t low[8], high[8], exponent[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(low), total[0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(high), total[1]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(exponent), largest);
    for (uint32_t i = 0; i < 8; i++) {
        double unit = __builtin_bit_cast(double, uint64_t(1023 + exponent[i] - rule.bits) << 52);
        sums[i] = truncated(double(int64_t(low[i]) + high[i]) * unit);
    }
}

}  // namespace

void multiply_aligned(Floats a, uint32_t rows, const float* b, uint32_t columns, float* sums, SumRule rule) {
    for (uint32_t k = 0; k < kStep; k += rule.block, a.at += rule.block * a.step, b += rule.block * columns) {
        for (uint32_t n = 0; n < columns; n += 8) {
            Parts parts[kStep];
            __m256i b_special = _mm256_setzero_si256();
            for (uint32_t i = 0; i < rule.block; i++) {
                parts[i] = split(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i * columns + n)), 7, b_special);
            }
            for (uint32_t m = 0; m < rows; m++) {
                float* to = sums + m * columns + n;
                __m256 before = _mm256_loadu_ps(to);
                __m256i special = b_special;
                add_block(a, m, parts, special, rule, to);
                for (int odd = _mm256_movemask_ps(_mm256_castsi256_ps(special)); odd != 0; odd &= odd - 1) {
                    int i = __builtin_ctz(uint32_t(odd));
                    to[i] = special_sum(a, m, b + n + i, columns, rule, reinterpret_cast<const float*>(&before)[i]);
                }
            }
        }
    }
}

}  // namespace emu
