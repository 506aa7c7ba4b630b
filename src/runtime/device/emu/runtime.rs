//! The emulator's C interface (kernels/emu/api.h), loaded from compiled objects.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

use crate::device::emu::compile::Cache;
use crate::device::emu::sites::{Passed, Site};
use omr_base::error::{Error, Result};

/// Value of `OMR_EMU_VERSION` in the header that this file mirrors.
const VERSION: u32 = 6;

/// Folder of the runtime's sources. The runtime must be loaded before any kernel object, because kernel objects call
/// functions of the runtime.
const SOURCES: &str = "kernels/emu/";

/// Declaration of a kernel in its compiled object. Mirrors `EmuEntry`.
#[repr(C)]
pub struct Entry {
    name: *const c_char,
    file: *const c_char,
    run: extern "C" fn(*const c_void),
    /// Bytes of the kernel's `Args`.
    pub args_bytes: u32,
    /// Maximum threads per CTA.
    pub threads: u32,
    /// Minimum number of CTAs that an SM must be able to hold.
    pub min_ctas: u32,
    /// 1 if the bits of the result may depend on the schedule.
    pub unordered: u32,
}

// SAFETY: an entry is constant data of an object that is never unloaded.
unsafe impl Sync for Entry {}
// SAFETY: an entry is constant data of an object that is never unloaded.
unsafe impl Send for Entry {}

/// Schedule and other options of an emulated device. Mirrors `EmuOptions`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Schedule {
    /// Seed; 0 selects the fixed schedule.
    pub seed: u64,
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Completion: eager 0, lazy 1, random 2.
    pub completion: u32,
    /// 1 to keep shadow state of shared memory.
    pub shadow: u32,
    /// 1 to fill new shared memory and the destinations of running copies with 0xFF.
    pub poison: u32,
    /// Addition in matrix instructions: 0 for sequential fused multiply-adds, 1 for the sums of Hopper, 2 for those of
    /// Ampere.
    pub sums: u32,
    /// 1 to also count the bank conflicts of accesses other than `ldmatrix` and `stmatrix`.
    pub banks: u32,
    /// 1 to run only the first and the last cluster of each grid.
    pub corners: u32,
    /// 1 to permit arrivals at an mbarrier in a phase before any wait has found the phase before it completed. Only
    /// `tools/emu-run` does.
    pub unseen_phases: u32,
    /// Bytes of shared memory per multiprocessor.
    pub shared_memory: u32,
    /// Warps per multiprocessor.
    pub warps: u32,
    /// Registers per multiprocessor.
    pub registers: u32,
}

/// Shape of a launch (`EmuLaunch`).
#[repr(C)]
pub struct Grid {
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads per CTA.
    pub block: u32,
    /// CTAs per cluster.
    pub cluster: u32,
    /// Bytes of dynamic shared memory.
    pub smem: u32,
    /// Registers per thread, or 0 if unknown.
    pub registers: u32,
}

/// Mirrors `EmuSite`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PassedSite {
    file: *const c_char,
    wrapper: *const c_char,
    line: u32,
}

type Handle = *mut c_void;

/// The loaded runtime and the kernel objects that were loaded after it.
pub struct Runtime {
    create: unsafe extern "C" fn(*const Schedule) -> Handle,
    destroy: unsafe extern "C" fn(Handle),
    set_options: unsafe extern "C" fn(Handle, *const Schedule),
    launch: unsafe extern "C" fn(Handle, *const Entry, *const Grid, *const c_void, usize) -> c_int,
    error: unsafe extern "C" fn(Handle) -> *const c_char,
    skip: unsafe extern "C" fn(Handle, *const c_char, u32),
    sites: unsafe extern "C" fn(Handle, *mut PassedSite, usize) -> usize,
    bank_conflicts: unsafe extern "C" fn(Handle) -> u64,
    objects: Mutex<HashMap<PathBuf, Slot>>,
    /// Never unloaded, because kernels contain addresses of its code.
    _library: Library,
}

/// Slot of one kernel object. The first thread that needs the object loads it, and other threads wait.
type Slot = Arc<OnceLock<std::result::Result<Library, String>>>;

impl Runtime {
    /// Returns the runtime of this process, which is compiled and loaded on first use. A failure is permanent.
    pub fn get(cache: &Cache) -> Result<&'static Runtime> {
        static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
        // Kernel objects call functions of the runtime, so a process can have only one runtime. It is compiled from the
        // sources of the first `cache`.
        let runtime = RUNTIME.get_or_init(|| Runtime::load(cache).map_err(|e| e.to_string()));
        runtime.as_ref().map_err(|text| Error::Failed(text.clone()))
    }

    fn load(cache: &Cache) -> Result<Runtime> {
        let library = open(&cache.object(&cache.units(SOURCES))?, RTLD_GLOBAL)?;
        // SAFETY: the signatures are those of kernels/emu/api.h, whose version is compared first. The functions live as
        // long as the library, which is never closed.
        unsafe {
            let version: extern "C" fn() -> u32 = symbol(&library, c"omr_emu_version")?;
            if version() != VERSION {
                let found = version();
                return Err(Error::Failed(format!(
                    "the emulator has interface version {found}, but the driver has {VERSION}"
                )));
            }
            Ok(Runtime {
                create: symbol(&library, c"omr_emu_create")?,
                destroy: symbol(&library, c"omr_emu_destroy")?,
                set_options: symbol(&library, c"omr_emu_set_options")?,
                launch: symbol(&library, c"omr_emu_launch")?,
                error: symbol(&library, c"omr_emu_error")?,
                skip: symbol(&library, c"omr_emu_skip")?,
                sites: symbol(&library, c"omr_emu_sites")?,
                bank_conflicts: symbol(&library, c"omr_emu_bank_conflicts")?,
                objects: Mutex::default(),
                _library: library,
            })
        }
    }

    /// Returns kernel `name` of `source`, which is compiled and loaded on first use. Errors name the source or the
    /// kernel.
    pub fn kernel(&'static self, cache: &Cache, source: &str, name: &str) -> Result<&'static Entry> {
        let units = [source.to_owned()];
        let slot = {
            let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            objects.entry(cache.path(&units)?).or_default().clone()
        };
        let loaded = slot.get_or_init(|| {
            let path = cache.object(&units).map_err(|e| e.to_string())?;
            open(&path, RTLD_LOCAL).map_err(|e| e.to_string())
        });
        let library = loaded.as_ref().map_err(|text| Error::Failed(text.clone()))?;
        let wanted = CString::new(format!("omr_entry_{name}")).unwrap_or_default();
        // SAFETY: the macro `KERNEL` exports data of this layout under this name. The object stays loaded with `self`,
        // which is in a static.
        let entry = unsafe { library.get::<*const Entry>(wanted.as_bytes_with_nul()) };
        let entry: *const Entry =
            entry.map_err(|_| Error::Failed(format!("{source} has no kernel {name}")))?.into_raw().cast();
        // SAFETY: the pointer refers to constant data of an object that stays loaded.
        Ok(unsafe { &*entry })
    }
}

/// An emulated device: its handle in the runtime, and the number of synchronisation call sites known to have run on it.
pub struct Instance {
    /// Runtime of this device.
    pub runtime: &'static Runtime,
    handle: Handle,
    known: usize,
}

// SAFETY: an instance may be used from any thread, but only by one thread at a time. The methods that run kernels take
// `&mut self`.
unsafe impl Send for Instance {}

impl Instance {
    /// Creates a device. Errors if there is no memory for it.
    pub fn new(runtime: &'static Runtime, schedule: &Schedule) -> Result<Instance> {
        // SAFETY: the options live until the call returns.
        let handle = unsafe { (runtime.create)(schedule) };
        if handle.is_null() {
            return Err(Error::Failed("no memory for an emulated device".into()));
        }
        Ok(Instance { runtime, handle, known: 0 })
    }

    /// Turns the synchronisation calls at `site` into no-ops in the following launches. `None` skips no site.
    pub fn skip(&mut self, site: Option<&Site>) {
        let file = site.and_then(|site| CString::new(site.file.as_str()).ok());
        let (file, line) = match (&file, site) {
            (Some(file), Some(site)) => (file.as_ptr(), site.line),
            _ => (std::ptr::null(), 0),
        };
        // SAFETY: the runtime copies the name.
        unsafe { (self.runtime.skip)(self.handle, file, line) }
    }

    /// Runs a grid to completion. `args` must have the alignment and the length of the kernel's struct. Errors with the
    /// emulator's text.
    pub fn launch(
        &mut self,
        entry: &'static Entry,
        schedule: &Schedule,
        grid: &Grid,
        args: &[u8],
    ) -> std::result::Result<(), String> {
        // SAFETY: all pointers outlive the calls. The emulator checks the device addresses inside `args` and returns
        // faults as errors. The error's text lives until the next launch.
        unsafe {
            (self.runtime.set_options)(self.handle, schedule);
            match (self.runtime.launch)(self.handle, entry, grid, args.as_ptr().cast(), args.len()) {
                0 => Ok(()),
                _ => Err(text((self.runtime.error)(self.handle))),
            }
        }
    }

    /// Returns the extra cycles caused by bank conflicts in shared memory. `ldmatrix` and `stmatrix` are always
    /// counted. Other accesses are counted only if [`Schedule::banks`] is 1.
    pub fn bank_conflicts(&self) -> u64 {
        // SAFETY: the handle belongs to this instance.
        unsafe { (self.runtime.bank_conflicts)(self.handle) }
    }

    /// Returns all call sites that ran so far. If their number has not changed since the last call, returns an empty
    /// list.
    pub fn more_sites(&mut self) -> Vec<Passed> {
        // SAFETY: nothing is written with a capacity of 0.
        let count = unsafe { (self.runtime.sites)(self.handle, std::ptr::null_mut(), 0) };
        if count == self.known {
            return Vec::new();
        }
        self.known = count;
        let mut found = vec![PassedSite { file: std::ptr::null(), wrapper: std::ptr::null(), line: 0 }; count];
        // SAFETY: `found` has room for `count` sites; the texts live as long as the instance.
        unsafe {
            (self.runtime.sites)(self.handle, found.as_mut_ptr(), count);
            let passed =
                |s: &PassedSite| Passed { site: Site { file: text(s.file), line: s.line }, wrapper: text(s.wrapper) };
            found.iter().map(passed).collect()
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the handle belongs to this instance and is not used again.
        unsafe { (self.runtime.destroy)(self.handle) }
    }
}

/// Copies a C string, or returns an empty text for null.
///
/// # Safety
/// `at` must be null or point to a NUL-terminated text.
unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

fn open(path: &Path, visibility: c_int) -> Result<Library> {
    // SAFETY: the object was compiled from this program's own sources, whose initialisers only fill in data.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | visibility) };
    library.map_err(|e| Error::Failed(format!("{}: {e} (delete the file, and omr compiles it again)", path.display())))
}

/// Looks up a function of the runtime.
///
/// # Safety
/// `T` must be the symbol's type.
unsafe fn symbol<T: Copy>(library: &Library, name: &CStr) -> Result<T> {
    // SAFETY: guaranteed by the caller.
    let found = unsafe { library.get::<T>(name.to_bytes_with_nul()) };
    found.map(|s| *s).map_err(|e| Error::Failed(format!("the emulator's runtime: {e}")))
}
