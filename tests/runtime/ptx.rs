//! Tests without a CUDA compiler that the committed PTX belongs to the kernel sources. (`tools/build-ptx --check`
//! builds it again with a compiler.)

use std::fs;

use omr_runtime::device::images::{self, Arch, Images};

use crate::kernels::IMAGES;

#[test]
fn fresh() {
    let mut kernels = 0;
    for images in IMAGES {
        let stale = images.stale();
        assert!(stale.is_empty(), "run tools/build-ptx and commit what it writes:\n{}", stale.join("\n"));
        kernels += images.files().map(|file| complete(images, file)).sum::<usize>();
    }
    println!("{kernels} kernels and targets");
}

/// Asserts that the PTX contains every kernel of `file` for each target, with the values that a launch is checked
/// against. Returns the number of kernels.
fn complete(images: &Images, file: &str) -> usize {
    let kernels = images.kernels(file);
    for arch in Arch::ALL {
        let text = images.ptx(file, arch).unwrap();
        for kernel in &kernels {
            let built = images.kernel(kernel, arch).unwrap();
            assert_eq!(built.file, file);
            assert!(built.registers > 0 && built.smem == 0 && built.threads > 0 && built.args > 0, "{kernel}");
            assert!(text.contains(&format!(".entry {kernel}(")), "{kernel} is not in its PTX");
        }
    }
    Arch::ALL.len() * kernels.len()
}

/// git stores the complete file for every change, so the files must stay small.
#[test]
fn compiled_kernels_take_little() {
    let bytes = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    let total: u64 = fs::read_dir(omr_base_tests::root().join("ptx")).unwrap().map(bytes).sum();
    assert!(total > 0 && total <= 2_800_000, "ptx/ holds {total} bytes");
}

#[test]
fn hopper_has_its_own_text_only_where_the_sources_ask() {
    let plain = |file: &str, arch| IMAGES[0].ptx(file, arch).unwrap();
    assert_eq!(plain("rope", Arch::Sm90a), plain("rope", Arch::Sm80));
    assert!(plain("rope", Arch::Sm80).contains(".target sm_80"));
    assert!(plain("gemm_sm90a", Arch::Sm90a).contains(".target sm_90a"));
    assert_eq!(IMAGES[0].ptx("none", Arch::Sm90a), None);
}

#[test]
fn drivers_get_the_text_of_nvcc_with_an_older_version_and_without_a_hint() {
    let mut hints = 0;
    for file in IMAGES[0].files() {
        let (ours, nvcc) =
            (IMAGES[0].ptx_for_driver(file, Arch::Sm90a).unwrap(), IMAGES[0].ptx(file, Arch::Sm90a).unwrap());
        let kept: Vec<_> = nvcc.lines().filter(|line| !line.contains("used_bytes_mask")).collect();
        let others = kept.iter().zip(ours.lines()).filter(|(nvcc, ours)| *nvcc != ours);
        assert_eq!(others.collect::<Vec<_>>(), [(&".version 9.0", ".version 8.0")], "{file}");
        assert_eq!(ours.lines().count(), kept.len(), "{file}");
        hints += nvcc.lines().count() - kept.len();
    }
    assert!(hints > 0, "without hints, this test shows nothing");
}

#[test]
fn the_table_tells_which_compilers_serialise_wgmma() {
    let table = "one.cu one sm_80 source=1\none.cu one sm_90a source=1 serialized=12.0,12.10,12.4 spilled=12.9\n\
                 one.cu two sm_90a source=1\n";
    let images = Images { manifest: table, ..*IMAGES[0] };
    let is_serialized = |cuda| images.is_serialized("one", cuda);
    assert_eq!([12_000, 12_030, 12_100, 12_110, 13_000].map(is_serialized), [true, true, true, false, false]);
    assert!(!images.is_serialized("two", 12_000) && !images.is_serialized("three", 12_000));
}

/// Sources for the test below: two kernel files and three headers, of which one belongs to the emulator.
const SOURCES: [(&str, &str); 5] = [
    ("common/reduce.cuh", "#include \"../isa/isa.cuh\"\n"),
    ("emu/isa.cuh", "host\n"),
    ("isa/isa.cuh", "#ifdef __CUDACC__\n#else\n  #  include \"emu/isa.cuh\"\n#endif\n"),
    ("one.cu", "#include \"common/reduce.cuh\"\n"),
    ("two.cu", "two\n"),
];
const PTX: [(&str, &str); 3] = [("one.sm_80", "a\n"), ("one.sm_90a", "b\n"), ("two.sm_80", "c\n")];
/// Table of `SOURCES` and `PTX`, with hashes as tools/build-ptx computes them.
const TABLE: &str = "# compiler: nvcc 13.0.88
one.cu one sm_80 source=86ae9257d7003e81 ptx=089bdc07b544e7b2 registers=10
one.cu one sm_90a source=86ae9257d7003e81 ptx=08a61e07b54dac5d registers=10
two.cu two sm_80 source=90eeae71c9c5c1d5 ptx=08a2b407b54ac268 registers=10
two.cu two sm_90a source=90eeae71c9c5c1d5 ptx=08a2b407b54ac268 registers=10
";

#[test]
fn a_change_is_seen_by_the_files_it_reaches() {
    let stale = |sources: &[(&str, &str)], ptx: &[(&str, &str)]| images::stale_among(sources, ptx, TABLE);
    assert_eq!(stale(&SOURCES, &PTX), [""; 0]);
    let changed = |path: &str| {
        let mut sources = SOURCES;
        sources.iter_mut().find(|(p, _)| *p == path).unwrap().1 = "changed\n";
        stale(&sources, &PTX)
    };
    let of_one = [
        "the PTX of one.sm_80 was not built from these sources",
        "the PTX of one.sm_90a was not built from these sources",
    ];
    assert_eq!(changed("one.cu"), of_one);
    assert_eq!(changed("common/reduce.cuh"), of_one);
    assert_eq!(changed("isa/isa.cuh"), of_one);
    assert_eq!(changed("emu/isa.cuh"), [""; 0]);
    assert_eq!(changed("two.cu").len(), 2);

    let mut ptx = PTX;
    ptx[2].1 = "changed\n";
    let of_two = [
        "the PTX of two.sm_80 was not built from these sources",
        "the PTX of two.sm_90a was not built from these sources",
    ];
    assert_eq!(stale(&SOURCES, &ptx), of_two);
    let missing = ["the PTX of two.sm_80 is missing", "the PTX of two.sm_90a is missing"];
    assert_eq!(stale(&SOURCES, &PTX[..2]), missing);
    let hopper = [PTX[0], PTX[2]];
    assert_eq!(stale(&SOURCES, &hopper), ["the PTX of one.sm_90a was not built from these sources"]);
    assert_eq!(stale(&SOURCES[..4], &PTX), ["two.sm_80 has no kernel file", "two.sm_90a has no kernel file"]);
    let without: String = TABLE.lines().filter(|l| !l.contains("two sm_80")).map(|l| l.to_owned() + "\n").collect();
    assert_eq!(images::stale_among(&SOURCES, &PTX, &without), ["MANIFEST does not name two.sm_80"]);
}
