//! Whether this process may use AMX: the processor and the kernel are asked, and its products are held against the twin's.

use std::sync::LazyLock;

use super::check;
use crate::device::isa::Isa;

/// Why this process does without AMX.
#[derive(Debug)]
pub struct Refusal {
    /// For people.
    pub why: String,
    /// The processor has it: somebody may want to know.
    pub is_there: bool,
}

/// Why this process does without AMX, if it does; found out once.
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

/// Asks processor and kernel.
#[cfg(target_arch = "x86_64")]
fn allowed() -> Result<(), Refusal> {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Register XCR0: what state the system keeps.
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: the feature is enabled here.
        unsafe { _xgetbv(0) }
    }
    /// AMX-BF16 and AMX-TILE in EDX of leaf 7; OSXSAVE in ECX of leaf 1; tile configuration and data in XCR0.
    const PROCESSOR: u32 = 1 << 22 | 1 << 24;
    const OSXSAVE: u32 = 1 << 27;
    const STATE: u64 = 1 << 17 | 1 << 18;
    const SYS_ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;

    if Isa::vectors_here() != Isa::Avx512 || __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & PROCESSOR != PROCESSOR {
        return Err(missing());
    }
    // SAFETY: `xgetbv` is there where the system says that it uses XSAVE.
    if __cpuid(1).ecx & OSXSAVE == 0 || unsafe { kept() } & STATE != STATE {
        return Err(refused("AMX is not switched on by the system".to_owned()));
    }
    if !cfg!(target_os = "linux") {
        return Err(refused("AMX is asked for on Linux only".to_owned()));
    }
    let answer: isize;
    // SAFETY: Linux's system call for a permission of this process; it touches no memory of ours.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") SYS_ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    match answer {
        0 => Ok(()),
        code => Err(refused(format!("AMX refused by the kernel: {}", std::io::Error::from_raw_os_error(-code as i32)))),
    }
}

/// Holds products by tiles against their twin's, to the bit, where sums round, underflow and go on.
fn agrees() -> Result<(), Refusal> {
    let other: usize = check::SHAPES.into_iter().map(|shape| check::differing(Isa::Amx, Isa::AmxTwin, shape)).sum();
    match other {
        0 => Ok(()),
        n => Err(refused(format!("AMX differs from its twin: {n} of {} sums have other bits", check::SUMS))),
    }
}
