//! Loads kernel images. A cubin is loaded directly. PTX is compiled once by the driver, and the result is cached.

use std::ffi::{CString, c_char, c_void};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{iter, ptr};

use cudarc::driver::sys::{self, CUjit_option as Jit};
use cudarc::driver::{CudaContext, result};

use super::find::{CUBIN_CUDA, describe};
use crate::device::driver::Properties;
use crate::device::images::{Arch, Images};
use omr_base::error::{Error, Result};
use omr_base::files;

/// Bytes of each of the driver's two logs. The driver truncates longer output.
pub const LOG: usize = 16 << 10;

/// Time after which a line about compiling is logged, and the interval of further lines.
const FIRST_LINE: Duration = Duration::from_secs(1);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Returns the machine code of every kernel file of `images` for `gpu`. The code of a file is its embedded cubin if
/// there is one for this compute capability and the driver can load it, else the cached code, else the driver compiles it from PTX. Files are processed in parallel on all
/// processors. If the driver compiles for long, log lines state how many files are left. Errors name the file and contain
/// the driver's log.
pub fn code(
    images: &Images,
    context: &Arc<CudaContext>,
    gpu: &Properties,
    arch: Arch,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let (cache, is_compiling) = (files::user_cache("cuda"), AtomicBool::new(false));
    let of_file = |file: &'static str| -> Result<(&'static str, Vec<u8>)> {
        // The driver optimises PTX for the GPU that it has, and an 8.6 or 8.9 differs from an 8.0.
        if gpu.cuda >= CUBIN_CUDA
            && gpu.compute_capability == arch.compute_capability()
            && let Some(cubin) = images.cubin(file, arch)
        {
            return Ok((file, cubin));
        }
        let failed = |why: String| Error::Failed(format!("kernels/{file}.cu: {why}"));
        let ptx = images.ptx_for_driver(file, arch);
        let ptx = ptx.ok_or_else(|| failed(format!("this program contains no PTX for {}", arch.name())))?;
        let path = cache.as_ref().map(|folder| folder.join(name(file, gpu, &ptx)));
        if let Some(cubin) = path.as_ref().and_then(|path| kept(path)) {
            return Ok((file, cubin));
        }
        context.bind_to_thread().map_err(|e| failed(describe(e)))?;
        is_compiling.store(true, Ordering::Relaxed);
        let cubin = link(file, &ptx, arch).map_err(failed)?;
        // A cache that cannot be written is not an error: the next start compiles again.
        if let Some(path) = path
            && let Err(e) = keep(&path, &cubin)
        {
            tracing::debug!("{}: {e}", path.display());
        }
        Ok((file, cubin))
    };
    let (files, workers) = (images.files().count(), std::thread::available_parallelism().map_or(1, |n| n.get()));
    let todo = Mutex::new(images.files());
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
    // After an error there is no receiver, and the other threads end.
    let work = |sender: Sender<_>| iter::from_fn(next).all(|file| sender.send(of_file(file)).is_ok());
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        vec![sender; workers.min(files)].into_iter().for_each(|sender| drop(scope.spawn(|| work(sender))));
        let (mut done, mut line) = (Vec::new(), Instant::now() + FIRST_LINE);
        while done.len() < files {
            match receiver.recv_timeout(line.saturating_duration_since(Instant::now())) {
                Ok(file) => done.push(file?),
                Err(Disconnected) => return Err(Error::Failed("a thread that compiles kernels ended early".into())),
                Err(Timeout) => {
                    line = Instant::now() + LINE_EVERY;
                    if is_compiling.load(Ordering::Relaxed) {
                        let left = files - done.len();
                        tracing::info!("the driver compiles the kernels for this GPU; modules left: {left}");
                    }
                }
            }
        }
        done.sort();
        Ok(done)
    })
}

/// Returns the name of a cached file. It differs if anything that the machine code depends on differs: the file, the
/// compute capability, the driver or the PTX.
pub fn name(file: &str, gpu: &Properties, ptx: &str) -> String {
    let (major, minor) = gpu.compute_capability;
    let mut hash = blake3::Hasher::new();
    for part in [ptx, &gpu.driver] {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    format!("{file}.sm_{major}{minor}.{}.cubin", &hash.finalize().to_hex()[..32])
}

/// Returns the machine code cached at `path` if its hash matches. The check matters because the driver reads past the
/// end of a truncated cubin.
pub fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut cubin = files::read(path).ok()?;
    let hash = cubin.split_off(cubin.len().checked_sub(blake3::OUT_LEN)?);
    (blake3::hash(&cubin).as_bytes()[..] == hash).then_some(cubin)
}

/// Writes `cubin` and its hash atomically: another process that starts at the same time reads either all of it or
/// nothing.
pub fn keep(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(cubin)?;
    file.write_all(blake3::hash(cubin).as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// The options of a call that compiles or loads: the driver's two logs, and the instruction set to compile for.
pub struct JitOptions {
    /// The log of remarks, which ends with a zero byte.
    pub info: Vec<u8>,
    /// The log of errors, which ends with a zero byte.
    pub error: Vec<u8>,
    keys: Vec<Jit>,
    values: Vec<*mut c_void>,
}

impl Default for JitOptions {
    /// Returns the options that enable the logs. The driver compiles for the GPU of the current context.
    fn default() -> JitOptions {
        let (mut info, mut error) = (vec![0_u8; LOG], vec![0_u8; LOG]);
        // The driver takes sizes and flags as integers stored in the pointer values themselves.
        let number = ptr::without_provenance_mut::<c_void>;
        let values = vec![info.as_mut_ptr().cast(), number(LOG), error.as_mut_ptr().cast(), number(LOG), number(1)];
        let keys = vec![
            Jit::CU_JIT_INFO_LOG_BUFFER,
            Jit::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            Jit::CU_JIT_ERROR_LOG_BUFFER,
            Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            Jit::CU_JIT_LOG_VERBOSE,
        ];
        JitOptions { info, error, keys, values }
    }
}

impl JitOptions {
    /// Adds the instruction set to compile for, and line tables if `ptx` has line numbers. A context may know its GPU as
    /// 9.0 only, which lacks the instructions of [`Arch::Sm90a`].
    fn compile_for(mut self, arch: Arch, ptx: &str) -> JitOptions {
        if arch == Arch::Sm90a {
            self.keys.push(Jit::CU_JIT_TARGET);
            self.values.push(ptr::without_provenance_mut(sys::CUjit_target::CU_TARGET_COMPUTE_90A as usize));
        }
        if ptx.contains("\t.loc\t") {
            self.keys.push(Jit::CU_JIT_GENERATE_LINE_INFO);
            self.values.push(ptr::without_provenance_mut(1));
        }
        self
    }

    /// Returns the driver's output, errors before remarks.
    pub fn text(&self) -> String {
        let one = |log: &[u8]| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            String::from_utf8_lossy(&log[..end]).trim().to_owned()
        };
        [one(&self.error), one(&self.info)].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn after(&self, call: &str, code: sys::CUresult) -> std::result::Result<(), String> {
        code.result().map_err(|e| {
            let log = self.text();
            format!("{call}: {}{}{log}", describe(e), if log.is_empty() { "" } else { "\n" })
        })
    }
}

/// Loads the machine code of kernels/FILE.cu into the current context.
pub fn load(file: &str, cubin: &[u8]) -> Result<sys::CUmodule> {
    load_image(cubin).map_err(|why| Error::Failed(format!("kernels/{file}.cu: {why}")))
}

fn load_image(image: &[u8]) -> std::result::Result<sys::CUmodule, String> {
    let mut jit = JitOptions::default();
    let mut module = ptr::null_mut();
    // SAFETY: `image` is a complete ELF file (embedded, from the driver or checked by its hash), and the driver reads
    // its length from the header. Keys, values and the buffers that they point to live in `jit` until the call
    // returns.
    let code = unsafe {
        let (keys, values) = (jit.keys.as_mut_ptr(), jit.values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), jit.keys.len() as u32, keys, values)
    };
    jit.after("cuModuleLoadDataEx", code)?;
    Ok(module)
}

/// Compiles PTX for `arch` and returns the machine code. (cuModuleLoadDataEx would compile it, too, but does not return
/// the machine code, so it could not be cached.)
fn link(file: &str, ptx: &str, arch: Arch) -> std::result::Result<Vec<u8>, String> {
    let mut jit = JitOptions::default().compile_for(arch, ptx);
    let text = CString::new(ptx).map_err(|_| "the PTX contains a zero byte".to_owned())?;
    let name = CString::new(file).map_err(|_| "the file name contains a zero byte".to_owned())?;
    let mut state = ptr::null_mut();
    // SAFETY: keys, values and their buffers live in `jit`, which outlives the link state.
    let code = unsafe {
        let (keys, values) = (jit.keys.as_mut_ptr(), jit.values.as_mut_ptr());
        sys::cuLinkCreate_v2(jit.keys.len() as u32, keys, values, &mut state)
    };
    jit.after("cuLinkCreate", code)?;
    let (mut cubin, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: `state` is live. The driver copies the PTX; the size includes the terminating zero.
    let added = unsafe {
        let (data, size) = (text.as_ptr().cast_mut().cast::<c_void>(), text.as_bytes_with_nul().len());
        let name: *const c_char = name.as_ptr();
        let none = (ptr::null_mut(), ptr::null_mut());
        sys::cuLinkAddData_v2(state, sys::CUjitInputType::CU_JIT_INPUT_PTX, data, size, name, 0, none.0, none.1)
    };
    let done = jit.after("compiling PTX", added).and_then(|()| {
        // SAFETY: `state` is live; the cubin belongs to it and is copied before `state` is destroyed.
        jit.after("compiling PTX", unsafe { sys::cuLinkComplete(state, &mut cubin, &mut bytes) })
    });
    // SAFETY: on success the driver returned `bytes` bytes at `cubin`.
    let image = done.map(|()| unsafe { std::slice::from_raw_parts(cubin.cast::<u8>(), bytes) }.to_vec());
    // SAFETY: destroyed once, after the last use.
    let _ = unsafe { sys::cuLinkDestroy(state) };
    image
}

/// Returns the entry point `name` of `module`.
pub(super) fn function(module: sys::CUmodule, file: &str, name: &str) -> Result<sys::CUfunction> {
    let failed = |why: String| Error::Failed(format!("kernels/{file}.cu: {name}: {why}"));
    let text = CString::new(name).map_err(|_| failed("the name contains a zero byte".into()))?;
    // SAFETY: `module` is loaded and stays loaded.
    unsafe { result::module::get_function(module, text) }.map_err(|e| failed(describe(e)))
}
