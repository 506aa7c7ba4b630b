//! Tests `omr bench first-gpu` with the stand-in of the driver.

use std::path::Path;

use super::{Machine, start_check};
use omr_runtime_tests::ranks::nccl::StandIn;

use crate::cli::first_gpu;
use crate::cli::generate::model_dir;

/// This driver computes nothing, so the sampler differs from the trainer, and times have no meaning. The other cases run
/// nevertheless, and every launch is checked.
#[test]
fn a_first_gpu_has_a_verdict_for_each_case() {
    let machine = Machine::new();
    let at = |name: &str| machine.folder.path().join(name);
    std::fs::create_dir(at("model")).unwrap();
    model_dir(&at("model"));
    let run = |settings: &[(&str, &str)]| {
        let (json, model) = (at("F.json").display().to_string(), at("model").display().to_string());
        let args = [
            "--device",
            "cuda",
            "bench",
            "first-gpu",
            "--seconds",
            "0.001",
            "--json",
            &json,
            "--model",
            &model,
            "--overwrite",
        ];
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, settings);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        first_gpu::verdicts(&first_gpu::record(&at("F.json")))
    };
    let manifest = start_check::HOPPER[1];
    let small = ("FAKE_MEMORY", "1610612736");
    let stand_in = StandIn::new("");
    let library = stand_in.path().display().to_string();
    let nccl = ("OMR_NCCL_LIBRARY", &*library);
    let lines = run(&[("FAKE_GPUS", "8.7,8.7"), manifest, small, nccl, ("PYTHON", "/no/python")]);
    for (i, line) in lines.iter().enumerate() {
        let verdict = match i {
            2 => "not run: not on this device",
            3 => "failed: parity: ",
            11 => "failed: lane_sum: sum 0 is 0, not ",
            // The losses of this driver are no numbers. The runs end at the same point, also that of two ranks.
            12 => "failed: sft on 1: 2 of 2 steps skipped updates",
            13 => "failed: 2 of 2 steps skipped updates",
            14 => "not run: no --real DIR",
            _ => "passed: ",
        };
        assert!(line.contains(verdict), "{lines:#?}");
    }
    assert!(lines[4].ends_with("not compared with transformers: PATH no such file or directory"), "{lines:#?}");
    assert!(lines[7].contains("digits, 64 sequences") && lines[10].contains("22m, 8 sequences"), "{lines:#?}");
    let lines = run(&[("FAKE_GPUS", "8.7"), manifest, small, ("FAKE_FAULT", "1")]);
    assert!(lines[3].contains("failed") && lines[3].contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{lines:#?}");
    assert!(lines[13].ends_with("not run: after the failure above, the GPU does not run a small kernel"), "{lines:#?}");
}
