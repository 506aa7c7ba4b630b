// The stack switch. It saves the callee-saved registers on the old stack; the compiler handles the others.
#include "emu/fiber.h"

asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
.globl emu_resume
.hidden emu_resume
emu_resume:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

namespace emu {

void* prepare_stack(unsigned char* stack, size_t bytes, void (*entry)()) {
    memcpy(stack, &kCanary, sizeof kCanary);
    // A function expects rsp = 8 mod 16 on entry; the slot above it is the place of its return address.
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(63);
    void** sp = reinterpret_cast<void**>(top) - 1;
    *sp = nullptr;
    *--sp = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}

bool stack_intact(const unsigned char* stack) { return memcmp(stack, &kCanary, sizeof kCanary) == 0; }

}  // namespace emu
