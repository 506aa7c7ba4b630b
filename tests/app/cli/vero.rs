//! Runs the shipped configs of Vero on made rows of all reward types.

use std::fs;
use std::path::Path;

use omr_base_tests::reward::judge_server::Server;
use omr_model::nn::family::qwen3_vl;
use omr_train_tests::training::tiny;
use serde_json::{Value, json};

use super::training::run;

/// Reward types with a label each.
const ROWS: [(&str, &str); 12] = [
    ("string_match", "a red bridge"),
    ("counting", "3"),
    (" Search ", "left"),
    ("multiple_choice", "B"),
    ("numeric", "2.5"),
    ("list_string_match", "['cat', 'a cat']"),
    ("number_list", "[3, 1, 2]"),
    ("web_action", r#"{"ACTION": "CLICK", "MARK": 4, "VALUE": "None"}"#),
    ("grounding", r#"[{"bbox_2d": [1, 2, 30, 40]}]"#),
    ("clicking", r#"[{"bbox_2d": [1, 2, 30, 40]}]"#),
    ("llm_judge", "A bridge over a river."),
    // A name that Vero does not know.
    ("exact_match", "seven"),
];

/// Writes the rows and their image below `dir`, and returns the entry of the data set.
fn rows(dir: &Path) -> Value {
    image::RgbImage::from_fn(56, 56, |x, y| image::Rgb([x as u8, y as u8, 9])).save(dir.join("shot.png")).unwrap();
    let line = |(i, (kind, label)): (usize, &(&str, &str))| {
        json!({
            "id": format!("made-{i}"), "data_source": "made", "images": ["shot.png"],
            "ability": if i % 2 == 0 { "stem" } else { "chart_ocr" },
            "prompt": [{"role": "user", "content": "<image>What do you see?"}],
            "reward_model": {"style": "rule", "ground_truth": label},
            "extra_info": {"id": i.to_string(), "split": "train", "index": i, "question": "What do you see?",
                "answer": label, "reward_type": kind, "tolerance": (*kind == "numeric").then_some(0.01)},
        })
        .to_string()
            + "\n"
    };
    fs::write(dir.join("rows.jsonl"), ROWS.iter().enumerate().map(line).collect::<String>()).unwrap();
    json!([{"path": dir.join("rows.jsonl"), "data_folder": dir}])
}

/// Runs two steps of a config with a model of the family of `model`, and checks the metrics and the report.
fn two_steps(config: &str, model: &Path, lengths: &[&str]) {
    let (dir, judge) = (tempfile::tempdir().unwrap(), Server::start());
    let (rows, out) = (rows(dir.path()), dir.path().join("run"));
    let file = format!("{}/configs/vero/{config}.yaml", env!("CARGO_MANIFEST_DIR"));
    let overrides = [
        format!("model={}", model.display()),
        format!("train_files={rows}"),
        format!("val_files={rows}"),
        format!("judge.base_url={}", judge.base_url),
    ];
    let args = ["rl", &file, "--out", out.to_str().unwrap()];
    let more = ["train_batch_size=12", "ppo_mini_batch_size=6", "total_training_steps=2", "max_response_length=6"];
    let args = [&args[..], &overrides.each_ref().map(String::as_str), &more, lengths].concat();
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 0, "{config}: {stderr}");
    let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let steps: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> = steps.iter().filter(|step| step["step"] != 0).collect();
    assert_eq!(steps.len(), 2, "{lines}");
    for step in &steps {
        for (kind, _) in ROWS {
            assert_eq!(step[format!("reward/type/{}/count", kind.trim())], 8.0, "{kind}: {step}");
        }
        assert_eq!(
            (&step["reward/domain/stem/count"], &step["reward/domain/chart_ocr/count"]),
            (&json!(48.0), &json!(48.0))
        );
        assert_eq!(step["reward/judge/used"], 8.0, "{step}");
        let mean = |name: &str| step[format!("{name}/mean")].as_f64().unwrap();
        let all: f64 = ROWS.iter().map(|(kind, _)| mean(&format!("reward/type/{}", kind.trim()))).sum();
        assert!((all / 12.0 - (mean("reward/domain/stem") + mean("reward/domain/chart_ocr")) / 2.0).abs() < 1e-9);
        assert_eq!(step["training/rollout_probs_diff_max"], 0.0);
    }
    let (code, page, stderr) = run(&["report", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let page = fs::read_to_string(page.trim()).unwrap();
    for part in [
        "Reward type grounding",
        "Reward domain chart_ocr",
        "16 rollouts",
        "50.0 % of the prompts drawn, 50.0 % of those trained",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn configs_of_vero_train_rows_of_all_types() {
    let models = tempfile::tempdir().unwrap();
    let at = |name: &str| models.path().join(name);
    tiny::base_model(&at("qwen2_5_vl"));
    tiny::model_of(&qwen3_vl::FAMILY, &at("qwen3_vl"));
    two_steps("qwen2_5_vl", &at("qwen2_5_vl"), &[]);
    two_steps("mimo_vl", &at("qwen2_5_vl"), &[]);
    two_steps("qwen3_vl", &at("qwen3_vl"), &["overlong_buffer.len=4"]);
}

#[test]
fn a_late_row_whose_type_or_label_is_wrong_is_found_before_the_first_step() {
    let (models, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny::base_model(models.path());
    let rows = rows(dir.path());
    let file = dir.path().join("rl.yaml");
    fs::write(
        &file,
        json!({"model": models.path(), "train_files": rows, "train_batch_size": 4, "ppo_mini_batch_size": 4})
            .to_string(),
    )
    .unwrap();
    let start = |more: &[&str]| {
        let out = dir.path().join("run");
        let judge = ["judge.base_url=http://localhost:1/v1", "judge.model=judge"];
        run(&[&["rl", file.to_str().unwrap(), "--out", out.to_str().unwrap(), "--dry-run"], &judge[..], more].concat())
    };
    // Row 12 has a type that the strict rules do not know.
    let (code, _, stderr) = start(&[]);
    assert_eq!(code, 2, "{stderr}");
    for part in ["rows.jsonl row 12", "\"exact_match\"", "rewards: {exact_match: {command: [...]}}"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let (code, _, stderr) = start(&["max_bad_rows=0.1"]);
    assert!(code == 0 && stderr.contains("1 wrong_label"), "{stderr}");
    // A program scores the type, and the earlier start is not in the way.
    let (code, _, stderr) = start(&["rewards={exact_match: {command: [python3, docs/my_reward.py]}}"]);
    assert!(code == 0 && !stderr.contains("wrong_label"), "{stderr}");
}
