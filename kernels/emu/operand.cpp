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

float aligned_sum(const float* a, uint32_t a_stride, const float* b, uint32_t b_stride, float sum) {
    double terms[kStep + 1], plain = sum, largest = fabs(double(sum));
    terms[kStep] = sum;
    for (uint32_t k = 0; k < kStep; k++) {
        terms[k] = double(a[k * a_stride]) * double(b[k * b_stride]);
        plain += terms[k];
        double size = fabs(terms[k]);
        largest = size > largest ? size : largest;
    }
    if (!isfinite(plain)) return float(plain);
    if (largest == 0.0) return 0.0f;
    uint64_t bits;
    memcpy(&bits, &largest, 8);
    int exponent = int(bits >> 52 & 0x7ff) - 1023;
    double unit = ldexp(1.0, exponent - 23 - kGuardBits), inverse = ldexp(1.0, 23 + kGuardBits - exponent), total = 0.0;
    for (double term : terms) total += trunc(term * inverse);
    total *= unit;
    float near = float(total);
    return isfinite(near) && fabs(double(near)) > fabs(total) ? nextafterf(near, 0.0f) : near;
}

void multiply_aligned(const float* a, const float* b, float* sums, uint32_t columns) {
    for (uint32_t m = 0; m < kTileRows; m++) {
        for (uint32_t n = 0; n < columns; n++) {
            sums[m * columns + n] = aligned_sum(a + m, kTileRows, b + n, columns, sums[m * columns + n]);
        }
    }
}

}  // namespace emu
