//! Bad inputs and faults, one table: what happens, and the tests that show it. Numbers are those of the list the project
//! was given; 17 to 27 belong to a server and 38 to 40 to several machines.

mod bounds;
mod inputs;
mod parquet;
mod published;
mod ranks;
mod reading;
mod runs;
mod strangers;
mod verifier;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Number, fault, what happens, tests by name.
const FAULTS: &[(u8, &str, &str, &[&str])] = &[
    (
        1,
        "a safetensors header longer than the file",
        "error by file, nothing allocated",
        &["damaged_headers_are_errors"],
    ),
    (
        2,
        "offsets that overlap, holes, trailing bytes",
        "error: cut or overwritten",
        &["damaged_headers_are_errors", "faults_name_the_file_and_the_tensors"],
    ),
    (
        3,
        "shards missing, a tensor twice, a wrong total_size",
        "all named at once, before any weight is read",
        &["an_index_is_held_against_its_files"],
    ),
    (
        4,
        "another shape or type than the config's",
        "the first few, expected and found",
        &["a_wrong_shape_is_called_by_file_tensor_and_both_shapes", "sizes_are_those_of_the_weights"],
    ),
    (
        5,
        "tensors too many or missing, a tied lm_head",
        "error by name; a tied table's second name is implied",
        &["faults_name_the_file_and_the_tensors", "both_namings_hold_one_model"],
    ),
    (
        6,
        "config.json of another family, of absurd sizes, with code",
        "error with its JSON pointer",
        &["faults_name_the_pointer"],
    ),
    (
        7,
        "a vocabulary that is not the table's size",
        "rows beyond it are never sampled; one too small is refused",
        &["broken_tokenizers_are_refused_by_name", "a_model_that_does_not_fit_is_named"],
    ),
    (
        8,
        "truncated or broken pictures",
        "the row is named, left out and counted; too many end the run",
        &["broken_files_are_refused_by_name", "bad_rows_are_named_and_left_out_until_they_are_too_many"],
    ),
    (9, "a picture of 60000 x 60000 in 50 KB", "refused from its header", &["a_bomb_is_refused_from_its_header"]),
    (10, "16 bits, CMYK, palettes, alpha, animation, EXIF", "Pillow's pixels", &["decoding_is_pillows"]),
    (
        11,
        "pictures of 1 x 1, 1 x 10000 or no byte",
        "enlarged within a ratio of 200, else an error",
        &["the_smallest_pictures_are_enlarged_and_the_thinnest_refused", "broken_files_are_refused_by_name"],
    ),
    (
        12,
        "parquet: columns missing, wrong types, cut, bombs",
        "file, row group and row are named; bombs by what the footer declares",
        &["a_broken_parquet_file_is_named", "bombs_of_parquet_are_refused_or_read_in_bounded_memory"],
    ),
    (
        13,
        "JSONL: a mark, CRLF, blanks, bad UTF-8, endless lines, NaN",
        "line number; limits on length and values",
        &["faults_name_file_and_row", "a_row_of_too_many_values_is_refused_before_they_are_made"],
    ),
    (14, "`<image>` marks that are not as many as pictures", "the row is refused", &["faults_name_file_and_row"]),
    (
        15,
        "`../..`, absolute paths, links out of the folder; pipes",
        "refused, nothing opened",
        &["nothing_outside_the_folder_is_reached", "a_pipe_is_refused_at_once_and_so_is_a_device"],
    ),
    (
        16,
        "YAML: alias bombs, doubled keys, 1e-5, unknown keys",
        "error, error, a number, the nearest key",
        &[
            "duplicate_keys_bad_types_and_bad_values_are_refused",
            "exponents_are_numbers",
            "an_unknown_key_names_the_nearest_and_the_file",
            "an_alias_bomb_is_refused",
        ],
    ),
    (
        28,
        "NaN in weights, loss or gradients",
        "weights by tensor; no update is made",
        &["weights_that_are_no_numbers_are_named", "a_model_whose_logits_are_not_finite_has_no_score"],
    ),
    (
        29,
        "a spike of the loss or the gradients",
        "not acted on: max_grad_norm bounds the update, metrics.jsonl has grad_norm of each step, and a rule that skips would need a threshold nobody has measured",
        &[],
    ),
    (
        30,
        "rows of text beside pictures, rows without a target",
        "no division by zero, no hang",
        &["text_leaves_the_tower_alone", "the_loss_is_the_mean_over_all_targets_of_an_update"],
    ),
    (31, "equal rewards in a group", "advantage exactly 0", &["equal_rewards_give_exactly_zero", "dapo_pipeline"]),
    (
        32,
        "sampler and trainer differ",
        "one chain of sums gives both: the ratio is exactly 1; the difference is logged",
        &["on_policy_the_ratio_is_one_and_a_stopped_run_goes_on_with_the_same_bits", "rollout_probs_diff"],
    ),
    (
        33,
        "memory runs out",
        "counted before anything runs; an error with the keys to lower instead of a retry, so that bits never follow from free memory",
        &["less_memory_changes_what_is_kept_and_no_bit", "rl_takes_what_was_planned"],
    ),
    (
        34,
        "the disk is full",
        "the older checkpoint stays, temporaries go",
        &[
            "a_full_disk_is_a_clear_error_and_leaves_nothing",
            "a_disk_that_fills_up_keeps_the_older_checkpoints_and_the_run_goes_on_later",
        ],
    ),
    (
        35,
        "killed at any point",
        "goes on from the newest whole state with the same bits",
        &[
            "a_killed_run_repeats_the_steps_after_its_checkpoint",
            "leftovers_of_a_killed_run_are_cleared_and_never_taken_for_a_checkpoint",
        ],
    ),
    (
        36,
        "a verifier's input of 1 MB, nested, towers of powers",
        "a verdict in bounded work",
        &["hostile_texts_take_bounded_work", "any_text_is_judged"],
    ),
    (
        37,
        "teachers and judges that fail, hang or lie",
        "waits, then a record by item; a failed verdict is none",
        &[
            "a_judge_that_is_down_slow_or_talks_nonsense_leaves_the_rules",
            "a_server_that_hangs_lies_and_dies_is_asked_again_for_what_is_missing",
        ],
    ),
];

/// Names of the test functions in and below a folder.
fn tests(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for part in text.split("#[test]").skip(1) {
                let name = part.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_fault_has_its_tests_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    tests(&root.join("src"), &mut names);
    tests(&root.join("tests"), &mut names);
    tests(&root.join("verifier"), &mut names);
    let numbers: Vec<u8> = FAULTS.iter().map(|fault| fault.0).collect();
    assert_eq!(numbers, (1..=16).chain(28..=37).collect::<Vec<u8>>());
    for (number, fault, happens, shown) in FAULTS {
        let lost: Vec<&&str> = shown.iter().filter(|name| !names.contains(**name)).collect();
        assert!(lost.is_empty(), "{number}, {fault}: no test is called {lost:?}");
        // What no test shows is a decision, and says why.
        assert!(!shown.is_empty() || happens.len() > 80, "{number}, {fault}: neither a test nor a reason");
    }
}
