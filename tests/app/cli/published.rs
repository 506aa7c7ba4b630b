//! Tests the published recipe as users type it: the commands of docs/user/openmmreasoner.md, and two steps of each published
//! config on generated rows and the small model.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use omr_base_tests::golden;
use omr_data::rows::{Form, write};
use omr_data::task::TASKS;
use omr_train_tests::training::tiny;

use super::help::omr;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Config overrides that adapt each job to the small model and its rows.
const SFT: [&str; 4] =
    ["packing_length=256", "micro_batch_tokens=256", "gradient_accumulation_steps=2", "save_steps=2"];
const RL: [&str; 12] = [
    "train_batch_size=4",
    "ppo_mini_batch_size=4",
    "rollout.n=4",
    "rollout.max_num_seqs=32",
    "rollout.max_num_batched_tokens=256",
    "max_prompt_length=64",
    "max_response_length=24",
    "micro_batch_tokens=256",
    "save_freq=2",
    "val_max_samples=2",
    // The published system turn has more tokens than the prompts of these tests. tests/model/golden tests it.
    "train_files.0.system_prompt=Think.",
    "val_files.0.system_prompt=Think.",
];

/// Data files that the test creates: the files of the published RL set, and `llava_cot`, which the page also names.
const QUESTIONS: [&str; 10] = [
    "OpenMMReasoner-RL-74K/algopuzzle_train",
    "OpenMMReasoner-RL-74K/mmk12_train",
    "OpenMMReasoner-RL-74K/puzzlevqa_train",
    "OpenMMReasoner-RL-74K/thinklite_vl_hard_train",
    "OpenMMReasoner-RL-74K/tqa_train",
    "OpenMMReasoner-RL-74K/virl39k_train",
    "OpenMMReasoner-RL-74K/wemath_standard",
    "OpenMMReasoner-RL-74K/wemath_pro",
    "OpenMMReasoner-RL-74K/val",
    "llava_cot",
];

/// Creates a folder with the files that a reader of the page has.
fn desk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink(Path::new(ROOT).join("configs"), at("configs")).unwrap();
    for name in ["models", "data/OpenMMReasoner-RL-74K", "data/OpenMMReasoner-SFT-874K"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    tiny::base_model(&at("models/Qwen2.5-VL-7B-Instruct"));
    tiny::tuned_model(&at("models/OpenMMReasoner-ColdStart"));
    for name in [
        "runs/sft/model",
        "runs/rl/model",
        "runs/sft-qwen3/model",
        "runs/rl-qwen3/model",
        "models/Qwen3-VL-8B-Instruct",
    ] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        symlink(at("models/OpenMMReasoner-ColdStart"), at(name)).unwrap();
    }
    let rows = tiny::rows();
    write::write(&at("data/OpenMMReasoner-SFT-874K/rows.parquet"), &rows, Form::Sft).unwrap();
    write::write(&at("rows.parquet"), &rows, Form::Rl).unwrap();
    for name in QUESTIONS {
        fs::copy(at("rows.parquet"), at("data").join(format!("{name}.parquet"))).unwrap();
    }
    dir
}

/// Writes the files of the published tasks as `omr eval --data` reads them.
pub fn benchmarks(dir: &Path) {
    for folder in golden::entries(&golden::dir().join("eval"), "", "").into_iter().filter(|path| path.is_dir()) {
        let to = dir.join("data/benchmarks").join(folder.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        fs::copy(folder.join("data.parquet"), to.join("data.parquet")).unwrap();
    }
    // The same files as `omr eval --download` stores them.
    for (hub, name) in TASKS.iter().filter_map(|task| Some((task.hub?, task.name))) {
        let from = dir.join("data/benchmarks").join(name).join("data.parquet");
        let set = dir.join("data/benchmarks").join(hub.repo.rsplit('/').next().unwrap());
        let to = set.join(hub.config.unwrap_or("data")).join(format!("{}-00000-of-00001.parquet", hub.split[0]));
        if from.is_file() && !to.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }
}

/// Returns the contents of the blocks in `language` of a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    page.split(begin.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Runs `command` in `dir`. Returns its output.
fn typed(dir: &Path, variables: &[(&str, &str)], command: &str, more: &[&str], code: i32) -> String {
    let words = command.split(' ').skip(1).map(|word| word.trim_matches('\''));
    let output = omr().current_dir(dir).envs(variables.iter().copied()).args(words).args(more).output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command} {more:?}: {printed}");
    printed
}

#[test]
fn the_page_has_the_published_scores_of_the_program() {
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let page = read("docs/user/openmmreasoner.md").replace('†', "");
    for row in read("src/data/task/published.tsv").lines().skip(1) {
        let (model, scores) = row.split_once('\t').unwrap();
        let scores = format!(" | {} |", scores.replace('\t', " | "));
        assert!(
            page.lines().any(|line| line.starts_with(&format!("| {model} | ")) && line.ends_with(&scores)),
            "{row}"
        );
    }
}

#[test]
fn openmmreasoner_page_is_typed_as_it_stands() {
    let desk = desk();
    let dir = desk.path();
    benchmarks(dir);
    // The rows of AMC23 have the columns of AIME's.
    fs::create_dir_all(dir.join("data/benchmarks/amc23")).unwrap();
    let aime = dir.join("data/benchmarks/aime24_nofigures_agg8_reward/data.parquet");
    fs::copy(aime, dir.join("data/benchmarks/amc23/data.parquet")).unwrap();
    let page = fs::read_to_string(Path::new(ROOT).join("docs/user/openmmreasoner.md")).unwrap();
    for block in blocks(&page, "yaml") {
        let name = block.lines().next().unwrap().trim_start_matches("# ");
        fs::write(dir.join(name), block).unwrap();
    }
    let mut seen = 0;
    for block in blocks(&page, "sh") {
        let mut variables: Vec<(&str, &str)> = Vec::new();
        for line in block.lines() {
            if let Some(set) = line.strip_prefix("export ") {
                variables.extend(set.split(' ').filter_map(|word| word.split_once('=')));
                continue;
            }
            // Joins the parts of a file that was downloaded.
            if line.starts_with("cat ") {
                continue;
            }
            // A launcher's prefix is cut off, and `--gpus 8` becomes `--gpus 2`.
            let command =
                &line[line.find("omr ").unwrap_or_else(|| panic!("{line}"))..].replace("--gpus 8", "--gpus 2");
            let job = command.split(' ').take(3).collect::<Vec<_>>();
            let judge = !variables.is_empty();
            seen += 1;
            match job[1..] {
                ["download", _] => {
                    let printed = typed(dir, &[("HF_HUB_OFFLINE", "1")], command, &[], 2);
                    let repo = job[2].trim_start_matches("datasets/");
                    let known = ["OpenMMReasoner", "Qwen", repo].iter().any(|name| printed.contains(name));
                    assert!(printed.contains("HF_HUB_OFFLINE") && known, "{printed}");
                }
                ["data", "inspect"] => assert!(typed(dir, &[], command, &[], 0).contains("inspect.html")),
                ["data", _] => {
                    assert!(typed(dir, &[], command, &["--dry-run"], 0).contains(job[2].trim_end_matches("run")))
                }
                ["sft", _] => {
                    let new = command.replace("--out runs/", "--out new/");
                    let printed = typed(dir, &[], &new, &[&["--dry-run"], &SFT[1..]].concat(), 0);
                    assert!(printed.contains("sft: 4300 updates") && printed.contains("memory"), "{printed}");
                }
                ["rl", _] => {
                    let more: &[&str] = if command.contains("rl-dapo") { &["gen_batch_size=12"] } else { &[] };
                    let lanes =
                        command.replace("gradient_lanes=64", "gradient_lanes=4").replace("--out runs/", "--out new/");
                    let printed = typed(dir, &variables, &lanes, &[&["--dry-run"], &RL[..], more].concat(), 0);
                    // 15 passes over 8 files of 12 rows.
                    let steps = if more.is_empty() { "rl: 360 steps" } else { "rl: 120 steps" };
                    assert!(printed.contains(steps) && printed.contains("over 96 questions"), "{printed}");
                    assert_eq!(printed.contains("judge judge at http://127.0.0.1:8000"), judge, "{printed}");
                }
                ["eval", "--download"] => {
                    let printed = typed(dir, &[("HF_HUB_OFFLINE", "1")], command, &[], 2);
                    assert!(printed.contains("HF_HUB_OFFLINE"), "{printed}");
                }
                ["eval", _] => {
                    let small = ["--dry-run", "--limit", "1", "max_new_tokens=8", "max_num_seqs=4"];
                    let printed = typed(dir, &variables, command, &small, 0);
                    // Without `--tasks`, those of eval.yaml.
                    let tasks = command.split_once("--tasks ").map_or(15, |(_, tasks)| tasks.split(',').count());
                    let tasks = tasks + usize::from(command.contains("aime_agg8"));
                    assert_eq!(printed.matches("eval: 1 questions of ").count(), tasks, "{printed}");
                    assert_eq!(printed.contains("judge judge at http://127.0.0.1:8000"), judge, "{printed}");
                }
                // A plan of these sizes takes many seconds. `tools/pages --check` parses the commands.
                ["plan", _] => {}
                _ => panic!("nothing is known of {command}"),
            }
        }
    }
    assert!(seen > 20, "{seen} commands");
}

#[test]
fn two_steps_of_each_published_config() {
    let desk = desk();
    let dir = desk.path();
    let run = |command: &str, more: &[&str]| typed(dir, &[], &format!("omr --quiet {command}"), more, 0);
    let rl = |name: &str, more: &[&str]| {
        let steps = ["rollout.n=16", "total_training_steps=2", "test_freq=2"];
        let command = format!("rl configs/openmmreasoner-7b/{name}.yaml --out runs/of-{name}");
        run(&command, &[&RL[..], &steps, more].concat());
        let figures = fs::read_to_string(dir.join(format!("runs/of-{name}/metrics.jsonl"))).unwrap();
        assert_eq!(figures.lines().count(), 2, "{name}: {figures}");
        assert!(figures.contains("val-core/"), "{name}: {figures}");
        // One update per batch: clipping has no effect with any preset.
        assert!(figures.contains("\"actor/pg_clipfrac\":0.0") && figures.contains("probs_diff_max\":0.0"), "{figures}");
    };
    run("sft configs/openmmreasoner-7b/sft.yaml --out runs/of-sft", &[&SFT[..], &["max_steps=2"]].concat());
    assert!(dir.join("runs/of-sft/model/model.safetensors").is_file());
    rl("rl", &[]);
    rl("rl-grpo", &[]);
    rl("rl-dapo", &["gen_batch_size=8", "filter_groups.max_num_gen_batches=0"]);

    let of = |part: &str, keys: &[&str]| keys.iter().map(|key| format!("{part}.{key}")).collect::<Vec<_>>();
    let (sft, rl) = (of("sft", &SFT), of("rl", &RL));
    let sizes =
        ["sft.max_steps=2", "rl.total_training_steps=2", "rl.test_freq=2", "eval.limit=2", "eval.max_new_tokens=8"];
    let keys: Vec<&str> = sft.iter().chain(&rl).map(String::as_str).chain(sizes).collect();
    // Only one of the fifteen columns has its files.
    let tasks: PathBuf = dir.join("data/benchmarks/logicvista_thinking");
    fs::create_dir_all(&tasks).unwrap();
    fs::copy(golden::dir().join("eval/logicvista_thinking/data.parquet"), tasks.join("data.parquet")).unwrap();
    let printed = typed(dir, &[], "omr recipe configs/openmmreasoner-7b/recipe.yaml --out runs/of-recipe", &keys, 0);
    assert!(printed.contains("1 of 15") && printed.matches(" is left out: ").count() == 14, "{printed}");
    for name in ["sft/model", "rl/model", "eval/rl/summary.json", "eval/rl/tasks/samples.jsonl", "report.html"] {
        assert!(dir.join("runs/of-recipe").join(name).exists(), "{name}");
    }
    let summary = fs::read_to_string(dir.join("runs/of-recipe/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    for stage in ["base", "sft", "rl"] {
        let column = &summary["tasks"][stage]["logicvista_thinking"];
        assert!(column["n"] == 2 && column["published_omr_7b"].is_null(), "{summary}");
    }
    let page = fs::read_to_string(dir.join("runs/of-recipe/report.html")).unwrap();
    for part in ["Scores by task", "<th scope=\"col\">rl, rules</th>", "logicvista_thinking</th>"] {
        assert!(page.contains(part), "{part}");
    }
    // A published figure stands only beside a result on all questions.
    assert!(!page.contains("OMR-7B, published</th>"));
    let small = ["--limit", "2", "--tasks", "logicvista_thinking", "max_new_tokens=8"];
    let eval = "eval --config configs/openmmreasoner-7b/eval.yaml --model runs/of-rl/model --data data/benchmarks --out runs/of-eval";
    assert!(run(eval, &small).contains("summary.json"));
}
