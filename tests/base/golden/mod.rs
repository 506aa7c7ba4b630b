//! Golden tests: compare this program with reference data that other programs computed. Every folder and case is run,
//! whatever its sizes. If there is no case, the test fails.

pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Returns the goldens' folder: `OMR_GOLDENS` if set, otherwise a folder with the project's own.
pub fn dir() -> PathBuf {
    static OWN: LazyLock<PathBuf> = LazyLock::new(own);
    std::env::var_os("OMR_GOLDENS").map_or_else(|| OWN.clone(), PathBuf::from)
}

/// Returns a folder with the unpacked archives of `tests/goldens` and links to its other entries. The folder is named
/// after their names and contents, so it is made once. Goldens that only these tests read, and none on a GPU, are kept
/// packed, because all files of the repository are sent to a machine with a GPU. To change them: `tar -xzf`, then
/// `tar --sort=name --owner=0 --group=0 --mtime=@0 -cf - NAME | gzip -9n >NAME.tgz`.
fn own() -> PathBuf {
    let kept = entries(&crate::root().join("tests/goldens"), "", "");
    let mut hash = blake3::Hasher::new();
    for path in &kept {
        hash.update(path.to_string_lossy().as_bytes()).update(&std::fs::read(path).unwrap_or_default());
    }
    let folder = crate::tmp();
    let dir = folder.join(format!("goldens-{}", &hash.finalize().to_hex()[..16]));
    if !dir.exists() {
        let fresh = tempfile::tempdir_in(folder).unwrap();
        for path in kept {
            if path.extension().is_some_and(|end| end == "tgz") {
                let text = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
                tar::Archive::new(text).unpack(&fresh).unwrap();
            } else {
                std::os::unix::fs::symlink(&path, fresh.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        // Another process may have made the folder in the meantime.
        let renamed = std::fs::rename(fresh.path(), &dir);
        assert!(renamed.is_ok() || dir.exists(), "{}: {renamed:?}", dir.display());
    }
    dir
}

/// Returns the entries of `dir` whose file name begins with `prefix` and ends with `suffix`, sorted by name.
pub fn entries(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir).map(|all| all.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
    found.retain(|p| name(p).starts_with(prefix) && name(p).ends_with(suffix));
    found.sort();
    found
}

/// Returns the value of a JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the value of a JSON file that is compressed with gzip.
pub fn json_gz(path: &Path) -> serde_json::Value {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = std::io::BufReader::new(flate2::read::GzDecoder::new(file));
    serde_json::from_reader(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Prints the number of cases of a kind. Panics if it is zero.
pub fn report(kind: &str, cases: usize) {
    assert!(cases > 0, "no golden case of kind {kind} under {}", dir().display());
    println!("golden {kind} {cases}");
}
