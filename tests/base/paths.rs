//! Folders and files of the repository, and folders of its build.

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Returns the folder `tmp` of the build folder, which tests may fill. It is made if it does not exist.
pub fn tmp() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // A test is at `target/PROFILE/deps/NAME-HASH`, or, if it was packed, in any folder.
    let deps = program.ancestors().find(|folder| folder.ends_with("deps"));
    let target = deps.and_then(|deps| deps.ancestors().nth(2)).map_or_else(std::env::temp_dir, Path::to_owned);
    let folder = target.join("tmp");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Returns the Rust files in `dir` and its subfolders.
pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out
}
