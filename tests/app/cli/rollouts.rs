//! Compares the rollouts that TRL and verl wrote with `omr score --logprobs`, as they are and with a fault of each kind
//! (`tests/goldens/rollouts`, recorded by its `record.py`).

use std::fs;
use std::path::Path;

use omr_base_tests::golden;
use serde_json::{Value, json};

use super::training::{failure, run};

/// The model of the recorded rollouts, and a file with rows.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let texts = golden::dir().join("rollouts/texts.jsonl");
        let like = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits.yaml");
        let (code, _, stderr) =
            run(&["init", "--like", like, "--rows", texts.to_str().unwrap(), "--out", &folder.at("base")]);
        assert_eq!(code, 0, "{stderr}");
        folder
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns what the program says about these rows, and its lines. `status` is the exit status.
    fn score(&self, rows: &[Value], keys: &[&str], status: i32) -> (String, Vec<Value>) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(self.at("rows.jsonl"), text).unwrap();
        let (rows, base) = (self.at("rows.jsonl"), self.at("base"));
        let (code, out, err) = run(&[&["score", "--logprobs", &rows, "--model", &base, "dtype=f32"], keys].concat());
        assert_eq!(code, status, "{err}");
        (err, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn named(&self, rows: &[Value], fault: &str) {
        let (said, _) = self.score(rows, &[], 1);
        assert!(said.contains("do not agree: likely fault") && said.contains(fault), "{fault}: {said}");
    }
}

fn recorded(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(golden::dir().join("rollouts").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the rows after `change` has changed each one.
fn changed(rows: &[Value], change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut rows = rows.to_vec();
    rows.iter_mut().for_each(change);
    rows
}

#[test]
fn rollouts_of_trl_and_verl_agree_and_each_planted_fault_is_named() {
    let folder = Folder::new();
    let faults: Value =
        serde_json::from_slice(&fs::read(Path::new(&golden::dir()).join("rollouts/faults.json")).unwrap()).unwrap();
    for (file, ids, logprobs) in
        [("trl.jsonl", "prompt_ids", "old_per_token_logps"), ("verl.jsonl", "prompts", "rollout_log_probs")]
    {
        let rows = recorded(file);
        let (said, lines) = folder.score(&rows, &[], 0);
        // f32 in another order of sums: transformers' own variation on this model is below 1e-5.
        let largest = lines.iter().map(|line| line["logprobs_diff_max"].as_f64().unwrap()).fold(0.0, f64::max);
        assert!(largest < 1e-5, "{file}: {largest}");
        assert!(said.contains("4 rows") && said.contains("agree within the rounding of float32"), "{said}");

        for (fault, of_rows) in faults.as_object().unwrap() {
            let mut rows = rows.clone();
            rows.iter_mut().zip(of_rows.as_array().unwrap()).for_each(|(row, values)| row[logprobs] = values.clone());
            folder.named(&rows, fault);
            if fault == "another temperature" {
                folder.named(&rows, "fit temperature 0.7, and not 1");
                folder.score(&rows, &["temperature=0.7"], 0);
            }
        }

        let is_image = |id: &Value| *id == rows[0][ids][image_place(&rows[0][ids])];
        let of_ids = |change: &dyn Fn(Vec<Value>) -> Vec<Value>| {
            changed(&rows, |row| row[ids] = Value::from(change(row[ids].as_array().unwrap().clone())))
        };
        let without = |list: Vec<Value>| list.into_iter().filter(|id| !is_image(id)).collect();
        folder.named(&of_ids(&without), "images missing");
        let twice = |list: Vec<Value>| {
            list.into_iter().flat_map(|id| vec![id.clone(); 1 + usize::from(is_image(&id))]).collect()
        };
        folder.named(&of_ids(&twice), "images doubled");
        let fewer = |mut list: Vec<Value>| {
            list.remove(list.iter().position(is_image).unwrap());
            list
        };
        folder.named(&of_ids(&fewer), "another grid");
        folder.named(&changed(&rows, |row| row["image_grid_thw"] = json!([[1, 2, 2]])), "another grid");
        let other = |mut list: Vec<Value>| {
            list.remove(0);
            list
        };
        folder.named(&of_ids(&other), "another template");
    }
}

#[test]
fn a_fault_of_one_image_in_one_row_is_named_with_its_row() {
    let folder = Folder::new();
    let rows = recorded("images.jsonl");
    folder.score(&rows, &[], 0);
    let faults = golden::json(&golden::dir().join("rollouts/images_faults.json"));
    for (fault, logprobs) in faults.as_object().unwrap() {
        let mut rows = rows.clone();
        rows[2]["old_per_token_logps"] = logprobs.clone();
        let (said, lines) = folder.score(&rows, &[], 1);
        let fault = fault.split(':').next().unwrap();
        assert!(said.contains(&format!("likely fault in 1 of 4 rows, first in row 3: {fault}")), "{fault}: {said}");
        let named: Vec<bool> = lines.iter().map(|line| line["fault"].is_string()).collect();
        assert_eq!(named, [false, false, true, false], "{fault}");
    }
}

#[test]
fn another_model_is_not_taken_for_a_fault_of_the_rollouts() {
    let folder = Folder::new();
    let rows = changed(&recorded("images.jsonl"), |row| {
        let logprobs = row["old_per_token_logps"].as_array_mut().unwrap();
        logprobs.reverse();
    });
    let (said, _) = folder.score(&rows, &[], 1);
    assert!(
        said.contains(
            "none of the known faults explains the differences in 4 of 4 rows: another model, adapter or weights?"
        ),
        "{said}"
    );
}

/// Returns the index of the first image placeholder: the id that occurs most often.
fn image_place(ids: &Value) -> usize {
    let ids = ids.as_array().unwrap();
    let count = |id: &Value| ids.iter().filter(|other| *other == id).count();
    (0..ids.len()).max_by_key(|&i| count(&ids[i])).unwrap()
}

#[test]
fn recorded_fields_that_do_not_fit_are_refused_by_line_and_name() {
    let folder = Folder::new();
    let rows = recorded("trl.jsonl");
    for (change, parts) in [
        (json!({"old_per_token_logps": [-1.0]}), ["old_per_token_logps", "1 numbers"]),
        (json!({"old_per_token_logps": "x"}), ["old_per_token_logps", "a list of numbers"]),
        (json!({"prompt_ids": [-1]}), ["prompt_ids", "a list of token ids"]),
        (json!({"image_grid_thw": [[1, 2]]}), ["image_grid_thw", "[time, height, width]"]),
        (json!({"completion_ids": []}), ["token_ids", "no tokens"]),
        (json!({"logprobs": [-1.0]}), ["logprobs", "old_per_token_logps"]),
        (json!({"old_per_token_logps": vec![0.5; 12]}), ["old_per_token_logps", "at most 0"]),
        (json!({"completion_ids": vec![5; 100_000]}), ["tokens of prompt and response", "max_position_embeddings"]),
    ] {
        let mut row = rows[1].clone();
        change.as_object().unwrap().iter().for_each(|(name, value)| row[name] = value.clone());
        fs::write(folder.at("rows.jsonl"), format!("{}\n{row}\n", rows[0])).unwrap();
        let args = ["score", "--logprobs", &folder.at("rows.jsonl"), "--model", &folder.at("base"), "dtype=f32"];
        failure(&args, 2, &[&["line 2"], &parts[..]].concat());
    }
}
