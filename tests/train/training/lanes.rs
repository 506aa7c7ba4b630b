//! Tests that the bits of a run depend on its number of gradient lanes, and not on the number of ranks or on the steps
//! at which it stops.

use omr_base::config::{RlConfig, SftConfig, TrainingConfig};

use super::tiny::{Outcome, device, rl_config, run_rl, run_rl_over, run_sft, run_sft_over, sft_config, training, with};

/// Tests that a run without the key has one lane, and that a run with two lanes has another sum, which is the same in
/// every run with two lanes.
#[test]
fn lanes_decide_the_bits_and_stops_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig {
        train_batch_size: None,
        packing_length: 128,
        micro_batch_tokens: 256.into(),
        gradient_accumulation_steps: 3,
        ..sft_config(dir.path())
    };
    let run = |name: &str, gradient_lanes, stops: &[u64]| {
        run_sft(&dir.path().join(name), &with(&config, |c| c.training.gradient_lanes = gradient_lanes), 1, stops)
    };
    let plain = run("plain", None, &[]);
    let model = |run: &Outcome| run.files["model/model.safetensors"].clone();
    assert!(model(&plain) == model(&run("one", Some(1), &[])), "a run without the key has one lane");
    let two = run("two", Some(2), &[]);
    two.assert_same(&run("again", Some(2), &[2]), "two lanes, stopped");
    let losses = [&plain, &two].map(|run| run.figures("loss"));
    assert_ne!(losses[0], losses[1], "two lanes are another sum");
}

#[test]
fn lanes_of_a_policy_update_hold_whole_groups() {
    let dir = tempfile::tempdir().unwrap();
    let config = rl_config(dir.path());
    let run = |name: &str, gradient_lanes, stops: &[u64]| {
        run_rl(&dir.path().join(name), &with(&config, |c| c.training.gradient_lanes = gradient_lanes), 1, stops)
    };
    let plain = run("plain", None, &[]);
    let three = run("three", Some(3), &[]);
    three.assert_same(&run("again", Some(3), &[2]), "three lanes, stopped");
    // The loss of the first update is a sum of the same terms. Its denominator does not depend on lanes.
    let first = [&plain, &three].map(|run| run.figures("actor/pg_loss")[0]);
    assert!((first[0] - first[1]).abs() < 1e-12, "{first:?}");
}

#[test]
fn any_number_of_ranks_has_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig {
        train_batch_size: None,
        packing_length: 128,
        gradient_accumulation_steps: 6,
        ..sft_config(dir.path())
    };
    let config = SftConfig {
        max_steps: Some(4),
        training: TrainingConfig { gradient_lanes: Some(4), ..config.training.clone() },
        ..config
    };
    let one = run_sft(&dir.path().join("one"), &config, 1, &[]);
    // Six ranks are more than the lanes, and in the last round of an update some ranks have no micro-batch.
    for (sizes, stops) in [(&[2][..], &[][..]), (&[3], &[]), (&[6], &[]), (&[4, 2, 3], &[1, 3])] {
        let name = format!("{sizes:?}");
        one.assert_same(&run_sft_over(&dir.path().join(&name), &config, || device(1), sizes, stops), &name);
    }
}

#[test]
fn any_number_of_ranks_learns_the_same_policy() {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.gradient_lanes = Some(3));
    let config = RlConfig { total_training_steps: Some(3), training, ..rl_config(dir.path()) };
    let one = run_rl(&dir.path().join("one"), &config, 1, &[]);
    for (sizes, stops) in [(&[2][..], &[][..]), (&[3, 1], &[1])] {
        let name = format!("{sizes:?}");
        one.assert_same(&run_rl_over(&dir.path().join(&name), &config, || device(1), sizes, stops), &name);
    }
}

/// Tests that lanes beyond the rows of an update are empty: they change nothing.
#[test]
fn lanes_without_rows_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = |lanes| SftConfig { training: training(|t| t.gradient_lanes = Some(lanes)), ..sft_config(dir.path()) };
    let model = |run: &Outcome| run.files["model/model.safetensors"].clone();
    let four = run_sft(&dir.path().join("4"), &config(4), 1, &[]);
    let nine = run_sft(&dir.path().join("9"), &config(9), 1, &[]);
    assert!(model(&four) == model(&nine) && four.figures("loss") == nine.figures("loss"));
    nine.assert_same(&run_sft_over(&dir.path().join("over"), &config(9), || device(1), &[3], &[]), "three ranks");
}
