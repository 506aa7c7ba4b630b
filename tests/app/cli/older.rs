//! Tests runs that older versions started. The current program continues a run of the same arithmetic and ends it with the
//! same bits as the older program. It refuses a run of an older arithmetic by name.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::help::omr;

/// sha256 of the weights that an older program computed in each of four runs of six steps: the program that introduced
/// version 5 of the arithmetic in the first two, and that of commit 895f5fd7 in the others (an adapter on an int8 base,
/// and RL with a KL loss). The archives have the same runs, killed after their third step.
const MODELS: [(&str, &str); 4] = [
    ("sft", "ddc7e783f733e689fcb9037aedda754b919a292aea14f8bb3a9311bf8d750031"),
    ("rl", "f6c8a0c9200093455beb0e877962efedbea51b7bd74d5567af98092d147088d1"),
    ("sft-lora", "493be6afa85d2355fcf07875ec6f8d24c3ef8849aecd7face1b72e052a43e6ad"),
    ("rl-rewards", "68817489ad1b1086384493194a9c861df93e2c838919d0bd856bc7a9c2058df0"),
];

/// Unpacks the runs. Those of commit 895f5fd7 use the model and the rows of the first archive.
fn runs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for archive in ["arithmetic-5.tgz", "895f5fd7.tgz"] {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/app/cli/older").join(archive);
        let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
        assert!(status.success());
    }
    dir
}

fn continued(dir: &TempDir, job: &str) -> (Output, String) {
    let (config, command) = (format!("{job}.yaml"), job.split('-').next().unwrap());
    let output = omr().current_dir(dir).args([command, &config, "--out", job, "--threads", "2"]).output().unwrap();
    let printed = String::from_utf8(output.stderr.clone()).unwrap();
    (output, printed)
}

#[test]
fn runs_of_an_older_version_end_with_its_bits() {
    let dir = runs();
    for (job, expected) in MODELS {
        let (output, printed) = continued(&dir, job);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("continuing from step 3"), "{printed}");
        assert!(!printed.contains("the checkpoint comes from a run with other settings"), "{printed}");
        let model = dir.path().join(job).join("model");
        let adapter = model.join("adapter_model.safetensors");
        let weights = std::fs::read(if adapter.exists() { adapter } else { model.join("model.safetensors") }).unwrap();
        let found: String = Sha256::digest(weights).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{job}: {printed}");
    }
}

/// The texts of responses have special tokens since a commit after 895f5fd7.
#[test]
fn a_replay_of_an_older_run_is_equal_or_names_the_program_that_can() {
    let dir = runs();
    let replay = |args: &[&str]| {
        let output = omr().current_dir(&dir).args(["--quiet", "replay"]).args(args).output().unwrap();
        let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), printed)
    };
    // The runs were recorded with avx512+amx. A processor with other instructions compares nothing, and states it.
    let (code, printed) = replay(&["sft-lora", "--step", "3"]);
    if code != Some(0) {
        let named = ["made on cpu, avx512+amx", "and this is cpu,", "nothing was compared"];
        assert!(code == Some(2) && named.iter().all(|part| printed.contains(part)), "{code:?} {printed}");
        return;
    }
    for step in ["1", "2", "3"] {
        let (code, printed) = replay(&["sft-lora", "--step", step]);
        assert!(code == Some(0) && printed.contains("equal the record"), "{printed}");
    }
    // Some answers to the first two questions have such tokens.
    for row in ["0", "4"] {
        let (code, printed) = replay(&["rl-rewards", "--step", "1", "--rollout", row]);
        let named = ["<|", "same tokens", "the omr that recorded the run", "starts.jsonl"];
        assert!(code == Some(1) && named.iter().all(|part| printed.contains(part)), "{printed}");
    }
    for row in ["8", "12"] {
        let (code, printed) = replay(&["rl-rewards", "--step", "1", "--rollout", row]);
        assert!(code == Some(0) && printed.contains("4 rollouts equal the record"), "{printed}");
    }
}

#[test]
fn a_run_of_an_older_arithmetic_is_refused_by_name() {
    let dir = runs();
    for (job, _) in MODELS {
        // A checkpoint of a version that wrote no MANIFEST.
        let checkpoint = dir.path().join(job).join("checkpoints/global_step_3");
        std::fs::remove_file(checkpoint.join("MANIFEST")).unwrap();
        let path = checkpoint.join("trainer/state.json");
        let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let versions = state["versions"].as_object_mut().unwrap();
        versions.remove("record");
        versions.insert("arithmetic".to_owned(), "3".into());
        std::fs::write(&path, state.to_string()).unwrap();
        let (output, printed) = continued(&dir, job);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        for word in ["global_step_3", "arithmetic version 3", "--fresh"] {
            assert!(printed.contains(word), "{printed}");
        }
    }
}
