//! Tests runs that older versions started. The current program continues a run of the same arithmetic and ends it with the
//! same bits as the older program. It refuses a run of an older arithmetic by name.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::help::omr;

/// sha256 of the weights that the program that introduced version 5 of the arithmetic computed in each of two runs of six
/// steps. The archive has the same runs, killed after their third step.
const MODELS: [(&str, &str); 2] = [
    ("sft", "ddc7e783f733e689fcb9037aedda754b919a292aea14f8bb3a9311bf8d750031"),
    ("rl", "f6c8a0c9200093455beb0e877962efedbea51b7bd74d5567af98092d147088d1"),
];

/// Unpacks the two runs.
fn runs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/app/cli/older/arithmetic-5.tgz");
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success());
    dir
}

fn continued(dir: &TempDir, job: &str) -> (Output, String) {
    let config = format!("{job}.yaml");
    let output = omr().current_dir(dir).args([job, &config, "--out", job, "--threads", "2"]).output().unwrap();
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
        let weights = std::fs::read(dir.path().join(job).join("model/model.safetensors")).unwrap();
        let found: String = Sha256::digest(weights).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{job}: {printed}");
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
