//! Tests the errors and exit statuses of commands with invalid arguments.

use super::help::omr;

/// Runs a command that must fail. Returns its exit status and stderr.
fn failure(args: &[&str]) -> (i32, String) {
    let output = omr().args(args).output().unwrap();
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unknown_command_or_flag_is_exit_status_2() {
    let (code, text) = failure(&["docter"]);
    assert!(code == 2 && text.contains("doctor"), "{code}: {text}");
    let (code, _) = failure(&["doctor", "--nonsense"]);
    assert_eq!(code, 2);
    let (code, text) = failure(&["--device", "tpu", "doctor"]);
    assert!(code == 2 && text.contains("auto, cpu, cuda, emu"), "{code}: {text}");
}

#[test]
fn a_gpu_kernel_variant_without_a_gpu_is_refused() {
    let (code, text) = failure(&["bench", "rms_norm", "--device", "cpu", "--kernel-variant", "wgmma"]);
    assert!(code == 2 && text.contains("--kernel-variant: found a GPU kernel variant with --device cpu"), "{text}");
}

#[test]
fn a_typing_error_does_not_start_a_million_threads() {
    let (code, text) = failure(&["--threads", "1000000", "doctor"]);
    assert!(code == 2 && text.contains("0 to 4096"), "{code}: {text}");
}

#[test]
fn a_path_that_is_a_folder_or_no_text_is_the_inputs_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().to_str().unwrap(), dir.path().join("out"));
    let out = out.to_str().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, b"model: \xff\n").unwrap();
    for (config, what) in [(folder, "directory"), (file.to_str().unwrap(), "UTF-8"), ("no/such.yaml", "no such file")] {
        let (code, text) = failure(&["sft", config, "--out", out]);
        assert!(code == 2 && text.contains(&format!("{config}: ")) && text.contains(what), "{code}: {text}");
        assert!(!text.contains("os error"), "{text}");
    }
    let (code, text) = failure(&["sft", "/dev/null", "--out", out, "model=no/such/model", "datasets=x.parquet"]);
    assert!(code == 2 && text.contains("model: found no/such/model"), "{code}: {text}");
    let (code, text) = failure(&["eval", "--model", "no/such/model", "--out", out]);
    assert!(code == 2 && text.contains("--model: found no/such/model"), "{code}: {text}");
}

#[test]
fn a_report_of_a_folder_that_is_no_run_is_exit_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = failure(&["report", dir.path().to_str().unwrap()]);
    assert!(code == 2 && text.starts_with("error: ") && text.lines().count() == 1, "{code}: {text}");
    let (code, text) = failure(&["report", "no/such/folder"]);
    assert!(code == 2 && text.contains("no/such/folder"), "{code}: {text}");
}

#[test]
fn an_unknown_bench_or_log_level_names_the_nearest() {
    let (code, text) = failure(&["bench", "rms_nrom"]);
    assert!(code == 2 && text.contains("did you mean rms_norm?"), "{code}: {text}");
    let (code, text) = failure(&["--log-level", "omr=loud", "doctor"]);
    assert!(code == 2 && text.contains("--log-level"), "{code}: {text}");
    let (code, text) = failure(&["--log-level", "wran", "doctor"]);
    assert!(code == 2 && text.contains("did you mean warn?"), "{code}: {text}");
}

#[test]
fn a_model_too_large_for_the_machine_is_refused_before_it_is_made() {
    let (code, text) = failure(&["bench", "train-step", "--model-shape", "70b"]);
    assert!(code == 2 && text.contains("digits, 22m, 3b, 7b"), "{code}: {text}");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    if total.is_none_or(|kib| kib > 100 << 20) {
        eprintln!("this machine could hold the model, or does not say: not asked to");
        return;
    }
    let (code, text) = failure(&["--quiet", "bench", "train-step", "--model-shape", "7b"]);
    assert!(code == 2 && text.contains("GiB for train-step of 7b"), "{code}: {text}");
}
