//! Tests which launches a GPU refuses.

use omr_runtime::device::driver::{Launch, Properties};
use omr_runtime::device::limits::{Declared, HOPPER, Limits, check};

#[test]
fn a_launch_fits_or_says_what_does_not() {
    let hopper = HOPPER.properties("", 1, 0);
    let kernel = Declared { name: "gemm", args: 8, threads: 512, registers: 122 };
    let good = Launch { grid: [6, 1, 1], block: 512, cluster: 2, smem: 227 * 1024 };
    let message = |kernel: Declared, launch: Launch, device: &Properties| match check(kernel, &launch, 8, device) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(message(kernel, good, &hopper), "");
    // Registers are allocated in units of eight: 121 to 128 use all 65,536 registers, and 129 do not fit.
    let registers = |registers| message(Declared { registers, ..kernel }, good, &hopper);
    assert_eq!(registers(128), "");
    assert_eq!(registers(129), "launch of gemm refused: 129 registers x 512 threads, but a CTA can have 65536");
    let cluster = |cluster| message(kernel, Launch { cluster, ..good }, &hopper);
    assert_eq!([cluster(1), cluster(3), cluster(6)], ["", "", ""]);
    for wrong in [0, 4, 9] {
        assert!(cluster(wrong).contains("do not divide a grid of 6"), "{wrong}: {}", cluster(wrong));
    }
    let ada = Limits::of(8, 9).unwrap().properties("", 1, 0);
    let refused = "launch of gemm refused: 232448 bytes of dynamic shared memory, but a CTA can have 101376";
    assert_eq!(message(kernel, good, &ada), refused);
    let small = Launch { smem: 101_376, ..good };
    assert!(message(kernel, small, &ada).contains("a cluster of 2 on compute capability 8.9"));
    assert_eq!(message(kernel, Launch { cluster: 1, ..small }, &ada), "");
}
