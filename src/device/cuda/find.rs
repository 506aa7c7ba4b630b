//! What this machine has: the driver library, its version, the cards.

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};

use crate::device::images::Arch;
use crate::error::{Error, Result};

/// CUDA 13.0, as the driver counts: it loads PTX ISA 9.0, which the kernels are built to.
const NEEDED_CUDA: i32 = 13_000;

/// What is needed, for messages.
const NEEDED: &str = "NVIDIA's driver 580 or later (CUDA 13.0) and a card of compute capability 8.0 or later";

/// A card that can run the kernels, or why it cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    /// Its number among those visible (`CUDA_VISIBLE_DEVICES` narrows and orders them).
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub compute_capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Most bytes of shared memory a CTA can opt in to.
    pub shared_memory_per_block: usize,
}

impl Card {
    /// The images it runs; none below compute capability 8.0.
    pub fn arch(&self) -> Option<Arch> {
        Arch::of(self.compute_capability.0, self.compute_capability.1)
    }
}

/// The driver and its cards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The driver's version: "580.65.06" where the kernel module tells, else "CUDA 13.0".
    pub driver: String,
    /// All visible cards, those that are too old as well.
    pub cards: Vec<Card>,
}

/// Looks for the driver and cards. Errors with one line that says what was found and what is needed when there is no
/// driver, when it is too old, or when it sees no card.
pub fn find() -> Result<Found> {
    // SAFETY: opens and closes the library, whose initialisers have no side effect this program could see.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing("no CUDA driver (libcuda.so)"));
    }
    let failed = |call: &'static str| move |e: DriverError| missing(&format!("{call}: {}", told(e)));
    let mut version = 0;
    // SAFETY: writes one integer; allowed before cuInit, which an old driver may refuse.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let driver = named(version, &module);
    if version < NEEDED_CUDA {
        return Err(missing(&format!("the driver {driver}")));
    }
    result::init().map_err(failed("cuInit"))?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if count == 0 {
        return Err(missing(&format!("the driver {driver} and no card")));
    }
    let cards = (0..count).map(card).collect::<std::result::Result<_, _>>().map_err(failed("cuDeviceGetAttribute"))?;
    Ok(Found { driver, cards })
}

/// [`find`], and the card `ordinal` of it with the images it runs. Errors as well when there is no such card or it is
/// too old.
pub fn card_at(ordinal: usize) -> Result<(Card, Arch, String)> {
    let found = find()?;
    let count = found.cards.len();
    let Some(card) = found.cards.into_iter().nth(ordinal) else {
        return Err(missing(&format!("{count} card(s), none of number {ordinal}")));
    };
    match card.arch() {
        Some(arch) => Ok((card, arch, found.driver)),
        None => {
            let (major, minor) = card.compute_capability;
            Err(missing(&format!("{} of compute capability {major}.{minor}", card.name)))
        }
    }
}

fn missing(found: &str) -> Error {
    Error::input("device cuda", found, NEEDED)
}

/// The driver's version for people: the kernel module's where it tells, else that of CUDA.
fn named(cuda: i32, module: &str) -> String {
    let release = module.lines().find(|line| line.contains("Kernel Module")).and_then(|line| {
        line.split_whitespace().find(|w| w.contains('.') && w.split('.').all(|p| p.parse::<u32>().is_ok()))
    });
    let cuda = format!("CUDA {}.{}", cuda / 1000, cuda % 1000 / 10);
    release.map_or(cuda.clone(), |release| format!("{release} ({cuda})"))
}

fn card(ordinal: i32) -> std::result::Result<Card, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` was given by the driver just now.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(Card {
        ordinal: ordinal as usize,
        name: result::device::get_name(device)?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }? as u64,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared_memory_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
    })
}

/// An error of the driver: its name and its own words.
pub(super) fn told(error: DriverError) -> String {
    let word = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| format!("error {}", error.0 as u32), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", word(error.error_name()), word(error.error_string()))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_driver_is_named_as_people_know_it() {
        let module = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n\
            GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        assert_eq!(named(13_000, module), "580.65.06 (CUDA 13.0)");
        assert_eq!(named(12_080, ""), "CUDA 12.8");
        assert_eq!(named(12_080, "GCC version:  gcc version 12.2.0\n"), "CUDA 12.8");
    }
}
