//! Build script. It embeds the data of `src/runtime/device/images.rs` and `tests/runtime/kernels/cu`: the kernel sources
//! (the emulator compiles them at run time), the committed PTX with its MANIFEST and, if `ptxas` of CUDA 13.0 is
//! available, cubins of each file for sm_80 and sm_90a. PTX and cubins are compressed.
//!
//! No CUDA toolkit is required: without one, the driver compiles the PTX. The script searches for `ptxas` in
//! `CUDA_HOME`, in `PATH` and in `.cuda/` (`tools/cuda-toolchain`). `PTXAS=/path` selects one, and an empty `PTXAS`
//! selects none.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Required release of `ptxas`. It must be the release that wrote the PTX, because cubins of a newer one need a newer
/// driver.
const RELEASE: &str = "release 13.0,";

fn main() -> Result<()> {
    let package = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).ok_or("no Cargo.lock above")?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.join("src/runtime/build.rs").display());
    // The runtime contains the kernels of `kernels`, and its tests have kernels of their own.
    let (kernels, ptx) = match std::env::var("CARGO_PKG_NAME")?.as_str() {
        "omr-runtime-tests" => (package.join("kernels/cu"), package.join("kernels/cu/ptx")),
        _ => (root.join("kernels"), root.join("ptx")),
    };
    for path in [&kernels, &ptx] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    for name in ["PTXAS", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    replace(&out.join("images.rs"), images(&kernels, &ptx, ptxas(root).as_deref(), &out)?)?;
    Ok(())
}

/// Returns the `Images` of the kernel files in `kernels` as a Rust expression. With a `tool`, cubins are written to `out`.
fn images(kernels: &Path, compiled: &Path, tool: Option<&Path>, out: &Path) -> Result<String> {
    let (mut sources, mut ptx) = (BTreeMap::new(), BTreeMap::new());
    files(kernels, &mut |path| {
        let name = path.strip_prefix(kernels).unwrap_or(path).to_string_lossy().replace('\\', "/");
        if [".cu", ".cuh", ".h", ".cpp"].iter().any(|end| name.ends_with(end)) && is_part(&name) {
            sources.insert(name, path.to_owned());
        }
    })?;
    files(compiled, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.strip_suffix(".ptx.gz").filter(|name| is_part(name)) {
            ptx.insert(name.to_owned(), path.to_owned());
        }
    })?;
    let manifest = compiled.join("MANIFEST");
    let manifest = if manifest.exists() { fs::read_to_string(&manifest)? } else { String::new() };
    let manifest: String = manifest.split_inclusive('\n').filter(|line| is_part(line)).collect();

    // PTX for each sm_90a cubin: the file's own sm_90a PTX, else its sm_80 PTX.
    let mut code = ptx.clone();
    for (name, path) in &ptx {
        code.entry(name.replace(".sm_80", ".sm_90a")).or_insert_with(|| path.clone());
    }
    let cubins = match tool {
        Some(tool) => cubins(tool, &code.iter().collect::<Vec<_>>(), out)?,
        None => BTreeMap::new(),
    };

    let table = |entries: &BTreeMap<String, PathBuf>, include: &str| {
        entries.iter().map(|(name, path)| format!("    ({name:?}, {include}!({path:?})),\n")).collect::<String>()
    };
    Ok(format!(
        "Images {{\n  sources: &[\n{}  ],\n  ptx: &[\n{}  ],\n  cubins: &[\n{}  ],\n  manifest: {manifest:?},\n}}\n",
        table(&sources, "include_str"),
        table(&ptx, "include_bytes"),
        table(&cubins, "include_bytes"),
    ))
}

/// Returns true if a kernel file, or a line of MANIFEST that begins with its name, is a part of this program: candidates are
/// only with the feature `candidates`.
fn is_part(name: &str) -> bool {
    !name.starts_with("candidates_") || std::env::var_os("CARGO_FEATURE_CANDIDATES").is_some()
}

/// Writes a file and renames it into place. The build folder may be a hard-linked copy, and a shared file must not
/// change.
fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}

/// Calls `found` with every file under `folder`, except hidden ones. Does nothing if the folder does not exist.
fn files(folder: &Path, found: &mut impl FnMut(&Path)) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found(&path);
        }
    }
    Ok(())
}

/// Returns the assembler to use, or `None` if none of the right release was found.
fn ptxas(root: &Path) -> Option<PathBuf> {
    let named = std::env::var("PTXAS").ok();
    let candidates: Vec<PathBuf> = match &named {
        Some(path) if path.is_empty() => return None,
        Some(path) => vec![path.into()],
        None => {
            let home = std::env::var("CUDA_HOME").ok().map(|home| Path::new(&home).join("bin/ptxas"));
            let path = std::env::var_os("PATH").unwrap_or_default();
            let on_path = std::env::split_paths(&path).map(|dir| dir.join("ptxas"));
            home.into_iter().chain(on_path).chain([root.join(".cuda/nvidia/cu13/bin/ptxas")]).collect()
        }
    };
    let found = candidates.into_iter().filter(|path| path.is_file()).find(|path| {
        let version = Command::new(path).arg("--version").output();
        version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains(RELEASE))
    });
    match (&found, named) {
        (Some(path), _) => println!("cargo::rerun-if-changed={}", path.display()),
        (None, Some(path)) => println!("cargo::warning=PTXAS={path} is no ptxas of CUDA 13.0: no cubins are embedded"),
        (None, None) => {}
    }
    found
}

/// Assembles every PTX of `code` (`file.target`, path) that changed since the last build, on all processors. Returns
/// the compressed cubins.
fn cubins(tool: &Path, code: &[(&String, &PathBuf)], out: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let assemble = |(name, path): &(&String, &PathBuf)| -> std::result::Result<(String, PathBuf), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let packed = fs::read(path).map_err(|e| failed(&e))?;
        let (cubin, from) = (out.join(format!("{name}.cubin.gz")), out.join(format!("{name}.cubin.from")));
        if !cubin.exists() || fs::read(&from).map_or(true, |old| old != packed) {
            let (_, target) = name.split_once('.').ok_or("PTX without a target in its name")?;
            assembled(tool, target, &packed, &cubin).map_err(|e| failed(&e))?;
            replace(&from, &packed).map_err(|e| failed(&e))?;
        }
        Ok((name.to_string(), cubin))
    };
    let workers = thread::available_parallelism().map_or(1, |n| n.get());
    let share = code.len().div_ceil(workers).max(1);
    let done = thread::scope(|scope| {
        let handles: Vec<_> =
            code.chunks(share).map(|part| scope.spawn(|| part.iter().map(assemble).collect::<Vec<_>>())).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap_or_else(|_| vec![Err("ptxas".into())])).collect::<Vec<_>>()
    });
    Ok(done.into_iter().collect::<std::result::Result<_, _>>()?)
}

/// Assembles one compressed PTX for `target` through temporary files beside `cubin`, and writes the compressed result to
/// `cubin`.
fn assembled(tool: &Path, target: &str, packed: &[u8], cubin: &Path) -> Result<()> {
    let (text, code) = (cubin.with_extension("ptx"), cubin.with_extension("elf"));
    std::io::copy(&mut GzDecoder::new(packed), &mut fs::File::create(&text)?)?;
    let done = Command::new(tool).args(["-O3", "-arch", target]).arg(&text).arg("-o").arg(&code).output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into());
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&fs::read(&code)?)?;
    replace(cubin, &packer.finish()?)?;
    fs::remove_file(&text)?;
    Ok(fs::remove_file(&code)?)
}
