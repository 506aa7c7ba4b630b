//! NCCL by its C interface, opened at run time: one program runs with and without it. Types and layouts are cudarc's; the
//! functions are looked up here, as cudarc looks for no `libnccl.so.2`, the one name that NVIDIA's packages install, ends
//! the process where a function is absent, and has no name for codes of later versions.
//!
//! Communicators do not block: a call that has more to do says so, and [`Comm::is_done`] tells when it is over.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use cudarc::nccl::sys::{cudaStream_t, ncclComm, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclUniqueId};

use crate::device::driver::Address;
use crate::error::{Error, Result};

/// Names the library's file where it is not to be searched for.
pub const PATH: &str = "OMR_NCCL_LIBRARY";

/// What is searched for, as the system's loader does: the name that packages install, and that of development files.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// The least version, as NCCL counts: the oldest whose interface cudarc describes.
const LEAST: c_int = 22_200;

/// The version of the settings' layout, 2.22.0 (cudarc's feature `nccl-02022`): later ones read older layouts.
const LAYOUT: c_uint = LEAST as c_uint;

/// What NCCL marks its settings with, and takes for its own default (nccl.h).
const MAGIC: c_uint = 0xcafe_beef;
const DEFAULT: c_int = c_int::MIN;

const SUCCESS: c_int = 0;
const SYSTEM_ERROR: c_int = 2;
const REMOTE_ERROR: c_int = 6;
const IN_PROGRESS: c_int = 7;

type Code = c_int;

/// The functions that are used, as `nccl.h` has them.
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

/// NCCL, opened. It stays so until the process ends: its threads may outlive a communicator.
pub struct Library {
    functions: Functions,
    version: c_int,
}

/// What the ranks of a communicator know each other by.
pub type UniqueId = [u8; 128];

/// A call that failed, in NCCL's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    call: &'static str,
    code: Code,
    said: String,
}

impl Fault {
    /// True where a rank that is lost would look like this.
    pub fn is_of_a_peer(&self) -> bool {
        matches!(self.code, REMOTE_ERROR | SYSTEM_ERROR)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: NCCL's error {}: {}", self.call, self.code, self.said)
    }
}

impl Library {
    /// Opens NCCL: the file that [`PATH`] names in the environment, else the one that the system's loader finds. Errors
    /// where there is none or it is too old.
    pub fn find() -> Result<&'static Library> {
        match std::env::var_os(PATH) {
            Some(path) => Library::open(&[Path::new(&path)], PATH),
            None => Library::open(&NAMES.map(Path::new), "NCCL"),
        }
    }

    /// Opens the first of `names` that is there; `place` says in messages what asked for it.
    pub fn open(names: &[&Path], place: &str) -> Result<&'static Library> {
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: NCCL's initialisers have no side effect that this program could see.
            match unsafe { libloading::Library::new(*name) } {
                Ok(library) => return Library::of(Box::leak(Box::new(library)), name),
                // What the system's loader says is behind the error.
                Err(error) => tried.push(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
            }
        }
        let hint = format!(
            "apt install libnccl2, or pip install nvidia-nccl-cu13 and set {PATH} to its libnccl.so.2; dist.backend=tcp goes without"
        );
        let expected = format!("NCCL {} or later", told(LEAST));
        Err(Error::input_hint(place, format!("none ({})", tried.join("; ")), expected, hint))
    }

    fn of(library: &'static libloading::Library, name: &Path) -> Result<&'static Library> {
        /// A function of the library.
        fn get<F: Copy>(library: &libloading::Library, symbol: &str, name: &Path) -> Result<F> {
            // SAFETY: the fields' types are those that nccl.h declares of the functions so named.
            let found = unsafe { library.get::<F>(symbol) };
            let absent = || Error::input(name.display().to_string(), format!("no {symbol}"), "NVIDIA's NCCL");
            found.map(|found| *found).map_err(|_| absent())
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
            return Err(Error::input(name.display().to_string(), found, format!("{} or later", told(LEAST))));
        }
        Ok(Box::leak(Box::new(opened)))
    }

    /// Its version, such as "2.28.3".
    pub fn version(&self) -> String {
        told(self.version)
    }

    /// What the ranks of one new communicator are to know each other by.
    pub fn unique_id(&self) -> std::result::Result<UniqueId, Fault> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes the one value.
        let code = unsafe { (self.functions.unique_id)(&mut id) };
        self.done("ncclGetUniqueId", code, ptr::null_mut()).map(|_| id.internal.map(|byte| byte as u8))
    }

    /// True where the call is over, false where it goes on.
    fn done(&self, call: &'static str, code: Code, comm: ncclComm_t) -> std::result::Result<bool, Fault> {
        if matches!(code, SUCCESS | IN_PROGRESS) {
            return Ok(code == SUCCESS);
        }
        let text = |text: *const c_char| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: NCCL's strings end in zero and are its own until its next call on this thread.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        };
        // SAFETY: takes any code.
        let name = text(unsafe { (self.functions.error_string)(code) });
        // SAFETY: `comm` is null or alive.
        let last = text(unsafe { (self.functions.last_error)(comm) });
        let said = if last.is_empty() { name } else { format!("{name} ({last})") };
        Err(Fault { call, code, said })
    }
}

/// As NCCL counts: `major * 10,000 + minor * 100 + patch`, up to 2.8 a thousand for the major version.
fn told(version: c_int) -> String {
    let major = if version < 10_000 { 1_000 } else { 10_000 };
    format!("{}.{}.{}", version / major, version % major / 100, version % 100)
}

/// A piece of device memory that goes to another rank or comes from one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// First byte.
    pub address: Address,
    /// Length.
    pub bytes: usize,
}

/// A rank's communicator; one that is dropped without [`Comm::destroy`] is aborted.
pub struct Comm {
    library: &'static Library,
    comm: ncclComm_t,
}

// SAFETY: NCCL lets any thread call, one at a time; whoever holds the value is the only one.
unsafe impl Send for Comm {}

impl Comm {
    /// Begins to make the communicator of `rank` of `size`, on the card whose context is current on this thread.
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
            cgaClusterSize: DEFAULT,
            minCTAs: DEFAULT,
            maxCTAs: DEFAULT,
            netName: ptr::null(),
            splitShare: DEFAULT,
        };
        let id = ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        // A thread of NCCL's stores the communicator there once more when it is made, however long that takes and whatever
        // became of this call: the few bytes are never given back.
        let made: &'static AtomicPtr<ncclComm> = Box::leak(Box::default());
        // SAFETY: the pointers are to values of the types that the function takes; `config` is read within the call.
        let code =
            unsafe { (library.functions.init)(made.as_ptr(), size as c_int, id, rank as c_int, &raw mut config) };
        let comm = Comm { library, comm: made.load(Ordering::Relaxed) };
        library.done("ncclCommInitRankConfig", code, ptr::null_mut()).map(|_| comm)
    }

    /// Whether the last call is over; queued, where it was a group. Errors where it, or anything since, has failed.
    pub fn is_done(&self) -> std::result::Result<bool, Fault> {
        let mut state = SUCCESS;
        // SAFETY: the communicator is alive; writes one integer.
        let code = unsafe { (self.library.functions.async_error)(self.comm, &mut state) };
        self.library.done("ncclCommGetAsyncError", code, self.comm)?;
        self.library.done("ncclCommGetAsyncError", state, self.comm)
    }

    /// Queues as one group, on a stream of the communicator's card: `send[r]` to rank r, in order, and what rank r sends into
    /// `recv[r]`. The pieces stay until the stream is through with it.
    pub fn group(&self, stream: usize, send: &[Vec<Piece>], recv: &[Vec<Piece>]) -> std::result::Result<(), Fault> {
        let functions = &self.library.functions;
        let done = |call, code| self.library.done(call, code, self.comm).map(drop);
        // SAFETY: no arguments.
        done("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let queued = self.queue(stream as cudaStream_t, send, recv);
        // SAFETY: no arguments. A group that has failed is ended as well.
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
            // SAFETY: the piece lies in a region of the card (the body of ranks upholds it) and the stream is alive.
            let code = unsafe { (functions.send)(from, piece.bytes, byte, peer, self.comm, stream) };
            self.library.done("ncclSend", code, self.comm)?;
        }
        for (peer, piece) in of(recv) {
            let to = piece.address as *mut c_void;
            // SAFETY: as above.
            let code = unsafe { (functions.recv)(to, piece.bytes, byte, peer, self.comm, stream) };
            self.library.done("ncclRecv", code, self.comm)?;
        }
        Ok(())
    }

    /// Begins to end it, when all that was queued is done.
    pub fn finalize(&self) -> std::result::Result<(), Fault> {
        // SAFETY: the communicator is alive.
        let code = unsafe { (self.library.functions.finalize)(self.comm) };
        self.library.done("ncclCommFinalize", code, self.comm).map(drop)
    }

    /// Gives everything back, once [`Comm::finalize`] is over.
    pub fn destroy(mut self) -> std::result::Result<(), Fault> {
        let comm = std::mem::replace(&mut self.comm, ptr::null_mut());
        // SAFETY: alive until now, and nowhere else.
        let code = unsafe { (self.library.functions.destroy)(comm) };
        self.library.done("ncclCommDestroy", code, ptr::null_mut()).map(drop)
    }
}

impl Drop for Comm {
    /// Ends what is queued, wherever it is: other ranks may be gone.
    fn drop(&mut self) {
        if !self.comm.is_null() {
            // SAFETY: alive until now, and nowhere else.
            unsafe { (self.library.functions.abort)(self.comm) };
        }
    }
}
