// Fiber stacks and the switch between them.
#pragma once
#include "emu/runtime.h"

extern "C" {
// Saves the current stack pointer at *save and continues at the point where `to` was saved.
void emu_switch(void** save, void* to);
// Second half of emu_switch: continues with a stack pointer that is already set.
void emu_resume();
}

namespace emu {

// Prepares a stack. The first switch to it calls entry().
void* prepare_stack(unsigned char* stack, size_t bytes, void (*entry)());
// Returns false if a frame has overflowed the low end of the stack.
bool stack_intact(const unsigned char* stack);

}  // namespace emu
