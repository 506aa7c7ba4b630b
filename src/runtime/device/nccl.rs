//! NCCL through its C interface, opened at run time, so one program runs with and without it.
//!
//! Types and layouts come from cudarc. The functions are looked up here instead, because cudarc:
//!
//! - does not search for `libnccl.so.2`, the only name that NVIDIA's packages install;
//! - ends the process if a function is absent;
//! - has no name for error codes of later versions.
//!
//! Communicators are non-blocking: a call that is not finished on return reports "in progress", and [`Comm::is_done`]
//! returns whether it has finished.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use cudarc::nccl::sys::{cudaStream_t, ncclComm, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclUniqueId};

use crate::device::driver::Address;
use omr_base::error::{Error, Result};

/// Environment variable with the path of the library, to be used instead of a search.
pub const PATH: &str = "OMR_NCCL_LIBRARY";

/// Library names to search for with the system's loader: the name that packages install, and that of development files.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Minimum version, in NCCL's numbering: the oldest one whose interface cudarc describes.
const LEAST: c_int = 22_200;

/// Version of the configuration's layout, 2.22.0 (cudarc's feature `nccl-02022`). Later versions read older layouts.
const LAYOUT: c_uint = LEAST as c_uint;

/// Magic number of NCCL's configuration, and the value that selects NCCL's default for a field (nccl.h).
const MAGIC: c_uint = 0xcafe_beef;
const DEFAULT: c_int = c_int::MIN;

/// Maximum number of CTAs with which NCCL moves data. Each occupies a multiprocessor, because it does not fit beside a
/// CTA of a matrix product. Eight leave 94 % of an H100 to backward. No rate of transfer was measured with them.
pub const MAX_CTAS: usize = 8;

/// Number of CTAs that NCCL starts as one cluster. NCCL's default on compute capability 9.0 is 4: its CTAs then start only
/// when 4 multiprocessors of one GPC are free at the same moment. Beside backward, single ones become free. Not measured.
const CLUSTER: c_int = 1;

const SUCCESS: c_int = 0;
const SYSTEM_ERROR: c_int = 2;
const REMOTE_ERROR: c_int = 6;
const IN_PROGRESS: c_int = 7;

type Code = c_int;

/// Functions of NCCL that are used, with the signatures of `nccl.h`.
struct Functions {
    group_start: unsafe extern "C" fn() -> Code,
    group_end: unsafe extern "C" fn() -> Code,
    send: unsafe extern "C" fn(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> Code,
    recv: unsafe extern "C" fn(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> Code,
    unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> Code,
    init: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> Code,
    async_error: unsafe extern "C" fn(ncclComm_t, *mut Code) -> Code,
    finalize: unsafe extern "C" fn(ncclComm_t) -> Code,
    destroy: unsafe extern "C" fn(ncclComm_t) -> Code,
    abort: unsafe extern "C" fn(ncclComm_t) -> Code,
    error_string: unsafe extern "C" fn(Code) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

/// The opened NCCL library. It stays open until the process ends, because NCCL's threads may outlive a communicator.
pub struct Library {
    functions: Functions,
    version: c_int,
}

/// Identifier that the ranks of a communicator share to find each other.
pub type UniqueId = [u8; 128];

/// A failed call, with NCCL's description of the error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{call}: NCCL's error {code}: {message}")]
pub struct Fault {
    call: &'static str,
    code: Code,
    message: String,
}

impl Fault {
    /// Returns true if the loss of another rank can cause this error.
    pub fn is_of_a_peer(&self) -> bool {
        matches!(self.code, REMOTE_ERROR | SYSTEM_ERROR)
    }
}

impl Library {
    /// Opens NCCL: the file that the environment variable [`PATH`] names, else the one that the system's loader finds.
    /// Errors if there is none or it is too old.
    pub fn find() -> Result<&'static Library> {
        match std::env::var_os(PATH) {
            Some(path) => Library::open(&[Path::new(&path)], PATH),
            None => Library::open(&NAMES.map(Path::new), "NCCL"),
        }
    }

    /// Opens the first of `names` that exists. `place` names the source of the request in error messages.
    pub fn open(names: &[&Path], place: &str) -> Result<&'static Library> {
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: NCCL's initialisers have no side effect that is visible to this program.
            match unsafe { libloading::Library::new(*name) } {
                Ok(library) => return Library::of(Box::leak(Box::new(library)), name),
                // The source of the error contains the message of the system's loader.
                Err(error) => tried.push(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
            }
        }
        let hint = format!(
            "apt install libnccl2, or pip install nvidia-nccl-cu13 and set {PATH} to its libnccl.so.2; \
             dist.backend=tcp does not need NCCL"
        );
        let expected = format!("NCCL {} or later", version_text(LEAST));
        Err(Error::input_hint(place, format!("none ({})", tried.join("; ")), expected, hint))
    }

    fn of(library: &'static libloading::Library, name: &Path) -> Result<&'static Library> {
        /// Looks up a function of the library.
        fn get<F: Copy>(library: &libloading::Library, symbol: &str, name: &Path) -> Result<F> {
            // SAFETY: the types of the fields are those that nccl.h declares for the functions of these names.
            let found = unsafe { library.get::<F>(symbol) };
            let missing_error = || Error::input(name, format!("no {symbol}"), "NVIDIA's NCCL");
            found.map(|found| *found).map_err(|_| missing_error())
        }
        let get_version: unsafe extern "C" fn(*mut c_int) -> Code = get(library, "ncclGetVersion", name)?;
        let functions = Functions {
            group_start: get(library, "ncclGroupStart", name)?,
            group_end: get(library, "ncclGroupEnd", name)?,
            send: get(library, "ncclSend", name)?,
            recv: get(library, "ncclRecv", name)?,
            unique_id: get(library, "ncclGetUniqueId", name)?,
            init: get(library, "ncclCommInitRankConfig", name)?,
            async_error: get(library, "ncclCommGetAsyncError", name)?,
            finalize: get(library, "ncclCommFinalize", name)?,
            destroy: get(library, "ncclCommDestroy", name)?,
            abort: get(library, "ncclCommAbort", name)?,
            error_string: get(library, "ncclGetErrorString", name)?,
            last_error: get(library, "ncclGetLastError", name)?,
        };
        let mut opened = Library { functions, version: 0 };
        // SAFETY: writes one integer.
        let code = unsafe { get_version(&mut opened.version) };
        opened.done("ncclGetVersion", code, ptr::null_mut()).map_err(|fault| Error::Failed(fault.to_string()))?;
        if opened.version < LEAST {
            let found = format!("NCCL {}", opened.version());
            return Err(Error::input(name, found, format!("{} or later", version_text(LEAST))));
        }
        Ok(Box::leak(Box::new(opened)))
    }

    /// Returns the version, for example "2.28.3".
    pub fn version(&self) -> String {
        version_text(self.version)
    }

    /// Creates the identifier of a new communicator, which all of its ranks must receive.
    pub fn unique_id(&self) -> std::result::Result<UniqueId, Fault> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes the one value.
        let code = unsafe { (self.functions.unique_id)(&mut id) };
        self.done("ncclGetUniqueId", code, ptr::null_mut()).map(|_| id.internal.map(|byte| byte as u8))
    }

    /// Interprets the return code of `call`: returns true if the call has finished and false if it is in progress.
    /// Errors if it failed.
    fn done(&self, call: &'static str, code: Code, comm: ncclComm_t) -> std::result::Result<bool, Fault> {
        if matches!(code, SUCCESS | IN_PROGRESS) {
            return Ok(code == SUCCESS);
        }
        let text = |text: *const c_char| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: NCCL's strings end in zero and stay valid until its next call on this thread.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        };
        // SAFETY: the function accepts any code.
        let name = text(unsafe { (self.functions.error_string)(code) });
        // SAFETY: `comm` is null or alive.
        let last = text(unsafe { (self.functions.last_error)(comm) });
        let message = if last.is_empty() { name } else { format!("{name} ({last})") };
        Err(Fault { call, code, message })
    }
}

/// Formats a version number of NCCL: `major * 10,000 + minor * 100 + patch`, or `major * 1,000 + ...` up to 2.8.
fn version_text(version: c_int) -> String {
    let major = if version < 10_000 { 1_000 } else { 10_000 };
    format!("{}.{}.{}", version / major, version % major / 100, version % 100)
}

/// A range of device memory that is sent to another rank or received from one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Address of the first byte.
    pub address: Address,
    /// Length in bytes.
    pub bytes: usize,
}

/// Communicator of a rank. If it is dropped without [`Comm::destroy`], it is aborted.
pub struct Comm {
    library: &'static Library,
    comm: ncclComm_t,
}

// SAFETY: any thread may call NCCL with a communicator, one at a time; only the owner of this value does.
unsafe impl Send for Comm {}

impl Comm {
    /// Begins to create the communicator of `rank` of `size`, on the GPU whose context is current on this thread.
    pub fn init(
        library: &'static Library,
        id: &UniqueId,
        rank: usize,
        size: usize,
    ) -> std::result::Result<Comm, Fault> {
        let mut config = ncclConfig_t {
            size: size_of::<ncclConfig_t>(),
            magic: MAGIC,
            version: LAYOUT,
            blocking: 0,
            cgaClusterSize: CLUSTER,
            minCTAs: DEFAULT,
            maxCTAs: MAX_CTAS as c_int,
            netName: ptr::null(),
            splitShare: DEFAULT,
        };
        let id = ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        // NCCL stores the communicator at this address a second time, from one of its threads, when the creation ends.
        // That may happen at any time, even after this call has failed, so the few bytes are never freed.
        let made: &'static AtomicPtr<ncclComm> = Box::leak(Box::default());
        // SAFETY: the pointers refer to values of the types that the function takes; `config` is read only within the
        // call.
        let code =
            unsafe { (library.functions.init)(made.as_ptr(), size as c_int, id, rank as c_int, &raw mut config) };
        let comm = Comm { library, comm: made.load(Ordering::Relaxed) };
        library.done("ncclCommInitRankConfig", code, ptr::null_mut()).map(|_| comm)
    }

    /// Returns true if the last call has finished. A call of [`Comm::group`] has finished when its transfers are queued
    /// on the stream. Errors if the last call, or anything since then, has failed.
    pub fn is_done(&self) -> std::result::Result<bool, Fault> {
        let mut state = SUCCESS;
        // SAFETY: the communicator is alive; writes one integer.
        let code = unsafe { (self.library.functions.async_error)(self.comm, &mut state) };
        self.library.done("ncclCommGetAsyncError", code, self.comm)?;
        self.library.done("ncclCommGetAsyncError", state, self.comm)
    }

    /// Queues one group of transfers on a stream of the communicator's GPU: sends the pieces of `send[r]` to rank r, in
    /// order, and receives the data of rank r into `recv[r]`. The memory must stay valid until the stream has run the
    /// group.
    pub fn group(&self, stream: usize, send: &[Vec<Piece>], recv: &[Vec<Piece>]) -> std::result::Result<(), Fault> {
        let functions = &self.library.functions;
        let done = |call, code| self.library.done(call, code, self.comm).map(drop);
        // SAFETY: no arguments.
        done("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let queued = self.queue(stream as cudaStream_t, send, recv);
        // SAFETY: no arguments. A group that has failed must be ended as well.
        let ended = unsafe { (functions.group_end)() };
        queued.and_then(|()| done("ncclGroupEnd", ended))
    }

    fn queue(&self, stream: cudaStream_t, send: &[Vec<Piece>], recv: &[Vec<Piece>]) -> std::result::Result<(), Fault> {
        let (functions, byte) = (&self.library.functions, ncclDataType_t::ncclUint8);
        let of = |pieces: &[Vec<Piece>]| -> Vec<(c_int, Piece)> {
            let peers = pieces.iter().enumerate();
            peers.flat_map(|(peer, pieces)| pieces.iter().map(move |piece| (peer as c_int, *piece))).collect()
        };
        for (peer, piece) in of(send) {
            let from = piece.address as *const c_void;
            // SAFETY: the piece is inside a region of the GPU (`ranks` guarantees it), and the stream is alive.
            let code = unsafe { (functions.send)(from, piece.bytes, byte, peer, self.comm, stream) };
            self.library.done("ncclSend", code, self.comm)?;
        }
        for (peer, piece) in of(recv) {
            let to = piece.address as *mut c_void;
            // SAFETY: the piece is inside a region of the GPU (`ranks` guarantees it), and the stream is alive.
            let code = unsafe { (functions.recv)(to, piece.bytes, byte, peer, self.comm, stream) };
            self.library.done("ncclRecv", code, self.comm)?;
        }
        Ok(())
    }

    /// Begins to shut down the communicator. The shutdown finishes when all queued work is done.
    pub fn finalize(&self) -> std::result::Result<(), Fault> {
        // SAFETY: the communicator is alive.
        let code = unsafe { (self.library.functions.finalize)(self.comm) };
        self.library.done("ncclCommFinalize", code, self.comm).map(drop)
    }

    /// Frees the communicator's resources. [`Comm::finalize`] must have finished.
    pub fn destroy(mut self) -> std::result::Result<(), Fault> {
        let comm = std::mem::replace(&mut self.comm, ptr::null_mut());
        // SAFETY: alive until now, and there is no other copy of the handle.
        let code = unsafe { (self.library.functions.destroy)(comm) };
        self.library.done("ncclCommDestroy", code, ptr::null_mut()).map(drop)
    }
}

impl Drop for Comm {
    /// Aborts the queued work, because other ranks may no longer exist.
    fn drop(&mut self) {
        if !self.comm.is_null() {
            // SAFETY: alive until now, and there is no other copy of the handle.
            unsafe { (self.library.functions.abort)(self.comm) };
        }
    }
}
