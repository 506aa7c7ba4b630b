//! The committed PTX is that of the kernel sources, told without a CUDA compiler (`tools/build-ptx --check` builds it
//! again with one).

use omr::device::images::{self, Arch};

#[test]
fn fresh() {
    let stale = images::stale();
    assert!(stale.is_empty(), "run tools/build-ptx and commit ptx/:\n{}", stale.join("\n"));
    let mut kernels = 0;
    for file in images::files() {
        for kernel in images::kernels(file) {
            for arch in Arch::ALL {
                let built = images::kernel(kernel, arch).unwrap();
                assert_eq!(built.file, file);
                assert!(built.registers > 0 && built.smem == 0 && built.threads > 0 && built.args > 0, "{kernel}");
                let entry = format!(".entry {kernel}(");
                assert!(images::ptx(file, arch).unwrap().contains(&entry), "{kernel} is not in its PTX");
                kernels += 1;
            }
        }
    }
    println!("{kernels} kernels and targets");
}

/// Kernel files with a header each, one of them the emulator's, and their PTX and table.
const SOURCES: [(&str, &str); 5] = [
    ("common/reduce.cuh", "#include \"../isa/isa.cuh\"\n"),
    ("emu/isa.cuh", "host\n"),
    ("isa/isa.cuh", "#ifdef __CUDACC__\n#else\n  #  include \"emu/isa.cuh\"\n#endif\n"),
    ("one.cu", "#include \"common/reduce.cuh\"\n"),
    ("two.cu", "two\n"),
];
const PTX: [(&str, &str); 4] =
    [("one.sm_80", "a\n"), ("one.sm_90a", "b\n"), ("two.sm_80", "c\n"), ("two.sm_90a", "d\n")];
/// What tools/build-ptx's hashes of these files are.
const TABLE: &str = "# compiler: nvcc 13.0.88
one.cu one sm_80 source=86ae9257d7003e81 ptx=089bdc07b544e7b2 registers=10
one.cu one sm_90a source=86ae9257d7003e81 ptx=08a61e07b54dac5d registers=10
two.cu two sm_80 source=90eeae71c9c5c1d5 ptx=08a2b407b54ac268 registers=10
two.cu two sm_90a source=90eeae71c9c5c1d5 ptx=0891b607b53c529b registers=10
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
    let of_one = ["ptx/one.sm_80.ptx is not of these sources", "ptx/one.sm_90a.ptx is not of these sources"];
    assert_eq!(changed("one.cu"), of_one);
    assert_eq!(changed("common/reduce.cuh"), of_one);
    assert_eq!(changed("isa/isa.cuh"), of_one);
    assert_eq!(changed("emu/isa.cuh"), [""; 0]);
    assert_eq!(changed("two.cu").len(), 2);

    let mut ptx = PTX;
    ptx[2].1 = "changed\n";
    assert_eq!(stale(&SOURCES, &ptx), ["ptx/two.sm_80.ptx is not of these sources"]);
    assert_eq!(stale(&SOURCES, &PTX[..3]), ["ptx/two.sm_90a.ptx is missing"]);
    assert_eq!(stale(&SOURCES[..4], &PTX), ["two.sm_80 has no kernel file", "two.sm_90a has no kernel file"]);
    let without: String = TABLE.lines().filter(|l| !l.contains("two sm_80")).map(|l| l.to_owned() + "\n").collect();
    assert_eq!(images::stale_among(&SOURCES, &PTX, &without), ["ptx/MANIFEST does not name two.sm_80"]);
}
