// Results of ex2.approx that were measured on a GPU. tests/runtime/kernels/calibrate_exp2.rs writes them; the environment variable
// OMR_EMU_EXP2 names the file.
#include <stdlib.h>

#include <fstream>
#include <iterator>

#include "emu/memory.h"
#include "emu/runtime.h"

namespace emu {

float exp2_measured(float x) {
    constexpr size_t kFractions = 1 << 23;
    // 1 if fractions with more bits are rounded, or 0 if they are truncated. Then a signed byte for each i: the result
    // for i / 2^23, minus the correctly rounded value, in units in the last place.
    static const char* const path = getenv("OMR_EMU_EXP2");
    if (path == nullptr) return NAN;
    static const std::vector<char> file = [] {
        std::ifstream from(path, std::ios::binary);
        return std::vector<char>(std::istreambuf_iterator<char>(from), {});
    }();
    if (file.size() != 1 + kFractions) {
        fail("OMR_EMU_EXP2=%s has %zu bytes, expected %zu: the unpacked exp2.gz of a GPU", path, file.size(), 1 + kFractions);
    }
    double below = floor(double(x)), position = (double(x) - below) * kFractions;
    auto index = size_t(file[0] != 0 ? rint(position) : position);
    if (index == kFractions) index = 0, below += 1.0;
    uint32_t bits = __float_as_uint(float(exp2(double(index) / kFractions))) + uint32_t(int32_t(int8_t(file[1 + index])));
    float y = ldexpf(__uint_as_float(bits), int(below));
    return y < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace emu
