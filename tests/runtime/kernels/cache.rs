//! Tests of the cache of kernels compiled for the emulator.

use std::fs;
use std::process::Stdio;

use omr_runtime::device::emu::compile::{Cache, Compiler, Sources};

use crate::kernels::alone;

fn sources(files: &[(&str, &str)]) -> Sources {
    files.iter().map(|(path, text)| (format!("kernels/{path}"), text.to_string())).collect()
}

const TINY: &[(&str, &str)] = &[
    ("a.cu", "#include \"common/one.cuh\"\nextern \"C\" int a() { return one(); }\n"),
    ("b.cu", "extern \"C\" int b() { return 2; }\n"),
    ("common/one.cuh", "inline int one() { return 1; }\n"),
];

fn unit(file: &str) -> [String; 1] {
    [format!("kernels/{file}")]
}

#[test]
fn objects_are_compiled_once_and_again_when_a_source_changes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = |files: &[(&str, &str)]| Cache::new(folder.path(), Compiler::find().unwrap(), sources(files));
    let a = cache(TINY).object(&unit("a.cu")).unwrap();
    let b = cache(TINY).object(&unit("b.cu")).unwrap();
    // A second compilation would overwrite this.
    fs::write(&a, "kept").unwrap();
    assert_eq!(cache(TINY).object(&unit("a.cu")).unwrap(), a);
    assert_eq!(fs::read_to_string(&a).unwrap(), "kept");

    let mut edited = TINY.to_vec();
    edited[2].1 = "inline int one() { return 11; }\n";
    assert_ne!(cache(&edited).object(&unit("a.cu")).unwrap(), a);
    assert_eq!(cache(&edited).path(&unit("b.cu")).unwrap(), b, "b.cu does not include what changed");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn all_kernels_are_compiled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = |files: &[(&str, &str)]| Cache::new(folder.path(), Compiler::find().unwrap(), sources(files));
    cache(TINY).fill().unwrap();
    let made = ["a.cu", "b.cu"].map(|file| cache(TINY).path(&unit(file)).unwrap());
    assert!(made.iter().all(|path| path.exists()));
    let broken = [TINY, &[("c.cu", "int one = two;\n")]].concat();
    let text = cache(&broken).fill().unwrap_err().to_string();
    assert!(text.contains("kernels/c.cu does not compile"), "{text}");
}

#[test]
fn several_compile_the_same_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = Compiler::find().unwrap();
    let cache = || Cache::new(folder.path(), compiler.clone(), sources(TINY));
    let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let make = || fs::read(cache().object(&unit("a.cu")).unwrap()).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    // Each object is complete. Not every compiler writes the same bytes twice.
    assert!(made.iter().all(|object| object.starts_with(b"\x7fELF") && object.len() == made[0].len()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
#[ignore = "compiles the emulator twice"]
fn two_processes_share_an_empty_cache() {
    let home = tempfile::tempdir().unwrap();
    let test = || {
        let mut command = alone("kernels::driver::launches_and_counts");
        command.env("XDG_CACHE_HOME", home.path()).stdout(Stdio::piped()).spawn().unwrap()
    };
    for child in [test(), test()] {
        let said = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("1 passed"), "{text}");
    }
}

#[test]
fn what_the_compiler_says_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broken = sources(&[("c.cu", "int one = two;\nint three = four;\n")]);
    let cache = Cache::new(folder.path(), Compiler::find().unwrap(), broken);
    let text = cache.object(&unit("c.cu")).unwrap_err().to_string();
    for part in ["kernels/c.cu does not compile", "kernels/c.cu:1:", "two", "kernels/c.cu:2:", "four"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_compiler_says_what_to_install() {
    let text = Compiler::at("no-such-compiler").unwrap_err().to_string();
    assert!(text.contains("no-such-compiler") && text.contains("apt-get install g++"), "{text}");
}
