//! The kernels that are embedded in this program: sources for the emulator, PTX and cubins for a GPU, and a table of
//! properties of each kernel.
//!
//! PTX for sm_80 is always embedded, compressed. PTX for sm_90a is embedded only for files whose sources produce
//! different code for it. Cubins of each file for sm_80 and sm_90a are embedded only if the build found `ptxas`.
//! `MANIFEST` (written by `tools/build-ptx`) records the hash of the sources and the resources of each kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use super::driver::Properties;
use super::perf_model::KernelCosts;
use omr_base::error::{Error, Result};

/// Kernel files and the results of compiling them.
#[derive(Clone, Copy)]
pub struct Images {
    /// Source files as (path below `kernels/`, contents), sorted by path.
    pub sources: &'static [(&'static str, &'static str)],
    /// PTX as (`file.target`, text compressed by gzip), sorted by name.
    pub ptx: &'static [(&'static str, &'static [u8])],
    /// Machine code as (`file.target`, cubin compressed by gzip), sorted by name. Empty if the build found no `ptxas`.
    pub cubins: &'static [(&'static str, &'static [u8])],
    /// Content of the committed file `MANIFEST`: the table of kernels.
    pub manifest: &'static str,
}

/// Kernels of this program.
pub static OWN: Images = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Every set of kernel images that the program loads.
pub static PROGRAM: [&Images; 1] = [&OWN];

/// An instruction set that the kernels are built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Arch {
    /// Compute capability 8.0 and every later one.
    Sm80,
    /// Compute capability 9.0 only (wgmma, TMA, clusters).
    Sm90a,
}

impl Arch {
    /// Both instruction sets, the portable one first.
    pub const ALL: [Arch; 2] = [Arch::Sm80, Arch::Sm90a];

    /// Returns the compiler's name for the instruction set.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// Returns the compute capability of the GPUs that run a cubin.
    pub fn compute_capability(self) -> (u32, u32) {
        match self {
            Arch::Sm80 => (8, 0),
            Arch::Sm90a => (9, 0),
        }
    }
}

impl Properties {
    /// Returns the kernel images that the device runs, or `None` below compute capability 8.0.
    pub fn arch(&self) -> Option<Arch> {
        match self.compute_capability {
            (9, 0) => Some(Arch::Sm90a),
            (8.., _) => Some(Arch::Sm80),
            _ => None,
        }
    }
}

/// Resources of one kernel for one target, as reported by `ptxas`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Built {
    /// Name of the source file: `rms_norm` for `kernels/rms_norm.cu`.
    pub file: &'static str,
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of static shared memory. This is zero, because kernels use dynamic shared memory.
    pub smem: u32,
    /// Threads per CTA.
    pub threads: u32,
    /// Bytes of arguments.
    pub args: u32,
}

impl Images {
    /// Returns the names of the kernel files (`rms_norm` for `kernels/rms_norm.cu`), sorted.
    pub fn files(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.sources.iter().filter_map(|(path, _)| path.strip_suffix(".cu").filter(|name| !name.contains('/')))
    }

    /// Reads images that `tools/build-ptx --lineinfo` wrote to `dir`. They stay in memory until the program ends, as
    /// embedded images do. Errors if a file is missing, is not PTX, or was not built from the sources of this program.
    pub fn read(dir: &Path) -> Result<&'static Images> {
        let fault = |what: &str| {
            let expected = "what `tools/build-ptx --lineinfo` writes for the sources of this program";
            Error::input("--kernel-images", format!("{}: {what}", dir.display()), expected)
        };
        let named = |name: &str, e: std::io::Error| fault(&format!("{name}: {e}"));
        let manifest = fs::read_to_string(dir.join("MANIFEST")).map_err(|e| named("MANIFEST", e))?;
        // The folder has the candidates of every build; this program has them only with the feature.
        let is_part = |line: &&str| cfg!(feature = "candidates") || !line.starts_with("candidates_");
        let manifest: String = manifest.split_inclusive('\n').filter(is_part).collect();
        let mut ptx: Vec<(&'static str, &'static [u8])> = Vec::new();
        for (file, arch) in OWN.files().flat_map(|file| Arch::ALL.map(|arch| (file, arch))) {
            let name = format!("{file}.{}", arch.name());
            let path = format!("{name}.ptx.gz");
            let row = |arch: Arch| rows(&manifest).find(|row| row.file == file && row.target == arch.name());
            let hash = |arch| row(arch).and_then(|row| row.hash("ptx"));
            match fs::read(dir.join(&path)) {
                Err(e) if arch == Arch::Sm90a && e.kind() == ErrorKind::NotFound && hash(arch) == hash(Arch::Sm80) => {}
                Err(e) => return Err(named(&path, e)),
                Ok(packed) if !unpacked(&packed).is_some_and(|text| text.windows(8).any(|w| w == b".version")) => {
                    return Err(fault(&format!("{path} is not PTX packed by gzip")));
                }
                Ok(packed) => ptx.push((name.leak(), packed.leak())),
            }
        }
        let images = Images { sources: OWN.sources, ptx: ptx.leak(), cubins: &[], manifest: manifest.leak() };
        images.stale().first().map_or(Ok(()), |stale| Err(fault(stale)))?;
        Ok(Box::leak(Box::new(images)))
    }

    /// Returns the PTX of a kernel file for `arch`. If the file has no PTX for `arch`, returns its PTX for sm_80, which
    /// every supported GPU can run.
    pub fn ptx(&self, file: &str, arch: Arch) -> Option<String> {
        let text = |arch: Arch| String::from_utf8(image(self.ptx, file, arch)?).ok();
        text(arch).or_else(|| text(Arch::Sm80))
    }

    /// Returns the text that a driver gets to compile: that of [`Images::ptx`] with version 8.0 of the PTX ISA, which
    /// drivers know from CUDA 12.0 on, and without the hint `used_bytes_mask` of version 8.3. The kernels use nothing
    /// else that is newer than 8.0: `tools/build-ptx` assembles this text with older releases of ptxas.
    pub fn ptx_for_driver(&self, file: &str, arch: Arch) -> Option<String> {
        let text = self.ptx(file, arch)?;
        let lines =
            text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with(".pragma \"used_bytes_mask "));
        Some(lines.map(|line| if line.starts_with(".version ") { ".version 8.0\n" } else { line }).collect())
    }

    /// Returns the cubin of a kernel file for `arch`, or `None` if the build made none.
    pub fn cubin(&self, file: &str, arch: Arch) -> Option<Vec<u8>> {
        image(self.cubins, file, arch)
    }

    /// Returns the resources of `kernel` for `arch` from the table.
    pub fn kernel(&self, kernel: &str, arch: Arch) -> Option<Built> {
        self.row(kernel, arch).and_then(Row::kernel)
    }

    /// Returns the performance data of `kernel` on a Hopper GPU from the table.
    pub fn kernel_costs(&self, kernel: &str) -> Option<KernelCosts> {
        self.row(kernel, Arch::Sm90a).and_then(Row::kernel_costs)
    }

    /// Returns true if the compiler of a driver for CUDA version `cuda` (12040 for 12.4) serialises the wgmma of `kernel`.
    /// The table lists the releases of ptxas that do. Releases that are older than the newest of them, and were not
    /// tried, count as well.
    pub fn is_serialized(&self, kernel: &str, cuda: u32) -> bool {
        let number = |release: &str| {
            let (major, minor) = release.split_once('.')?;
            Some(major.parse::<u32>().ok()? * 1000 + minor.parse::<u32>().ok()? * 10)
        };
        let newest = |row: Row| row.field("serialized")?.split(',').filter_map(number).max();
        self.row(kernel, Arch::Sm90a).and_then(newest).is_some_and(|newest| cuda <= newest)
    }

    fn row(&self, kernel: &str, arch: Arch) -> Option<Row<'static>> {
        rows(self.manifest).find(|row| row.kernel == kernel && row.target == arch.name())
    }

    /// Returns the kernels of `file`, sorted by name.
    pub fn kernels(&self, file: &str) -> Vec<&'static str> {
        let of_file = rows(self.manifest).filter(|row| row.file == file);
        of_file.map(|row| row.kernel).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Lists what is out of date in these images, one line each. The list is empty if the PTX of every kernel file was
    /// built from the current sources for both targets. A file without PTX for sm_90a uses its PTX for sm_80. Headers
    /// are always those of `OWN`.
    pub fn stale(&self) -> Vec<String> {
        let is_file = |path: &str| path.ends_with(".cu");
        let own = self.sources.iter().filter(|(path, _)| is_file(path));
        let sources: Vec<_> = own.chain(OWN.sources.iter().filter(|(path, _)| !is_file(path))).copied().collect();
        let text = |(name, packed): &(&'static str, &[u8])| {
            let bytes = unpacked(packed).unwrap_or_default();
            (*name, String::from_utf8_lossy(&bytes).into_owned())
        };
        let ptx: Vec<_> = self.ptx.iter().map(text).collect();
        let ptx: Vec<_> = ptx.iter().map(|(name, text)| (*name, text.as_str())).collect();
        stale_among(&sources, &ptx, self.manifest)
    }
}

/// Prints only the names of the files, because the contents are long.
impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

/// Returns the image of a kernel file for `arch` among `images`.
fn image(images: &[(&str, &[u8])], file: &str, arch: Arch) -> Option<Vec<u8>> {
    let name = format!("{file}.{}", arch.name());
    images.iter().find(|(n, _)| *n == name).and_then(|(_, packed)| unpacked(packed))
}

/// Decompresses gzip data. Returns `None` if the data is damaged.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Implements [`Images::stale`] for given sources (path below `kernels/`, contents), PTX (`file.target`, text) and
/// table.
pub fn stale_among(sources: &[(&str, &str)], ptx: &[(&str, &str)], manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = BTreeSet::new();
    let hash_of = |name: &str| ptx.iter().find(|(n, _)| *n == name).map(|(_, text)| fnv(text.as_bytes(), FNV_OFFSET));
    for (path, _) in sources {
        let Some(file) = path.strip_suffix(".cu").filter(|name| !name.contains('/')) else { continue };
        let source = source_hash(sources, path);
        let portable = hash_of(&format!("{file}.{}", Arch::Sm80.name()));
        for arch in Arch::ALL {
            let name = format!("{file}.{}", arch.name());
            let mut listed = rows(manifest).filter(|r| r.file == file && r.target == arch.name()).peekable();
            match hash_of(&name).or(portable) {
                None => wrong.push(format!("the PTX of {name} is missing")),
                Some(_) if listed.peek().is_none() => wrong.push(format!("MANIFEST does not name {name}")),
                Some(built) => {
                    if listed.any(|r| r.hash("source") != Some(source) || r.hash("ptx") != Some(built)) {
                        wrong.push(format!("the PTX of {name} was not built from these sources"));
                    }
                }
            }
            expected.insert(name);
        }
    }
    let names = ptx.iter().map(|(name, _)| name.to_string());
    let listed = rows(manifest).map(|row| format!("{}.{}", row.file, row.target));
    let strays: BTreeSet<String> = names.chain(listed).filter(|name| !expected.contains(name)).collect();
    wrong.extend(strays.into_iter().map(|name| format!("{name} has no kernel file")));
    wrong
}

/// One line of the table: `rms_norm.cu rms_norm sm_80 source=HASH ptx=HASH registers=40 ...`.
struct Row<'a> {
    file: &'a str,
    kernel: &'a str,
    target: &'a str,
    fields: &'a str,
}

impl<'a> Row<'a> {
    fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.split(' ').find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
    }

    fn hash(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }
}

impl Row<'static> {
    fn kernel(self) -> Option<Built> {
        let number = |name: &str| self.field(name)?.parse().ok();
        let [registers, smem, threads, args] = ["registers", "smem", "threads", "args"].map(number);
        Some(Built { file: self.file, registers: registers?, smem: smem?, threads: threads?, args: args? })
    }

    fn kernel_costs(self) -> Option<KernelCosts> {
        // Only kernels that multiply matrices have fields other than the registers.
        let number = |name: &str| self.field(name).and_then(|n| n.parse().ok()).unwrap_or(0.0);
        let tile = self.field("tile").map(|tile| tile.split('x').filter_map(|n| n.parse().ok()).collect::<Vec<_>>());
        Some(KernelCosts {
            wgmma: self.field("wgmma") == Some("1"),
            step: number("loop"),
            flops: number("flops"),
            loads: number("ldsm"),
            operands: number("operands"),
            exponentials: number("mufu"),
            registers: self.field("registers")?.parse().ok()?,
            tile: tile.and_then(|tile| tile.try_into().ok()),
            epilogue: number("epilogue"),
            resumed: number("resumed"),
        })
    }
}

fn rows(manifest: &str) -> impl Iterator<Item = Row<'_>> {
    manifest.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.splitn(4, ' ');
        let file = words.next()?.strip_suffix(".cu")?;
        Some(Row { file, kernel: words.next()?, target: words.next()?, fields: words.next()? })
    })
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Computes the 64-bit FNV-1a hash. It detects accidental changes and offers no protection against an attacker.
fn fnv(bytes: &[u8], start: u64) -> u64 {
    bytes.iter().fold(start, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Computes the hash that `tools/build-ptx` writes. It covers the file and every header that it includes, directly or
/// indirectly, sorted by name. It does not cover the emulator's headers, because they are not compiled for a GPU.
fn source_hash(sources: &[(&str, &str)], path: &str) -> u64 {
    let text_of = |path: &str| {
        let known = sources.iter().find(|(p, _)| *p == path && !path.starts_with("emu/"));
        known.map(|(_, text)| *text)
    };
    with_included([path.to_owned()], "", text_of).iter().fold(FNV_OFFSET, |hash, (path, text)| {
        [path.as_bytes(), b"\0", text.as_bytes(), b"\0"].iter().fold(hash, |hash, part| fnv(part, hash))
    })
}

/// Returns the sources `paths` and every source that they include, directly or indirectly, by path. The compiler looks
/// beside the including file first, then in the folder `root`. A file for which `text_of` returns `None` is left out.
pub(super) fn with_included<'a>(
    paths: impl IntoIterator<Item = String>,
    root: &str,
    text_of: impl Fn(&str) -> Option<&'a str>,
) -> BTreeMap<String, &'a str> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<String> = paths.into_iter().collect();
    while let Some(path) = todo.pop() {
        let Some(text) = text_of(&path).filter(|_| !found.contains_key(&path)) else { continue };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for name in text.lines().filter_map(included) {
            todo.extend([joined(folder, name), joined(root, name)].into_iter().find(|p| text_of(p).is_some()));
        }
        found.insert(path, text);
    }
    found
}

/// Returns the file that an `#include "..."` line names.
fn included(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
    rest.trim_start().strip_prefix('"')?.split_once('"').map(|(name, _)| name)
}

fn joined(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
