//! Tests checkpoints on a file system that loses writes: `lost_writes.c` drops the writes of one rank.

use std::path::Path;
use std::process::Command;

use omr_base::config::{LoraConfig, RlConfig, SftConfig, to_yaml};
use omr_train_tests::training::tiny::{rl_config, sft_config, training, with};

/// Compiles the library that drops writes into `folder`.
fn library(folder: &Path) -> String {
    let library = folder.join("lost_writes.so").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/faults/lost_writes.c");
    let flags = ["-Wall", "-Werror", "-shared", "-fPIC", "-o", &library, source, "-ldl"];
    let built = Command::new("cc").args(flags).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// Tests that zeros in the place of lost writes are not committed as a checkpoint, and that the message names the file
/// and the rank. A hash of what is read back from the disk would vouch for the zeros.
#[test]
fn a_checkpoint_with_lost_writes_is_not_committed_and_the_rank_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (at, library) = (|name: &str| dir.path().join(name).display().to_string(), library(dir.path()));
    let lanes = training(|t| t.gradient_lanes = Some(2));
    let sft = SftConfig { max_steps: Some(1), training: lanes.clone(), ..sft_config(dir.path()) };
    let lora = with(&sft, |config| config.optimizer.lora = Some(LoraConfig { rank: 4, ..LoraConfig::default() }));
    let rl = RlConfig { total_training_steps: Some(1), training: lanes, ..rl_config(dir.path()) };
    for (name, text) in [("sft", to_yaml(&sft)), ("lora", to_yaml(&lora)), ("rl", to_yaml(&rl))] {
        std::fs::write(at(name), text.unwrap()).unwrap();
    }
    let cases = [
        ("sft", "sft", "1", "2", "/model.safetensors"),
        ("sft", "lora", "1", "2", "/adapter_model.safetensors"),
        ("rl", "rl", "1", "2", "/model.safetensors"),
        ("sft", "sft", "0", "2", "/trainer/optim"),
        ("sft", "sft", "0", "1", "/model.safetensors"),
    ];
    for (number, (command, config, rank, gpus, file)) in cases.into_iter().enumerate() {
        let out = at(&format!("out-{number}"));
        let mut run = Command::new(env!("CARGO_BIN_EXE_omr"));
        run.env("CUDA_VISIBLE_DEVICES", "").args(["--threads", "1", command, &at(config), "--out", &out]);
        run.args(["--gpus", gpus]).envs([("LD_PRELOAD", &*library), ("LOST_RANK", rank), ("LOST_FILE", file)]);
        let output = run.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        let writer = if gpus == "1" { "that rank 0 has written".to_owned() } else { format!("that rank {rank} (") };
        assert!(errors.len() == 1 && errors[0].contains(file) && errors[0].contains(&writer), "{text}");
        assert!(errors[0].contains("the file system has lost a write"), "{text}");
        let left: Vec<_> = std::fs::read_dir(Path::new(&out).join("checkpoints")).unwrap().collect();
        assert!(left.is_empty() && !Path::new(&out).join("model").exists(), "{left:?}");
    }
}
