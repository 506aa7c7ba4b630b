//! Detects the driver library, its version and the GPUs of this machine.

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};

use crate::device::driver::Properties;
use crate::device::images::Arch;
use omr_base::error::{Error, Result};

/// CUDA 12.0, in the driver's numbering. Drivers for this version compile PTX ISA 8.0
/// ([`Images::ptx_for_driver`](crate::device::images::Images::ptx_for_driver)) and have every call that the program needs.
const NEEDED_CUDA: u32 = 12_000;

/// CUDA 13.0: drivers for this version load the embedded cubins, which its `ptxas` made.
pub(super) const CUBIN_CUDA: u32 = 13_000;

/// Requirements, for error messages.
const NEEDED: &str = "NVIDIA's driver 525 or later (CUDA 12.0; 570 from compute capability 10.0 on) and a GPU of compute \
    capability 8.0 or later";

/// Words in the names of data-centre GPUs. NVIDIA supports programs of a newer CUDA version on an older driver only on
/// these GPUs, and on RTX GPUs of certified servers, which have other names (CUDA Compatibility, "Forward Compatibility").
const DATA_CENTRE: [&str; 23] = [
    "A2", "A10", "A10G", "A16", "A30", "A40", "A100", "A800", "L2", "L4", "L20", "L40", "L40S", "H20", "H100", "H200",
    "H800", "GH200", "B200", "B300", "GB200", "GB300", "Server",
];

/// Looks for the driver and returns the visible GPUs, in the order of `CUDA_VISIBLE_DEVICES`. Some may be too old for the
/// kernels (see [`Properties::arch`]). There is at least one. Errors with one line, which states what was found and what is required, if there is
/// no driver, the driver is too old, or it finds no GPU.
pub fn find() -> Result<Vec<Properties>> {
    // SAFETY: opens and closes the library, whose initialisers have no side effect that is visible to this program.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing("no CUDA driver (libcuda.so)"));
    }
    let failed = |call: &'static str| move |e: DriverError| missing(&format!("{call}: {}", describe(e)));
    let mut version = 0;
    // The version is read before `cuInit`, because `cuInit` may fail on an old driver.
    // SAFETY: the call writes one integer and is allowed before `cuInit`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    let version = version as u32;
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let driver = named(version, &module);
    if version < NEEDED_CUDA {
        return Err(too_old(&driver));
    }
    result::init().map_err(failed("cuInit"))?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if count == 0 {
        return Err(missing(&format!("the driver {driver} and no GPU")));
    }
    (0..count)
        .map(|i| properties(i, &driver, version))
        .collect::<std::result::Result<_, _>>()
        .map_err(failed("cuDeviceGetAttribute"))
}

/// Calls [`find`] and returns GPU `ordinal` and the images that it runs. Also errors if there is no such GPU or it is too
/// old.
pub fn gpu_at(ordinal: usize) -> Result<(Properties, Arch)> {
    let found = find()?;
    let count = found.len();
    let Some(gpu) = found.into_iter().nth(ordinal) else {
        return Err(missing(&format!("{count} GPU(s), but no GPU {ordinal}")));
    };
    match gpu.arch() {
        Some(arch) => Ok((gpu, arch)),
        None => {
            let (major, minor) = gpu.compute_capability;
            Err(missing(&format!("{} of compute capability {major}.{minor}", gpu.name)))
        }
    }
}

/// True if the first GPU can be used, false if there is no driver or no visible GPU. Errors if there is a GPU that cannot
/// be used.
pub fn is_usable() -> Result<bool> {
    let Err(error) = gpu_at(0) else { return Ok(true) };
    // SAFETY: opens and closes the library, as in [`find`].
    let is_hidden = !unsafe { sys::is_culib_present() }
        || result::init().is_err_and(|error| error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE);
    if is_hidden { Ok(false) } else { Err(error) }
}

/// Returns the error for a driver that is too old. It names the package that extends the driver of the first GPU.
fn too_old(driver: &str) -> Error {
    let name = result::init().and_then(|()| result::device::get_name(result::device::get(0)?)).unwrap_or_default();
    match package(&name, 12) {
        None => missing(&format!("the driver {driver}")),
        Some(package) => {
            let expected = format!("{package}, or {NEEDED}");
            Error::input("device cuda", format!("the driver {driver} of {name}"), expected)
        }
    }
}

/// Returns the package that extends an older driver to CUDA `major`.0, and the variable for its folder, if the GPU is a
/// data-centre GPU: "NVIDIA A100-SXM4-80GB", but not "NVIDIA RTX A2000".
fn package(gpu: &str, major: u32) -> Option<String> {
    let text = || format!("the package cuda-compat-{major}-0 (LD_LIBRARY_PATH=/usr/local/cuda-{major}.0/compat)");
    gpu.split([' ', '-']).any(|word| DATA_CENTRE.contains(&word)).then(text)
}

/// Returns what a newer driver would change on `gpu`, or `None` if its driver loads the embedded cubins.
pub fn newer_driver(gpu: &Properties) -> Option<String> {
    let package = package(&gpu.name, 13).map_or(String::new(), |package| format!(", or {package},"));
    let text = || format!("the driver compiles them; driver 580 or later (CUDA 13.0){package} loads machine code");
    (gpu.cuda < CUBIN_CUDA).then(text)
}

fn missing(found: &str) -> Error {
    Error::input("device cuda", found, NEEDED)
}

/// Returns the driver version as text ("580.65.06 (CUDA 13.0)", or "CUDA 13.0"): the kernel module's release with the CUDA version, or the CUDA version alone if
/// the module does not report its release.
pub fn named(cuda: u32, module: &str) -> String {
    let release = module.lines().find(|line| line.contains("Kernel Module")).and_then(|line| {
        line.split_whitespace().find(|w| w.contains('.') && w.split('.').all(|p| p.parse::<u32>().is_ok()))
    });
    let cuda = format!("CUDA {}.{}", cuda / 1000, cuda % 1000 / 10);
    release.map_or(cuda.clone(), |release| format!("{release} ({cuda})"))
}

fn properties(ordinal: i32, driver: &str, cuda: u32) -> std::result::Result<Properties, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver has just returned `device`.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(Properties {
        name: result::device::get_name(device)?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        ),
        // SAFETY: the driver has just returned `device`.
        memory: unsafe { result::device::total_mem(device) }? as u64,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared_memory_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        registers_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK)? as u32,
        driver: driver.to_owned(),
        cuda,
    })
}

/// Formats an error of the driver: its name and its description.
pub(super) fn describe(error: DriverError) -> String {
    let word = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| format!("error {}", error.0 as u32), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", word(error.error_name()), word(error.error_string()))
}
