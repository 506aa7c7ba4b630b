// Host side of tools/emu-run: buffers, arguments, and the runs of one kernel under several schedules. The generated
// main() includes the kernel's source, then this file.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "isa/isa.cuh"

namespace emu_run {

[[noreturn]] inline void stop(const std::string& why) {
    fprintf(stderr, "emu-run: %s\n", why.c_str());
    exit(2);
}

// Returns uniform numbers from [-1, 1), the same in every run.
inline double uniform() {
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return double(state >> 40) / double(1 << 23) - 1.0;
}

inline double wide(isa::bf16 x) { return isa::to_float(x); }
template <class T>
double wide(T x) { return double(x); }
inline void narrow(isa::bf16& to, double x) { to = isa::to_bf16(float(x)); }
template <class T>
void narrow(T& to, double x) { to = T(x); }

// Device memory. It ends at a page that nobody may access, and holds bytes 0xFF, which are NaN.
struct Memory {
    std::string name;
    long bytes;
    unsigned char* at;
    std::vector<unsigned char> kept;

    Memory(const char* name, long bytes) : name(name), bytes((bytes + 15) / 16 * 16) {
        long room = (this->bytes + 4095) / 4096 * 4096;
        void* base = mmap(nullptr, size_t(room + 4096), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (bytes <= 0 || base == MAP_FAILED) stop("no memory for buffer " + this->name);
        at = static_cast<unsigned char*>(base) + room - this->bytes;
        mprotect(at + this->bytes, 4096, PROT_NONE);
        memset(at, 0xff, size_t(this->bytes));
    }
    virtual double get(long i) const = 0;
};

// A row-major array.
template <class T>
struct Buffer : Memory {
    std::vector<long> shape;

    Buffer(const char* name, std::vector<long> shape) : Memory(name, size(shape)), shape(std::move(shape)) {}
    static long size(const std::vector<long>& shape) {
        long n = sizeof(T);
        for (long side : shape) n *= side;
        return n;
    }
    double get(long i) const override { return wide(reinterpret_cast<const T*>(at)[i]); }
    void set(long i, double x) { narrow(reinterpret_cast<T*>(at)[i], x); }
    // Returns the element at these indices, one per dimension.
    template <class... I>
    double operator()(I... index) const {
        long indices[] = {long(index)...}, flat = 0;
        bool inside = sizeof...(I) == shape.size();
        for (size_t d = 0; d < shape.size() && inside; d++) {
            inside = indices[d] >= 0 && indices[d] < shape[d];
            flat = flat * shape[d] + indices[d];
        }
        return inside ? get(flat) : (stop("indices outside of buffer " + name), 0.0);
    }
};

// The bytes of the kernel's struct of arguments; members are aligned as in C++.
struct Arguments {
    std::vector<unsigned char> bytes;
    size_t alignment = 1;

    template <class T>
    void value(T x, size_t aligned = alignof(T)) {
        alignment = std::max(alignment, aligned);
        bytes.resize((bytes.size() + aligned - 1) / aligned * aligned);
        auto first = reinterpret_cast<const unsigned char*>(&x);
        bytes.insert(bytes.end(), first, first + sizeof x);
    }
    // Appends a tensor map in the format of src/runtime/device/emu/tensor_map.rs, if it obeys src/runtime/device/tensor_map.rs.
    template <class T>
    void map(const Buffer<T>& of, std::vector<long> dims, std::vector<long> strides, std::vector<long> box, long swizzle) {
        struct { uint64_t words[16]; } map{};
        size_t rank = dims.size();
        bool good = rank >= 2 && rank <= 5 && strides.size() == rank - 1 && box.size() == rank;
        for (long stride : strides) good &= stride > 0 && stride % 16 == 0 && stride < 1l << 40;
        for (long side : box) good &= side >= 1 && side <= 256;
        long row = good ? box[0] * long(sizeof(T)) : 0;
        good &= row % 16 == 0 && (swizzle == 0 || ((swizzle == 32 || swizzle == 64 || swizzle == 128) && row == swizzle));
        if (!good) stop("the map of " + of.name + " breaks a rule of src/runtime/device/tensor_map.rs");
        map.words[0] = reinterpret_cast<uint64_t>(of.at);
        map.words[1] = rank | sizeof(T) << 8 | uint64_t(swizzle) << 16;
        for (size_t d = 0; d < rank; d++) map.words[2 + d] = uint64_t(dims[d]), map.words[11 + d] = uint64_t(box[d]);
        for (size_t d = 1; d < rank; d++) map.words[6 + d] = uint64_t(strides[d - 1]);
        value(map, 64);
    }
};

// Expected content of a buffer.
struct Expected {
    Memory* buffer;
    std::vector<double> want;
    double relative, absolute;
};

// Runs the kernel for each way to sum and each schedule, and compares. Returns the number of wrong runs.
inline int run_all(const EmuEntry& entry, const EmuLaunch& launch, Arguments& arguments, const std::vector<Memory*>& buffers,
                   const std::vector<Expected>& expected, EmuOptions options, uint32_t schedules, const std::vector<uint32_t>& ways) {
    static const char* const completions[] = {"eager", "lazy", "random"};
    static const char* const names[] = {"chain", "hopper", "ampere"};
    size_t size = (arguments.bytes.size() + arguments.alignment - 1) / arguments.alignment * arguments.alignment;
    arguments.bytes.resize((size + 63) / 64 * 64);
    void* args = memcpy(aligned_alloc(64, arguments.bytes.size()), arguments.bytes.data(), arguments.bytes.size());
    for (Memory* buffer : buffers) buffer->kept.assign(buffer->at, buffer->at + buffer->bytes);
    int wrong_runs = 0, runs = 0;
    for (uint32_t sums : ways) {
        uint64_t first = 0;
        for (uint32_t n = 0; n < schedules; n++, runs++) {
            for (Memory* buffer : buffers) memcpy(buffer->at, buffer->kept.data(), buffer->kept.size());
            options.seed = n < 2 ? 0 : n - 1;
            options.completion = n < 2 ? EMU_LAZY - n : n % 2 == 0 ? EMU_RANDOM : EMU_LAZY;
            options.sums = sums;
            EmuInstance* emu = omr_emu_create(&options);
            if (emu == nullptr) stop("no memory for an emulated device");
            printf("%-6s sums, seed %lu, copies %-6s: ", names[sums], options.seed, completions[options.completion]);
            bool failed = omr_emu_launch(emu, &entry, &launch, args, size) != 0;
            size_t wrong = 0, count = 0;
            double worst = 0.0;
            for (const Expected& one : expected) {
                for (size_t i = 0; i < one.want.size() && !failed; i++, count++) {
                    double error = fabs(one.buffer->get(long(i)) - one.want[i]);
                    wrong += !(error <= one.relative * fabs(one.want[i]) + one.absolute);
                    worst = error <= worst ? worst : error;
                }
            }
            uint64_t digest = 0xcbf29ce484222325;
            for (Memory* buffer : buffers) {
                for (long i = 0; i < buffer->bytes; i++) digest = (digest ^ buffer->at[i]) * 0x100000001b3;
            }
            if (n == 0) first = digest;
            if (failed) {
                printf("FAILED: %s\n", omr_emu_error(emu));
            } else {
                printf("%zu of %zu wrong, largest error %.3g, digest %016lx%s\n", wrong, count, worst, digest,
                       digest != first ? ", OTHER BITS than the first schedule" : "");
            }
            wrong_runs += failed || wrong != 0 || digest != first;
            omr_emu_destroy(emu);
        }
    }
    printf("%d of %d runs right\n", runs - wrong_runs, runs);
    return wrong_runs;
}

}  // namespace emu_run
