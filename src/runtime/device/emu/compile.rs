//! Compiles kernel sources to shared objects of the host when they are first needed, and caches them by content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rayon::prelude::*;

use crate::device::images::with_included;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Compiler flags and their reasons:
///
/// - `-ffp-contract=off`: contraction would fuse operations that the kernels round separately.
/// - `-fno-strict-aliasing`: wrappers read bf16 through wider types.
/// - `-march=x86-64-v3`: the highest level of x86-64 whose floating-point results are equal on every machine that has
///   it.
/// - `-fsanitize=signed-integer-overflow`: an integer overflow is a fault.
const FLAGS: &str = "-std=c++20 -O2 -march=x86-64-v3 -ffp-contract=off -fno-strict-aliasing \
                     -fsanitize=signed-integer-overflow -fsanitize-undefined-trap-on-error -fPIC -shared";

/// Time after which a compiled object is removed, counted from its compilation.
const KEPT: Duration = Duration::from_secs(60 * 24 * 3600);

/// Required compiler, for error messages.
const WANTED: &str = "g++ 11 or clang++ 13 or newer (Debian, Ubuntu: apt-get install g++), or CXX set to one";

/// A C++ compiler of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler {
    command: PathBuf,
    /// Name and version.
    pub version: String,
}

impl Compiler {
    /// Returns the compiler that `CXX` names, else the first of g++, clang++ and c++ that runs. Errors if there is
    /// none, or if this processor cannot run the code that it would generate.
    pub fn find() -> Result<Compiler> {
        require_processor()?;
        match std::env::var_os("CXX") {
            Some(command) if !command.is_empty() => Compiler::at(command),
            _ => {
                ["g++", "clang++", "c++"].into_iter().find_map(|command| Compiler::at(command).ok()).ok_or_else(|| {
                    Error::input("the emulator's compiler", "neither g++ nor clang++ nor c++ on the PATH", WANTED)
                })
            }
        }
    }

    /// Returns the compiler with this command. Errors if it does not accept `--version`.
    pub fn at(command: impl Into<PathBuf>) -> Result<Compiler> {
        let command = command.into();
        let missing_error = |found: String| Error::input("the emulator's compiler", found, WANTED);
        let name = command.display();
        let output =
            Command::new(&command).arg("--version").output().map_err(|e| missing_error(format!("{name}: {e}")))?;
        if !output.status.success() {
            return Err(missing_error(format!("{name} --version: {}", output.status)));
        }
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        Ok(Compiler { command, version })
    }

    /// Compiles sources inside `folder`. Paths in compiler messages and call sites are relative to `folder`.
    fn compile(&self, folder: &Path, units: &[String], object: &Path) -> Result<()> {
        let mut command = Command::new(&self.command);
        command.current_dir(folder).args(FLAGS.split(' ')).args(["-I", "kernels", "-x", "c++"]);
        command.args(units).arg("-o").arg(object);
        let output = command.output().map_err(Error::io(&self.command))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let with = format!("{} ({})", self.command.display(), self.version);
        let units = units.join(", ");
        Err(Error::Failed(format!("{units} does not compile for the emulator with {with}:\n{text}")))
    }
}

fn require_processor() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    let has_instructions =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2");
    #[cfg(not(target_arch = "x86_64"))]
    let has_instructions = false;
    let found = format!("{} without AVX2, FMA or BMI2", std::env::consts::ARCH);
    if has_instructions { Ok(()) } else { Err(Error::input("the emulator's processor", found, "x86-64-v3")) }
}

/// Sources by path, for example `kernels/rms_norm.cu`.
pub type Sources = BTreeMap<String, String>;

/// Cache of compiled objects on disk. An object's name contains its source file and a hash of all inputs.
pub struct Cache {
    folder: PathBuf,
    compiler: Compiler,
    /// Sources by path.
    pub sources: Sources,
}

impl Cache {
    /// Returns the user's cache folder (`XDG_CACHE_HOME`, else `.cache` in `HOME`). Errors if neither variable is set.
    pub fn folder() -> Result<PathBuf> {
        let missing_error =
            || Error::input("the emulator's cache", "neither XDG_CACHE_HOME nor HOME set", "one of them");
        files::user_cache("emu").ok_or_else(missing_error)
    }

    /// Creates a cache in `folder` for `sources`, compiled by `compiler`.
    pub fn new(folder: impl Into<PathBuf>, compiler: Compiler, sources: Sources) -> Cache {
        Cache { folder: folder.into(), compiler, sources }
    }

    /// Returns the sources in `folder` (for example `kernels/emu/`) that are compiled, without headers.
    pub fn units(&self, folder: &str) -> Vec<String> {
        let units = self.sources.keys().filter(|path| path.starts_with(folder) && path.ends_with(".cpp"));
        units.cloned().collect()
    }

    /// Returns the shared object of these sources, and compiles it if it does not exist. The object depends only on
    /// these sources and the files that they include, so an edit causes only the affected objects to be recompiled.
    /// Errors name the sources and contain all compiler output.
    ///
    /// Several processes may compile the same object at once. All results are equivalent, and a rename makes each of
    /// them appear atomically.
    pub fn object(&self, units: &[String]) -> Result<PathBuf> {
        let object = self.path(units)?;
        if object.exists() {
            return Ok(object);
        }
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let work = tempfile::Builder::new().prefix("compile-").tempdir_in(&self.folder);
        let work = work.map_err(Error::io(&self.folder))?;
        for (path, text) in self.closure(units)? {
            let file = work.path().join(path);
            let parent = file.parent().unwrap_or(work.path());
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
            fs::write(&file, text).map_err(Error::io(&file))?;
        }
        let made = work.path().join("object.so");
        self.compiler.compile(work.path(), units, &made)?;
        // Without the sync, a power failure could leave an empty file under the final name.
        fs::File::open(&made).and_then(|file| file.sync_all()).map_err(Error::io(&made))?;
        fs::rename(&made, &object).map_err(Error::io(&object))?;
        self.prune();
        Ok(object)
    }

    /// Removes old objects. Their sources have probably changed since they were compiled. An object that is needed
    /// again is compiled again.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let age = path.metadata().and_then(|m| m.modified()).ok().and_then(|made| made.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                // Errors are ignored: another process may already have removed the object, and a leftover object does
                // no harm.
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            }
        }
    }

    /// Compiles every kernel file, with one thread per processor.
    pub fn fill(&self) -> Result<()> {
        let files: Vec<&String> = self.sources.keys().filter(|p| p.ends_with(".cu")).collect();
        files.into_par_iter().try_for_each(|file| self.object(std::slice::from_ref(file)).map(drop))
    }

    /// Returns the path of the object of these sources, which may not exist yet.
    pub fn path(&self, units: &[String]) -> Result<PathBuf> {
        let key = self.key(&self.closure(units)?);
        let name = units.first().map_or("none", |unit| stem(unit));
        Ok(self.folder.join(format!("{name}-{key}.so")))
    }

    /// Returns these sources and every file that they include, by path.
    fn closure(&self, units: &[String]) -> Result<BTreeMap<String, &str>> {
        if let Some(path) = units.iter().find(|path| !self.sources.contains_key(*path)) {
            let known: Vec<&str> = self.sources.keys().map(String::as_str).filter(|p| p.ends_with(".cu")).collect();
            return Err(Error::Failed(format!("no kernel source {path}; the sources are {}", known.join(", "))));
        }
        // If no source has an included name, the include is in a branch for another compiler, or the compiler reports
        // the error.
        Ok(with_included(units.to_vec(), "kernels", |path| self.sources.get(path).map(String::as_str)))
    }

    fn key(&self, used: &BTreeMap<String, &str>) -> String {
        let mut hash = blake3::Hasher::new();
        let command = self.compiler.command.to_string_lossy();
        let compiler = [&*command, self.compiler.version.as_str()].into_iter().chain(FLAGS.split(' '));
        for text in compiler.chain(used.iter().flat_map(|(path, text)| [path.as_str(), *text])) {
            hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hash.finalize().to_hex()[..16].to_owned()
    }
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}
