//! Tests runs that older versions started. The current program continues these runs and ends them with the same bits as
//! the older program.

use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use super::help::omr;

/// sha256 of the weights that the program of commit f39fb6d computed in each of two runs of six steps. The archive
/// contains the same runs, which were killed after their third step.
const MODELS: [(&str, &str); 2] = [
    ("sft", "6be4ab8d04f4dffce6d68cb9a23cec59c33fd94ec239f1cbf5ada4fc02383dd9"),
    ("rl", "ee71cea2a5c215391a293da0351f7c449906cadda4b242e5ee35f70c03e93181"),
];

#[test]
fn runs_of_an_older_version_end_with_its_bits() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/older/f39fb6d.tgz");
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success());
    for (job, expected) in MODELS {
        let config = format!("{job}.yaml");
        let output = omr().current_dir(&dir).args([job, &config, "--out", job, "--threads", "2"]).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{printed}");
        let warnings: Vec<&str> = printed.lines().filter(|line| line.contains("older version")).collect();
        assert_eq!(warnings.len(), 1, "{printed}");
        assert!(!printed.contains("the checkpoint comes from a run with other settings"), "{printed}");
        let weights = std::fs::read(dir.path().join(job).join("model/model.safetensors")).unwrap();
        let found: String = Sha256::digest(weights).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{job}: {printed}");
    }
}
