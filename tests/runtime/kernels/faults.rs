//! Tests of kernels that fail on a GPU: an error must name the call and the kernel, and a process must end although its
//! kernel does not. Each fault has its own process, because it makes the context of the GPU unusable.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::kernels::inputs::up;
use crate::kernels::{Under, alone, emu, only_on_a_gpu, under_test};
use omr_base::signal;
use omr_runtime::device::{Launch, On, Params};

/// Set in the processes that run a kernel of faults.cu.
const CHILD: &str = "OMR_TEST_FAULT";
/// Milliseconds of the kernel that does not end in time.
const LONG: u64 = 60_000;
/// Exit status of a process that does not wait for its kernel.
const GAVE_UP: u8 = 3;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Args {
    at: u64,
    milliseconds: u64,
}

/// Runs one of the tests below in a process that may fail.
fn child(name: &str) -> Output {
    alone(&format!("kernels::faults::{name}")).env(CHILD, "1").output().unwrap()
}

fn in_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs a kernel of faults.cu, calls `launched`, and returns the error of the launch or of the read that follows.
fn error_of(kernel: &'static str, at: u64, milliseconds: u64, launched: impl FnOnce()) -> Option<String> {
    let mut dev = emu();
    let word = up(&mut dev, &[0u32], &[1]);
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let args = Args { at, milliseconds };
    let result = gpu.launch("faults", kernel, Launch::new([1, 1, 1], 32, 0), Params::of(&args));
    launched();
    let error = result.and_then(|()| dev.read::<u32>(word)).err();
    // A device with an error cannot be closed in order.
    std::mem::forget(dev);
    error.map(|error| error.to_string())
}

/// Requires that the child's error names the kernel and, on a GPU, the driver's error.
fn names(name: &str, kernel: &str, code: &str) {
    let output = child(name);
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let error =
        printed.lines().find(|line| line.starts_with("error of the kernel: ")).unwrap_or_else(|| panic!("{printed}"));
    println!("{error}");
    assert!(error.contains(kernel), "{error}");
    assert!(under_test() != Under::Gpu || error.contains(code), "{error}");
}

#[test]
fn a_store_outside_memory_names_the_kernel() {
    names("child_stores_outside", "faults_store", "CUDA_ERROR_ILLEGAL_ADDRESS");
}

#[test]
fn a_trap_names_the_kernel() {
    if !only_on_a_gpu("a trap") {
        names("child_traps", "faults_trap", "CUDA_ERROR_");
    }
}

/// A process whose kernel does not end must end within the limit of the start check, and leave the GPU usable.
#[test]
fn a_process_ends_although_its_kernel_does_not() {
    if only_on_a_gpu("a kernel that does not end") {
        return;
    }
    let begun = Instant::now();
    let output = child("child_waits");
    let seconds = begun.elapsed().as_secs_f64();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("the process ended after {seconds:.1} s");
    assert_eq!(output.status.code(), Some(GAVE_UP.into()), "{printed}");
    assert!(seconds < LONG as f64 / 2e3, "{seconds} s");
    let after = child("child_does_not_wait");
    assert!(after.status.success(), "{}", String::from_utf8_lossy(&after.stdout));
}

#[test]
fn child_stores_outside() {
    if in_child() {
        println!("error of the kernel: {}", error_of("faults_store", 1 << 46, 0, || ()).unwrap());
    }
}

#[test]
fn child_traps() {
    if in_child() {
        println!("error of the kernel: {}", error_of("faults_trap", 0, 0, || ()).unwrap());
    }
}

#[test]
fn child_waits() {
    if in_child() {
        let give_up = || {
            std::thread::sleep(Duration::from_secs(2));
            signal::exit(GAVE_UP);
        };
        let error = error_of("faults_wait", 0, LONG, || drop(std::thread::spawn(give_up)));
        panic!("the kernel ended: {error:?}");
    }
}

#[test]
fn child_does_not_wait() {
    if in_child() {
        assert_eq!(error_of("faults_wait", 0, 0, || ()), None);
    }
}
