//! Decoding against Pillow, and files that must be refused. `make.py` writes both folders.

use std::path::{Path, PathBuf};

use omr::image::{Limits, Rgb, decode};

/// JPEG decoders differ in their inverse transforms and in how they enlarge the colour planes: 3 levels were
/// measured on these smooth pictures.
const LOSSY_LEVELS: u8 = 4;

fn files(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(path: &Path) -> omr::error::Result<Rgb> {
    decode(&std::fs::read(path).unwrap(), &Limits::default(), &path.display().to_string())
}

#[test]
fn decoding_is_pillows() {
    let mut wrong = Vec::new();
    for path in files("pillow").iter().filter(|p| !p.to_str().unwrap().ends_with(".rgb.png")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = read(&path.with_file_name(format!("{name}.rgb.png"))).unwrap();
        let found = match read(path) {
            Ok(found) => found,
            Err(e) => {
                wrong.push(e.to_string());
                continue;
            }
        };
        let lossy = name.ends_with(".jpg") || name.starts_with("lossy");
        let most = found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max();
        let same_size = (found.width, found.height) == (expected.width, expected.height);
        if !same_size || most > Some(if lossy { LOSSY_LEVELS } else { 0 }) {
            wrong.push(format!("{name}: same size {same_size}, largest difference {most:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_files_are_refused_by_name() {
    for path in files("broken") {
        let error = match read(&path) {
            Ok(image) => panic!("{}: read as {} x {}", path.display(), image.width, image.height),
            Err(error) => error,
        };
        let place = path.display().to_string();
        assert!(error.to_string().starts_with(&place), "{place}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_bomb_is_refused_from_its_header() {
    let peak_kib = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let path = files("broken").into_iter().find(|p| p.ends_with("huge.png")).unwrap();
    let before = peak_kib();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("60000 x 60000"), "{error}");
    // Other tests run beside this one; the picture itself would take 3.6 GB.
    assert!(peak_kib() - before < 1 << 20, "{} KiB", peak_kib() - before);
}
