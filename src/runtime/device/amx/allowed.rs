//! Decides whether this process may use AMX: it checks the processor and the operating system, and compares AMX's
//! products with those of the Rust twin.

use std::sync::LazyLock;

use super::check;
use crate::device::isa::Isa;

/// Reason why this process does not use AMX.
#[derive(Debug)]
pub struct Refusal {
    /// Text for log messages.
    pub why: String,
    /// True if the processor has AMX, so a message about the reason is useful to the user.
    pub is_there: bool,
}

/// Returns the reason why this process does not use AMX, or `None` if it may use it. The result is cached.
pub fn refusal() -> Option<&'static Refusal> {
    static REFUSAL: LazyLock<Option<Refusal>> = LazyLock::new(|| allowed().and_then(|()| agrees()).err());
    REFUSAL.as_ref()
}

fn missing() -> Refusal {
    Refusal { why: "no AMX on this processor".to_owned(), is_there: false }
}

fn refused(why: String) -> Refusal {
    Refusal { why, is_there: true }
}

#[cfg(not(target_arch = "x86_64"))]
fn allowed() -> Result<(), Refusal> {
    Err(missing())
}

/// Checks the processor and the operating system.
#[cfg(target_arch = "x86_64")]
fn allowed() -> Result<(), Refusal> {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Reads register XCR0, whose bits name the processor state that the operating system saves.
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: the feature is enabled for this function.
        unsafe { _xgetbv(0) }
    }
    /// Bits of AMX-BF16 and AMX-TILE in register EDX of CPUID leaf 7.
    const PROCESSOR: u32 = 1 << 22 | 1 << 24;
    /// Bit of OSXSAVE in register ECX of CPUID leaf 1.
    const OSXSAVE: u32 = 1 << 27;
    /// Bits of the tile configuration and the tile data in XCR0.
    const STATE: u64 = 1 << 17 | 1 << 18;
    const SYS_ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;

    if Isa::vectors_here() != Isa::Avx512 || __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & PROCESSOR != PROCESSOR {
        return Err(missing());
    }
    // SAFETY: the processor has `xgetbv` if OSXSAVE is set, which the first condition checks.
    if __cpuid(1).ecx & OSXSAVE == 0 || unsafe { kept() } & STATE != STATE {
        return Err(refused("the operating system has not enabled AMX".to_owned()));
    }
    if !cfg!(target_os = "linux") {
        return Err(refused("AMX is supported on Linux only".to_owned()));
    }
    let answer: isize;
    // SAFETY: Linux's system call that requests a permission for this process; it does not access our memory.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") SYS_ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    match answer {
        0 => Ok(()),
        code => Err(refused(format!("the kernel refused AMX: {}", std::io::Error::from_raw_os_error(-code as i32)))),
    }
}

/// Compares AMX's products with the twin's, bit for bit. The values include sums that are rounded, that underflow and
/// that are added to existing sums.
fn agrees() -> Result<(), Refusal> {
    let other: usize = check::SHAPES.into_iter().map(|shape| check::differing(Isa::Amx, Isa::AmxTwin, shape)).sum();
    match other {
        0 => Ok(()),
        n => Err(refused(format!("AMX differs from its plain Rust twin: {n} of {} sums differ bitwise", check::SUMS))),
    }
}
