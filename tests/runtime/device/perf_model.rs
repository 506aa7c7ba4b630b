//! Compares predictions with published measurements.

use omr_runtime::device::Launch;
use omr_runtime::device::images::OWN;
use omr_runtime::device::perf_model::{Clocks, KernelCosts, Share, busiest_cta};

/// Clock of the H100 of fast.cu's author, who does not state it. His best figure, 808 TFLOP/s on 128 of the SMs, needs at
/// least 1,560 MHz even if nothing but the kernel's epilogues delays its products. 1,600 is assumed.
const FAST_CU: Clocks = Clocks { hz: 1.6e9, memory: 3.0e12 };

/// A step of fast.cu: instructions per two stages and per epilogue, counted by `tools/roofline --cubin` in the kernel
/// compiled by nvcc 13.0.88; CTAs per cluster; size of the product; TFLOP/s that its author measured.
type Step = (&'static str, [f64; 2], u32, usize, f64);

/// github.com/pranjalssh/fast.cu at 38eb642. The figures at 4096 are from a table of its author's blog, which was read
/// second-hand; those of `matmul_12` are in its README, and 774 and 799 in a chart of the blog (bench/LOG.md, ac39bfe).
const STEPS: [Step; 7] = [
    ("matmul_7, before clusters", [163.0, 908.0], 1, 4096, 704.0),
    ("matmul_8, clusters", [167.0, 937.0], 2, 4096, 734.0),
    ("matmul_10, asynchronous stores", [154.0, 503.0], 2, 4096, 758.0),
    ("matmul_12", [155.0, 294.0], 2, 4096, 763.0),
    ("matmul_9", [161.0, 1182.0], 2, 6144, 774.0),
    ("matmul_9", [161.0, 1182.0], 2, 8192, 799.0),
    ("matmul_12", [155.0, 294.0], 2, 8192, 808.0),
];

#[test]
fn products_somebody_measured_are_inside_the_range() {
    for (name, [step, epilogue], cluster, n, measured) in STEPS {
        let costs = KernelCosts {
            wgmma: true,
            step,
            flops: 1_048_576.0,
            operands: 81_920.0,
            registers: 168,
            tile: Some([128, 256, 8]),
            epilogue,
            ..KernelCosts::default()
        };
        let launch = Launch { cluster, ..Launch::new([128, 1, 1], 384, 226 << 10) };
        let flops = 2.0 * (n as f64).powi(3);
        let share = Share { flops, bytes: 6.0 * (n as f64).powi(2), product: Some([n, n, n]), ..Share::default() };
        let found = costs.predict(&launch, &share, FAST_CU);
        let [fast, likely, slow] =
            [found.seconds.low, found.seconds.likely, found.seconds.high].map(|seconds| flops / seconds / 1e12);
        println!("{name:31} {n}: {slow:.0} to {fast:.0}, likely {likely:.0} TFLOP/s; measured {measured}");
        assert!(slow < measured && measured < fast, "{name} at {n}: {slow:.0} to {fast:.0}, measured {measured}");
        assert!((likely / measured - 1.0).abs() < 0.06, "{name} at {n}: {likely:.0}, measured {measured}");
        assert!(fast < 1.35 * slow, "{name} at {n}: {slow:.0} to {fast:.0}");
    }
}

/// The loop over rows of an epilogue must be counted as often as it runs: a warp executes about as many instructions per
/// element in each tile, where the part outside of the loop is small.
#[test]
fn long_epilogues_take_as_many_instructions_per_element_in_each_tile() {
    for name in ["sample_logits", "linear_logprob", "linear_logprob_dz", "linear_gelu"] {
        let of_element = ["wide", "square", "short"].map(|tile| {
            let costs = OWN.kernel_costs(&format!("{name}_{tile}")).unwrap();
            let [rows, columns, warps] = costs.tile.unwrap();
            costs.epilogue * warps as f64 / (rows * columns) as f64
        });
        let [least, most] = [f64::min, f64::max].map(|of| of_element.into_iter().reduce(of).unwrap());
        assert!(most < 1.05 * least, "{name}: {of_element:?}");
    }
}

#[test]
fn an_item_goes_to_the_cta_that_is_done_first() {
    assert_eq!(busiest_cta([5, 1, 1, 4].into_iter(), 2, false), 6);
    assert_eq!(busiest_cta([5, 1, 1, 4].into_iter(), 2, true), 6);
    assert_eq!(busiest_cta([5, 1, 4, 1].into_iter(), 2, false), 9);
    assert_eq!(busiest_cta([5, 1, 4, 1].into_iter(), 2, true), 6);
}
