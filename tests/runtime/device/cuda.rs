//! Tests the names of drivers, the cache of machine code and the logs of the driver.

use omr_runtime::device::cuda::find::named;
use omr_runtime::device::cuda::module::{JitOptions, LOG, keep, kept, name};
use omr_runtime::device::driver::Properties;
use omr_runtime::device::limits::HOPPER;

#[test]
fn the_driver_is_named_as_people_know_it() {
    let module = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n\
        GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
    assert_eq!(named(13_000, module), "580.65.06 (CUDA 13.0)");
    assert_eq!(named(12_080, ""), "CUDA 12.8");
    assert_eq!(named(12_080, "GCC version:  gcc version 12.2.0\n"), "CUDA 12.8");
}

fn gpu(compute_capability: (u32, u32), driver: &str) -> Properties {
    Properties { compute_capability, driver: driver.to_owned(), ..HOPPER.properties("", 0, 0) }
}

#[test]
fn a_kept_file_is_named_by_all_it_depends_on() {
    let names = [
        name("gemm", &gpu((9, 0), "580.65"), "ptx"),
        name("rope", &gpu((9, 0), "580.65"), "ptx"),
        name("gemm", &gpu((8, 9), "580.65"), "ptx"),
        name("gemm", &gpu((9, 0), "580.82"), "ptx"),
        name("gemm", &gpu((9, 0), "580.65"), "ptx "),
        name("gemm", &gpu((9, 0), "80.65"), "ptx5"),
    ];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    assert_eq!(names[0], name("gemm", &gpu((9, 0), "580.65"), "ptx"));
}

#[test]
fn what_is_kept_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/one.cubin");
    keep(&path, b"first").unwrap();
    keep(&path, b"second").unwrap();
    assert_eq!(kept(&path).unwrap(), b"second");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file is left");
    let mut bytes = std::fs::read(&path).unwrap();
    for damage in [0, bytes.len() - 1] {
        bytes[damage] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(kept(&path), None);
        bytes[damage] ^= 1;
    }
    for length in [0, 10, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(kept(&path), None);
    }
    assert_eq!(kept(&folder.path().join("absent")), None);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(keep(&file.join("one.cubin"), b"x").is_err());
}

#[test]
fn logs_are_cut_at_their_zero_and_errors_come_first() {
    let mut jit = JitOptions::default();
    assert_eq!(jit.text(), "");
    jit.info[..7].copy_from_slice(b"remark\n");
    jit.error[..5].copy_from_slice(b"error");
    assert_eq!(jit.text(), "error\nremark");
    jit.error.fill(b'x');
    assert_eq!(jit.text().len(), LOG + "\nremark".len());
}
