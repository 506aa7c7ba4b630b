//! NVTX without its library, which CUDA 13 no longer has: its headers look for the profiler themselves, and so does
//! this, for the two calls used here. A profiler names its library in `NVTX_INJECTION64_PATH` (or has loaded it) and is
//! handed tables of function pointers to fill. Modules, ids and layouts: nvtx3/nvtxDetail/nvtxTypes.h and nvtxInit.h.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::os::unix::Library;

/// Ids of the modules, in order, with one more than the largest function id of each: none, core, cuda, opencl, cudart,
/// core2, sync.
const SIZES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const CORE: usize = 1;
const RANGE_PUSH: usize = 9;
const RANGE_POP: usize = 11;

const TABLE_OF_CALLBACKS: u32 = 1;
const TABLE_OF_VERSIONS: u32 = 3;
const NVTX_VERSION: u32 = 3;

type Export = extern "C" fn(u32) -> *const c_void;
type Initialize = unsafe extern "C" fn(Export) -> c_int;

/// A profiler's functions for ranges.
#[derive(Clone, Copy)]
pub struct Nvtx {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

impl Nvtx {
    /// The profiler around this process, if there is one that takes ranges; asked once.
    pub fn find() -> Option<Nvtx> {
        static FOUND: OnceLock<Option<Nvtx>> = OnceLock::new();
        *FOUND.get_or_init(attach)
    }

    /// Opens a range; the profiler copies the text.
    pub fn push(self, name: &CStr) {
        // SAFETY: the pointer came from the profiler for this signature; its library stays loaded.
        unsafe { (self.push)(name.as_ptr()) };
    }

    /// Closes the innermost range.
    pub fn pop(self) {
        // SAFETY: as above; popping nothing is an error code nobody needs.
        unsafe { (self.pop)() };
    }
}

/// What the profiler fills in.
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
    told: extern "C" fn(u32),
}

extern "C" fn export(table: u32) -> *const c_void {
    static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), table_of };
    static VERSIONS: Versions = Versions { size: size_of::<Versions>(), version: NVTX_VERSION, reserved: 0, told };
    match table {
        TABLE_OF_CALLBACKS => (&raw const CALLBACKS).cast(),
        TABLE_OF_VERSIONS => (&raw const VERSIONS).cast(),
        _ => ptr::null(),
    }
}

extern "C" fn told(_: u32) {}

/// The addresses of a module's slots, none first and last, and how many ids it has.
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
    // SAFETY: the profiler gives places to write to, or null where it does not want to know.
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
    // It stays loaded as long as the process runs.
    std::mem::forget(library);
    // SAFETY: as the headers call it, once.
    if unsafe { initialize(export) } == 0 {
        return None;
    }
    let slot = |id: usize| Some(SLOTS[CORE][id].load(Ordering::Acquire)).filter(|pointer| !pointer.is_null());
    let (push, pop) = (slot(RANGE_PUSH)?, slot(RANGE_POP)?);
    // SAFETY: the profiler put functions of these signatures there (nvtxTypes.h).
    unsafe {
        Some(Nvtx {
            push: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(push),
            pop: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(pop),
        })
    }
}
