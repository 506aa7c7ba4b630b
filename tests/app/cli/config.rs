//! Tests reading and printing configs from the command line.

use std::fs;

use serde_json::Value;

use super::help::omr;
use super::training::failure;

fn run(args: &[&str]) -> (i32, String, String) {
    let output = omr().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn print_config_writes_yaml_that_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.yaml"), "datasets: [{path: rows.parquet}]\nnum_rollouts: 3\n").unwrap();
    let args = ["data", "distill", &path("a.yaml"), "--out", &path("out"), "--print-config", "mode=compat"];
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("num_rollouts: 3\n") && stdout.contains("mode: compat\n"), "{stdout}");
    assert!(!dir.path().join("out").exists(), "nothing but printing");
    fs::write(path("b.yaml"), &stdout).unwrap();
    let (code, again, _) = run(&["data", "distill", &path("b.yaml"), "--out", &path("out"), "--print-config"]);
    assert_eq!((code, again), (0, stdout));
}

#[test]
fn a_wrong_config_is_one_line_that_names_file_key_and_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml").to_str().unwrap().to_owned();
    let out = dir.path().join("out").to_str().unwrap().to_owned();
    let cases = [
        ("num_rolouts: 3\n", vec!["a.yaml: num_rolouts", "did you mean num_rollouts?"]),
        ("num_rollouts: three\n", vec!["a.yaml: num_rollouts", "found three", "whole number"]),
        ("num_rollouts: 0\n", vec!["found 0", "a number from 1"]),
        ("mode: strickt\n", vec!["did you mean strict?"]),
        ("num_rollouts: 3\nnum_rollouts: 4\n", vec!["a.yaml", "duplicate"]),
        ("datasets: [\n", vec!["a.yaml"]),
    ];
    for (text, parts) in cases {
        fs::write(&file, text).unwrap();
        let (code, stdout, stderr) = run(&["data", "distill", &file, "--out", &out]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{text}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{text}: {stderr}");
        parts.iter().for_each(|part| assert!(stderr.contains(part), "{text}: {part} is not in {stderr}"));
    }
    let (code, _, stderr) = run(&["data", "distill", "no/such.yaml", "--out", &out]);
    assert!(code == 2 && stderr.contains("no/such.yaml"), "{stderr}");
    fs::write(&file, "num_rollouts: 3\n").unwrap();
    let (code, _, stderr) = run(&["data", "distill", &file, "--out", &out, "num_rollouts"]);
    assert!(code == 2 && stderr.contains("key=value"), "{stderr}");
    assert!(!dir.path().join("out").exists(), "a refused command leaves nothing behind");
}

#[test]
fn counts_that_no_machine_can_hold_name_their_limit() {
    let sft = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/sft.yaml");
    for (key, value, expected) in [
        ("micro_batch_tokens", "1099511627776", "from 1 to 1048576"),
        ("gradient_lanes", "2147483648", "from 1 to 4096"),
        ("save_total_limit", "9223372036854775808", "0 to 2^40"),
    ] {
        failure(&["plan", sft, &format!("{key}={value}")], 2, &[&format!("{key}: found {value}"), expected]);
    }
}

/// True if `value` satisfies `schema`, for the keywords that `omr config --schema` writes. Any other keyword panics.
fn satisfies(schema: &Value, value: &Value) -> bool {
    let is_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let number = |holds: &dyn Fn(f64) -> bool| value.as_f64().is_none_or(holds);
    schema.as_object().unwrap().iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" => true,
        "type" => rule.as_array().map_or_else(|| is_type(rule), |types| types.iter().any(is_type)),
        "anyOf" => rule.as_array().unwrap().iter().any(|one| satisfies(one, value)),
        "enum" => rule.as_array().unwrap().contains(value),
        "const" => rule == value,
        "items" => value.as_array().is_none_or(|list| list.iter().all(|entry| satisfies(rule, entry))),
        "properties" => rule
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, rule)| value.get(name).is_none_or(|value| satisfies(rule, value))),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let is_known = |name: &str| schema.get("properties").is_some_and(|known| known.get(name).is_some());
            map.iter().all(|(name, value)| is_known(name) || *rule != false && satisfies(rule, value))
        }),
        "minimum" => number(&|n| n >= rule.as_f64().unwrap()),
        "maximum" => number(&|n| n <= rule.as_f64().unwrap()),
        "exclusiveMinimum" => number(&|n| n > rule.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap()),
        "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
        other => panic!("{other}"),
    })
}

#[test]
fn the_schema_accepts_the_configs_that_omr_accepts_and_no_misspelt_key() {
    let schema = |kind: &str| serde_json::from_str::<Value>(&run(&["config", "--schema", kind]).1).unwrap();
    let yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    for (kind, file) in [
        ("recipe", "configs/digits.yaml"),
        ("recipe", "configs/charts.yaml"),
        ("sft", "configs/openmmreasoner-7b/sft.yaml"),
        ("rl", "configs/openmmreasoner-7b/rl.yaml"),
        ("sft", "docs/tutorial/sft.yaml"),
        ("rl", "docs/tutorial/rl.yaml"),
    ] {
        let text = fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(satisfies(&schema(kind), &yaml(&text)), "{file}");
    }
    // The defaults, as each command prints them.
    for args in [&["generate", "--model", "x", "--print-config"][..], &["serve", "x", "--print-config"]] {
        assert!(satisfies(&schema(args[0]), &yaml(&run(args).1)), "{args:?}");
    }
    let rl = schema("rl");
    for text in [
        "rollout: {n: 4}",
        "train_files: rows.jsonl",
        "train_files: [{path: a, limit: 3}]",
        "dtype: bfloat16",
        "lora: null",
    ] {
        assert!(satisfies(&rl, &yaml(text)), "{text}");
    }
    for text in [
        "rolout: {n: 4}",
        "rollout: {m: 4}",
        "seed: x",
        "rollout: {n: 0}",
        "dtype: float16",
        "train_files: [{limit: 0}]",
        "shuffle: yes please",
    ] {
        assert!(!satisfies(&rl, &yaml(text)), "{text}");
    }
    assert_eq!(rl["properties"]["rollout"]["properties"]["n"]["default"], 8);
    assert!(rl["properties"]["seed"]["description"].as_str().unwrap().starts_with("Seed "));
}
