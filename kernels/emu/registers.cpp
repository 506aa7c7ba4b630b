// Emulation of setmaxnreg: registers that one warpgroup releases may be taken by another. A thread starts with the
// number of registers that the kernel was compiled for. If that number is unknown, nothing is checked.
#include "emu/registers.h"

#include "emu/runtime.h"
#include "emu/warp.h"

namespace emu {

void registers(uint32_t count, bool increase, const Where& where) {
    // The instruction applies to the complete warp, so its lanes meet here.
    exchange(Exchange::ballot, 1, 0, where);
    Fiber& fiber = self();
    Cta& cta = *fiber.cta;
    if (fiber.registers == 0) return;
    if (increase ? count < fiber.registers : count > fiber.registers) {
        fail("%s to %u registers of a thread that has %u, by %s at %s", increase ? "an increase" : "a decrease", count,
             fiber.registers, thread_name(fiber).c_str(), place_name(where).c_str());
    }
    if (increase) {
        while (cta.free_registers < count - fiber.registers) block(Wait::registers, count - fiber.registers, where);
        cta.free_registers -= count - fiber.registers;
    } else {
        cta.free_registers += fiber.registers - count;
        for (uint32_t i = 0; i < cta.threads; i++) {
            if (cta.fibers[i].wait == Wait::registers) make_ready(cta.fibers[i]);
        }
    }
    fiber.registers = count;
}

}  // namespace emu
