// Stacks and the switch between them.
#pragma once
#include "emu/runtime.h"

extern "C" {
// Saves the running stack pointer at *save and continues where `to` was saved.
void emu_switch(void** save, void* to);
// The second half of emu_switch: continue with the stack pointer already set.
void emu_resume();
}

namespace emu {

// A stack whose first switch calls entry().
void* prepare_stack(unsigned char* stack, size_t bytes, void (*entry)());
// False if a frame has run over the low end.
bool stack_intact(const unsigned char* stack);

}  // namespace emu
