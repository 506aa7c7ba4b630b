#include "emu/shadow.h"

#include "emu/memory.h"
#include "emu/runtime.h"

namespace emu {

namespace {

// The offset in shared memory; ends the launch if the access leaves it or is not aligned.
uint32_t offset_of(Fiber& fiber, const void* p, uint32_t bytes, const char* what, const std::string& place) {
    size_t offset = size_t(static_cast<const unsigned char*>(p) - fiber.smem);
    if (offset >= fiber.smem_bytes || fiber.smem_bytes - offset < bytes) {
        fail("%s of %u bytes at offset %zd of %u bytes of shared memory by %s%s", what, bytes, ptrdiff_t(offset),
             fiber.smem_bytes, thread_name(fiber).c_str(), place.c_str());
    }
    return uint32_t(offset);
}

bool inside(const Fiber& fiber, const void* p, uint32_t bytes) {
    size_t offset = size_t(static_cast<const unsigned char*>(p) - fiber.smem);
    return offset < fiber.smem_bytes && fiber.smem_bytes - offset >= bytes;
}

void check(const void* p, uint32_t bytes, const char* what, const Where* where) {
    Fiber& fiber = self();
    if (!inside(fiber, p, bytes) || reinterpret_cast<uintptr_t>(p) % bytes != 0) {
        std::string place = where != nullptr ? " at " + place_name(*where) : "";
        offset_of(fiber, p, bytes, what, place);
        fail("%s of %u bytes of shared memory at %p is not aligned to them, by %s%s", what, bytes, p,
             thread_name(fiber).c_str(), place.c_str());
    }
}

}  // namespace

void Shadow::begin(uint32_t, bool) { time = 1; }

void shared_read(const void* p, uint32_t bytes, const Where& where) { check(p, bytes, "read", &where); }
void shared_write(const void* p, uint32_t bytes, const Where& where) { check(p, bytes, "write", &where); }
void shared_read(const void* p, uint32_t bytes) { check(p, bytes, "read", nullptr); }
void shared_write(const void* p, uint32_t bytes) { check(p, bytes, "write", nullptr); }

void shared_atomic(const void* p, uint32_t bytes, const Where& where) { check(p, bytes, "atomic", &where); }

void shared_matrix_row(Fiber& fiber, const void* p, bool write, const char* file, uint32_t line) {
    if (!inside(fiber, p, 16) || reinterpret_cast<uintptr_t>(p) % 16 != 0) {
        std::string place = std::string(" at ") + short_path(file) + ":" + std::to_string(line);
        offset_of(fiber, p, 16, write ? "stmatrix" : "ldmatrix", place);
        fail("the row address %p of a matrix is not aligned to 16 bytes, by %s%s", p, thread_name(fiber).c_str(),
             place.c_str());
    }
}

void shadow_copy_begin(Fiber& fiber, const AsyncCopy& copy) {
    offset_of(fiber, copy.destination, copy.bytes, "cp_async", "");
}

void shadow_copy_done(Fiber&, const AsyncCopy&) {}

void global_read(const void* p, uint32_t bytes, const Where& where) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) {
        fail("load of %u bytes at %p is not aligned to them, by %s at %s", bytes, p, thread_name(self()).c_str(),
             place_name(where).c_str());
    }
}

void global_write(void* p, const void* value, uint32_t bytes, const Where& where) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) {
        fail("store of %u bytes at %p is not aligned to them, by %s at %s", bytes, p, thread_name(self()).c_str(),
             place_name(where).c_str());
    }
    memcpy(p, value, bytes);
}

void smem_too_small(uint32_t needed) {
    fail("the kernel's shared memory struct has %u bytes, the launch gives %u", needed, current->smem_bytes);
}

}  // namespace emu
