// Turns a fault during a launch into an error of the launch. The signal handler runs on its own stack, records the
// thread and the cause, and continues on the launcher's stack instead of at the faulting instruction.
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <mutex>

#include "emu/fiber.h"

namespace emu {

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr int kCount = sizeof kSignals / sizeof *kSignals;
struct sigaction previous[kCount];  // in the order of kSignals
std::once_flag installed;
thread_local Instance* guarded = nullptr;
thread_local stack_t previous_stack{};
constexpr size_t kSignalStack = 256 * 1024;

// Signal stack of each host thread that launches, for the life of the thread.
struct SignalStack {
    void* memory = mmap(nullptr, kSignalStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ~SignalStack() {
        if (memory != MAP_FAILED) munmap(memory, kSignalStack);
    }
};
thread_local SignalStack own_stack;

void chain(int number, siginfo_t* info, void* context) {
    const struct sigaction& old = previous[std::find(kSignals, kSignals + kCount, number) - kSignals];
    if ((old.sa_flags & SA_SIGINFO) != 0 && old.sa_sigaction != nullptr) {
        old.sa_sigaction(number, info, context);
    } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN && old.sa_handler != nullptr) {
        old.sa_handler(number);
    } else {
        // Returning repeats the fault, now with the default action.
        signal(number, SIG_DFL);
    }
}

void handle(int number, siginfo_t* info, void* context) {
    Instance* emu = guarded;
    if (emu == nullptr || current == nullptr) {
        chain(number, info, context);
        return;
    }
    const Fiber& fiber = self();
    auto at = static_cast<unsigned char*>(info->si_addr);
    char what[64];
    if (number == SIGFPE) {
        snprintf(what, sizeof what, "integer division by zero");
    } else if (number == SIGILL) {
        snprintf(what, sizeof what, "an int that overflows");
    } else {
        bool on_stack = at >= fiber.stack - 4096 && at < fiber.stack;
        snprintf(what, sizeof what, "%s at address %p", on_stack ? "stack overflow" : "access outside any buffer",
                 info->si_addr);
    }
    report(*emu, "%s by %s", what, thread_name(fiber).c_str());
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RSP] = greg_t(emu->launcher_stack);
    registers[REG_RIP] = greg_t(&emu_resume);
}

void install() {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < kCount; i++) sigaction(kSignals[i], &action, &previous[i]);
}

}  // namespace

void guard_enter(Instance& emu) {
    std::call_once(installed, install);
    stack_t stack{};
    stack.ss_sp = own_stack.memory;
    stack.ss_size = kSignalStack;
    stack.ss_flags = own_stack.memory == MAP_FAILED ? SS_DISABLE : 0;
    sigaltstack(&stack, &previous_stack);
    guarded = &emu;
}

void guard_leave() {
    guarded = nullptr;
    sigaltstack(&previous_stack, nullptr);
}

}  // namespace emu
