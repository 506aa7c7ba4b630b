//! Tests of `--kernel-images` with the library of `driver.c`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Output;

use flate2::Compression;
use flate2::write::GzEncoder;
use omr_runtime::device::images::{Arch, OWN};

use super::Machine;

fn packed(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

/// Returns the hash of PTX that `tools/build-ptx` writes to MANIFEST.
fn hash(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("ptx={:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Writes the images of this program to `dir`, as `tools/build-ptx --lineinfo` does, with a line number in one file.
fn write(dir: &Path) {
    for (name, bytes) in OWN.ptx {
        fs::write(dir.join(format!("{name}.ptx.gz")), bytes).unwrap();
    }
    let plain = OWN.ptx("rope", Arch::Sm80).unwrap();
    let lines = format!("{plain}\t.loc\t1 2 3\n");
    fs::write(dir.join("rope.sm_80.ptx.gz"), packed(&lines)).unwrap();
    fs::write(dir.join("MANIFEST"), OWN.manifest.replace(&hash(&plain), &hash(&lines))).unwrap();
}

fn bench(machine: &Machine, device: &str, dir: &Path) -> Output {
    let args = ["--device", device, "--kernel-images", dir.to_str().unwrap(), "bench", "rope", "--seconds", "0"];
    machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, &[("FAKE_LARGEST_COPY", "1048576")])
}

#[test]
fn kernels_with_line_numbers_are_compiled_with_line_tables() {
    let (machine, dir) = (Machine::new(), tempfile::tempdir().unwrap());
    write(dir.path());
    let output = bench(&machine, "cuda", dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = fs::read_to_string(machine.log_file()).unwrap();
    let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("line info 1"), count("link ")), (1, OWN.files().count()));
    assert!(count("launch rope_") > 0, "{log}");
}

#[test]
fn kernel_images_of_other_sources_are_refused() {
    let machine = Machine::new();
    let (rope, hopper) = ("rope.sm_80.ptx.gz", "gemm_sm90a.sm_90a.ptx.gz");
    let others = OWN.manifest.replace("source=", "source=1");
    let faults: [(&str, Option<Vec<u8>>, &str); 7] = [
        ("MANIFEST", None, "MANIFEST: No such file"),
        (rope, None, "rope.sm_80.ptx.gz: No such file"),
        (hopper, None, "gemm_sm90a.sm_90a.ptx.gz: No such file"),
        (rope, Some(b"x".to_vec()), "rope.sm_80.ptx.gz is not PTX packed by gzip"),
        (rope, Some(packed("x")), "rope.sm_80.ptx.gz is not PTX packed by gzip"),
        (rope, Some(packed(".version 9.0")), "the PTX of rope.sm_80 was not built from these sources"),
        ("MANIFEST", Some(others.into_bytes()), "the PTX of adamw.sm_80 was not built from these sources"),
    ];
    for (file, contents, expected) in faults {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let file = dir.path().join(file);
        contents.map_or_else(|| fs::remove_file(&file), |bytes| fs::write(&file, bytes)).unwrap();
        let output = bench(&machine, "cuda", dir.path());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected) && text.contains("--kernel-images"), "{expected}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = bench(&machine, "cpu", dir.path());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("with --device cpu, expected a GPU"), "{text}");
}
