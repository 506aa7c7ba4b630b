//! Tests that checkpoints with changed files are named and never used for training. The run continues from the previous
//! checkpoint and ends with the same bits as a run without damage.

use std::fs;
use std::path::Path;

use omr_base::config::SftConfig;
use omr_base::error::Result;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use serde_json::{Map, Value};

use super::tiny::{Notes, Outcome, device, files, run_sft, sft_config, with};

/// Continues the run in `dir`. Returns its result and its notes.
fn resume(dir: &Path, config: &SftConfig) -> (Result<()>, String) {
    let notes = Notes::default();
    let done = SftJob::new(dir, config.clone()).unwrap().run(&mut device(1), &notes);
    (done, notes.0.into_inner().unwrap().join("\n"))
}

/// Changes the folder to its state after a kill just after the last checkpoint.
fn unfinish(dir: &Path) {
    fs::remove_dir_all(dir.join("model")).unwrap();
    fs::remove_file(dir.join("summary.json")).unwrap();
}

/// Changes the checkpoint to the format of an older version.
pub fn forget_versions(checkpoint: &Path) {
    let path = checkpoint.join("trainer/state.json");
    let mut state: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state.remove("inputs");
    state["versions"].as_object_mut().unwrap().remove("record");
    fs::write(path, serde_json::to_vec(&state).unwrap()).unwrap();
}

fn four_steps(dir: &Path) -> SftConfig {
    SftConfig { max_steps: Some(4), save_steps: Some(1), ..sft_config(dir) }
}

#[test]
fn one_bit_in_any_file_is_seen_and_the_checkpoint_before_taken() {
    let dir = tempfile::tempdir().unwrap();
    let config = four_steps(dir.path());
    let out = dir.path().join("out");
    let whole = run_sft(&out, &config, 1, &[]);
    let newest = out.join("checkpoints/global_step_4");
    for (i, name) in files(&newest).into_keys().enumerate() {
        unfinish(&out);
        let path = newest.join(&name);
        let mut bytes = fs::read(&path).unwrap();
        // Each file has the damage at another position: in a header, between tensors, in the last tensor.
        let bit = 8 * bytes.len() * i / files(&newest).len() + i;
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let (done, printed) = resume(&out, &config);
        done.unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[0].starts_with("skipped a damaged checkpoint: "), "{name}: {printed}");
        assert!(lines[0].contains(newest.to_str().unwrap()), "{name}: {printed}");
        if name != "MANIFEST" {
            assert!(lines[0].contains(&name), "{name}: {printed}");
        }
        let aside = format!("a later checkpoint was moved to {}.{}", newest.display(), i + 1);
        assert!(lines[1] == aside && lines[2] == "continuing from step 3 of 4", "{printed}");
        whole.assert_same(&Outcome::of(&out), &name);
    }
}

#[test]
fn a_cut_file_of_the_newest_or_of_one_without_a_manifest_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = four_steps(dir.path());
    let out = dir.path().join("out");
    let whole = run_sft(&out, &config, 1, &[]);
    let at = |step: u64| out.join(format!("checkpoints/global_step_{step}"));
    let weights = "trainer/optim-00001-of-00001.safetensors";
    for with_manifest in [true, false] {
        unfinish(&out);
        for step in [3, 4] {
            let bytes = fs::read(at(step).join(weights)).unwrap();
            fs::write(at(step).join(weights), &bytes[..bytes.len() / 2]).unwrap();
        }
        if !with_manifest {
            // In the format of versions that wrote no manifest.
            for step in 2..=4 {
                fs::remove_file(at(step).join("MANIFEST")).unwrap();
                forget_versions(&at(step));
            }
        }
        let (done, printed) = resume(&out, &config);
        done.unwrap();
        assert!(printed.contains("continuing from step 2 of 4"), "{printed}");
        for step in [3, 4] {
            assert!(printed.contains(&format!("checkpoint: {}", at(step).join(weights).display())), "{printed}");
        }
        assert_eq!(printed.contains("has no MANIFEST"), !with_manifest, "{printed}");
        whole.assert_same(&Outcome::of(&out), "cut");
    }
}

#[test]
fn none_that_is_whole_is_an_error_and_an_older_one_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = four_steps(dir.path());
    let out = dir.path().join("out");
    let whole = run_sft(&out, &config, 1, &[]);
    unfinish(&out);
    let at = |step: u64| out.join(format!("checkpoints/global_step_{step}"));
    let older = with(&config, |c| c.training.resume = at(2).to_str().unwrap().to_owned());
    let (done, printed) = resume(&out, &older);
    done.unwrap();
    assert!(printed.contains("global_step_3.1") && printed.contains("global_step_4.1"), "{printed}");
    whole.assert_same(&Outcome::of(&out), "from an older step");

    unfinish(&out);
    for step in [2, 3, 4] {
        fs::write(at(step).join("config.json"), "{}").unwrap();
    }
    let before = files(&out);
    for config in [&config, &older] {
        let error = resume(&out, config).0.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("global_step_2/config.json"), "{error}");
        assert!(files(&out) == before, "files were changed");
    }
}
