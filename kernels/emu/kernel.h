// KERNEL on the host: the kernel's code as a function of one thread, and the record with which the host program
// launches it.
#pragma once
#include "emu/api.h"

#define EMU_KERNEL(name_, Args, threads_, min_ctas_, unordered_)                                                       \
    namespace kernel {                                                                                                 \
    static void name_(const Args& args);                                                                               \
    }                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) const EmuEntry omr_entry_##name_;                                \
    extern "C" const EmuEntry omr_entry_##name_ = {                                                                    \
        #name_,       __FILE__,  [](const void* args) { kernel::name_(*static_cast<const Args*>(args)); },             \
        sizeof(Args), threads_,  min_ctas_,                                                                            \
        unordered_};                                                                                                   \
    static void kernel::name_([[maybe_unused]] const Args& args)

#define KERNEL(name, Args, threads, min_ctas) EMU_KERNEL(name, Args, threads, min_ctas, 0)
#define KERNEL_UNORDERED(name, Args, threads, min_ctas) EMU_KERNEL(name, Args, threads, min_ctas, 1)
