//! Tests drivers that are older than the compiler of the kernels, each with the symbols of its version only.

use std::path::Path;
use std::process::Output;

use omr_runtime::device::images::OWN;
use omr_train_tests::training::tiny;

use super::Machine;
use super::start_check::HOPPER;

fn omr(machine: &Machine, args: &[&str], settings: &[(&str, &str)]) -> Output {
    machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), args, settings)
}

/// A run of one step. This driver computes nothing, so the gradient is no number, and the run ends with an error after it
/// has written its model.
#[test]
fn every_driver_from_cuda_12_on_is_usable() {
    for cuda in [12_000, 12_020, 12_040, 12_080, 13_000] {
        let machine = Machine::with_driver_of(cuda);
        let [out, config] = ["out", "sft.yaml"].map(|name| machine.folder.path().join(name).display().to_string());
        std::fs::write(&config, omr_base::config::to_yaml(&tiny::sft_config(machine.folder.path())).unwrap()).unwrap();
        let run = omr(&machine, &["--device", "cuda", "sft", &config, "--out", &out, "max_steps=1", "dtype=bf16"], &[]);
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(
            text.contains("1 of 1 steps skipped updates") && Path::new(&out).join("model/MANIFEST").exists(),
            "{cuda}: {text}"
        );
        let log = std::fs::read_to_string(machine.log_file()).unwrap();
        assert_eq!(log.lines().filter(|line| line.starts_with("link ")).count(), OWN.files().count(), "{cuda}");

        let doctor = machine.doctor(&[("FAKE_GPUS", "8.0,9.0"), ("FAKE_NAME", "NVIDIA A100-SXM4-80GB")]);
        let (newer, is_old) = ("or the package cuda-compat-13-0", cuda < 13_000);
        assert!(doctor.len() == 2 && doctor.iter().all(|line| line.contains("runs the sm_")), "{doctor:?}");
        assert!(doctor.iter().all(|line| line.contains("driver 580 or later") == is_old), "{cuda}: {doctor:?}");
        assert!(doctor.iter().all(|line| line.contains(newer) == is_old), "{cuda}: {doctor:?}");
    }
}

/// Every call of the program, with the symbols of the oldest driver only.
#[test]
fn no_call_needs_a_symbol_that_came_after_cuda_12_0() {
    Machine::with_driver_of(12_000).child("child_uses_everything", &[("FAKE_GPUS", "8.7")]);
}

/// Cubins are loaded by the driver for which they were made, and by later ones.
#[test]
fn machine_code_is_for_drivers_of_its_compiler() {
    let links = |cuda: u32| {
        let machine = Machine::with_driver_of(cuda);
        let log = machine.child("child_opens", &[("FAKE_GPUS", "8.0")]);
        log.iter().filter(|line| line.starts_with("link ")).count()
    };
    let files = OWN.files().count();
    let compiled = if OWN.cubins.is_empty() { files } else { 0 };
    assert_eq!([12_090, 13_000].map(links), [files, compiled]);
}

#[test]
fn a_driver_that_serialises_wgmma_runs_mma_sync() {
    for (cuda, is_serialized) in [(12_000, true), (12_080, true), (12_090, false)] {
        let machine = Machine::with_driver_of(cuda);
        let doctor = omr(&machine, &["doctor", "--device", "cuda"], &HOPPER);
        let [out, err] = [&doctor.stdout, &doctor.stderr].map(|text| String::from_utf8_lossy(text));
        let fault = format!(
            "instead of wgmma: the compiler of the driver CUDA 12.{} serialises the wgmma of linear_",
            cuda % 1000 / 10
        );
        assert_eq!(err.contains(&fault), is_serialized, "{err}");
        assert!(out.contains("mma.sync/2 on compute capability 9.0"), "{out}");
        let log = std::fs::read_to_string(machine.log_file()).unwrap();
        assert_eq!(log.contains("launch linear_f32"), !is_serialized, "nothing is tried: {log}");
    }
}
