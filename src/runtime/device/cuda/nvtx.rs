//! NVTX ranges without the NVTX library, which CUDA 13 no longer ships.
//!
//! NVTX's headers look for the profiler themselves. This file does the same for the two calls that omr uses. A profiler
//! sets `NVTX_INJECTION64_PATH` to its library (or has already loaded it), receives tables of function pointers and
//! fills them. The modules, ids and layouts are those of nvtx3/nvtxDetail/nvtxTypes.h and nvtxInit.h.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::os::unix::Library;

/// Number of slots per module (one more than its largest function id). The modules are, in the order of their ids:
/// none, core, cuda, opencl, cudart, core2, sync.
const SIZES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const CORE: usize = 1;
const RANGE_PUSH: usize = 9;
const RANGE_POP: usize = 11;

const TABLE_OF_CALLBACKS: u32 = 1;
const TABLE_OF_VERSIONS: u32 = 3;
const NVTX_VERSION: u32 = 3;

type Export = extern "C" fn(u32) -> *const c_void;
type Initialize = unsafe extern "C" fn(Export) -> c_int;

/// The profiler's functions for ranges.
#[derive(Clone, Copy)]
pub struct Nvtx {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

impl Nvtx {
    /// Returns the profiler that this process runs under, or `None` if there is none that records ranges. The result is
    /// cached.
    pub fn find() -> Option<Nvtx> {
        static FOUND: OnceLock<Option<Nvtx>> = OnceLock::new();
        *FOUND.get_or_init(attach)
    }

    /// Opens a range; the profiler copies the text.
    pub fn push(self, name: &CStr) {
        // SAFETY: the profiler provided the pointer for this signature; its library stays loaded.
        unsafe { (self.push)(name.as_ptr()) };
    }

    /// Closes the innermost range.
    pub fn pop(self) {
        // SAFETY: the profiler provided the pointer for this signature. If no range is open, the call returns an error
        // code, which is ignored.
        unsafe { (self.pop)() };
    }
}

/// Function pointers that the profiler fills in.
static SLOTS: [[AtomicPtr<c_void>; 16]; 7] = [const { [const { AtomicPtr::new(ptr::null_mut()) }; 16] }; 7];

#[repr(C)]
struct Callbacks {
    size: usize,
    table_of: extern "C" fn(c_uint, *mut *const usize, *mut c_uint) -> c_int,
}

#[repr(C)]
struct Versions {
    size: usize,
    version: u32,
    reserved: u32,
    initialized: extern "C" fn(u32),
}

extern "C" fn export(table: u32) -> *const c_void {
    static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), table_of };
    static VERSIONS: Versions =
        Versions { size: size_of::<Versions>(), version: NVTX_VERSION, reserved: 0, initialized };
    match table {
        TABLE_OF_CALLBACKS => (&raw const CALLBACKS).cast(),
        TABLE_OF_VERSIONS => (&raw const VERSIONS).cast(),
        _ => ptr::null(),
    }
}

extern "C" fn initialized(_: u32) {}

/// Stores in `table` the addresses of a module's slots, with a null entry before and after them, and in `size` the
/// number of slots. Returns 1, or 0 if there is no such module.
extern "C" fn table_of(module: c_uint, table: *mut *const usize, size: *mut c_uint) -> c_int {
    static TABLES: OnceLock<Vec<Vec<usize>>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        let of = |(slots, &size): (&[AtomicPtr<c_void>; 16], &usize)| -> Vec<usize> {
            let slots = slots.iter().take(size).skip(1).map(|slot| slot.as_ptr() as usize);
            std::iter::once(0).chain(slots).chain([0]).collect()
        };
        SLOTS.iter().zip(&SIZES).map(of).collect()
    });
    let Some(found) = tables.get(module as usize).filter(|_| module > 0) else { return 0 };
    // SAFETY: the profiler passes valid pointers to write to, or null for a result that it does not need.
    unsafe {
        if !table.is_null() {
            *table = found.as_ptr();
        }
        if !size.is_null() {
            *size = SIZES[module as usize] as c_uint;
        }
    }
    1
}

fn attach() -> Option<Nvtx> {
    let named = std::env::var_os("NVTX_INJECTION64_PATH").filter(|path| !path.is_empty());
    let (library, symbol) = match named {
        // SAFETY: the user started this program under the profiler that the library belongs to.
        Some(path) => (unsafe { Library::new(path) }.ok()?, c"InitializeInjectionNvtx2"),
        None => (Library::this(), c"InitializeInjectionNvtx2Preinject"),
    };
    // SAFETY: the symbol has this signature (nvtxInit.h).
    let initialize = *unsafe { library.get::<Initialize>(symbol.to_bytes_with_nul()) }.ok()?;
    // The library must stay loaded until the process ends.
    std::mem::forget(library);
    // SAFETY: called once, with the same argument as in NVTX's headers.
    if unsafe { initialize(export) } == 0 {
        return None;
    }
    let slot = |id: usize| Some(SLOTS[CORE][id].load(Ordering::Acquire)).filter(|pointer| !pointer.is_null());
    let (push, pop) = (slot(RANGE_PUSH)?, slot(RANGE_POP)?);
    // SAFETY: the profiler stored functions of these signatures in these slots (nvtxTypes.h).
    unsafe {
        Some(Nvtx {
            push: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(push),
            pop: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(pop),
        })
    }
}
