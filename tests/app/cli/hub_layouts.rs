//! Tests of the published configs on folders as the Hugging Face hub has them. `tools/hub-layouts` writes
//! `tests/data/rows/layouts/hub.zip` with the code of `datasets`.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use omr_base_tests::reward::judge_server::Server;
use omr_data::rows::{Form, Row, write};
use omr_data::text::Message;
use omr_train_tests::training::tiny;
use serde_json::json;
use zip::ZipArchive;

use super::help::omr;
use super::published::benchmarks;
use crate::serve::program::png;

const HUB: &[u8] = include_bytes!("../../data/rows/layouts/hub.zip");
const SETS: [(&str, &str); 2] = [("sft", "data/OpenMMReasoner-SFT-874K"), ("rl", "data/OpenMMReasoner-RL-74K")];

/// Runs omr in `dir`. Returns the exit status, and stdout with stderr.
fn run(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = omr().current_dir(dir).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text.into_owned())
}

/// Creates a folder with the published configs, models, and the data sets `sft{suffix}` and `rl{suffix}` with images.
fn desk(suffix: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink(omr_base_tests::root().join("configs"), at("configs")).unwrap();
    for name in ["models/Qwen2.5-VL-7B-Instruct", "models/OpenMMReasoner-ColdStart"] {
        fs::create_dir_all(at(name)).unwrap();
        tiny::base_model(&at(name));
    }
    ZipArchive::new(Cursor::new(HUB)).unwrap().extract(at("hub")).unwrap();
    fs::create_dir(at("data")).unwrap();
    let names = "llava_cot OpenVLThinker-sft-iter3 WeMath mmr1 m1_sft algopuzzle mmk12 thinklite_vl_hard tqa_train virl39k \
        wemath_standard wemath_pro val first Second third unused";
    for (set, to) in SETS {
        fs::rename(at(&format!("hub/{set}{suffix}")), at(to)).unwrap();
        fs::create_dir(at(to).join("images")).unwrap();
        names.split(' ').for_each(|name| fs::write(at(to).join(format!("images/{name}.png")), png(1)).unwrap());
    }
    dir
}

/// Moves each `NAME/train*` of the data sets to `NAME_train*` or `NAME*`, as a person might lay out the files.
fn as_files(dir: &Path) {
    for (_, set) in SETS {
        fs::remove_file(dir.join(set).join("README.md")).unwrap();
        let folders = fs::read_dir(dir.join(set)).unwrap().map(|entry| entry.unwrap().path());
        for folder in folders.filter(|path| !path.ends_with("images")).collect::<Vec<PathBuf>>() {
            for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = file.file_name().unwrap().to_str().unwrap().to_owned();
                let shard = if name.ends_with("-00001.parquet") { ".parquet" } else { &name["train".len()..] };
                let train = if folder.ends_with("virl39k") { "_train" } else { "" };
                fs::rename(&file, format!("{}{train}{shard}", folder.display())).unwrap();
            }
            fs::remove_dir(folder).unwrap();
        }
    }
}

/// Returns the exit status and the output of a dry run of a published config.
fn dry(dir: &Path, job: &str) -> (i32, String) {
    let sft = ["packing_length=1024", "micro_batch_tokens=1024", "gradient_accumulation_steps=2", "gradient_lanes=2"];
    let rl = ["train_batch_size=4", "ppo_mini_batch_size=4", "gradient_lanes=4", "max_prompt_length=512"];
    let more = if job == "sft" { sft } else { rl };
    let config = format!("configs/openmmreasoner-7b/{job}.yaml");
    let limits = ["max_response_length=64", "micro_batch_tokens=1024", "rollout.max_num_batched_tokens=1024"];
    let limits: &[&str] = if job == "sft" { &[] } else { &limits };
    run(dir, &[&[job, &config, "--out", "runs/x", "--dry-run"], &more[..], limits].concat())
}

#[test]
fn the_published_configs_find_their_rows_in_each_layout_of_the_hub() {
    // With other names, the seven configurations of RL and all three of SFT are still found.
    for (suffix, by_hand, rows) in [("", false, 15), ("", true, 15), ("_other", false, 9)] {
        let desk = desk(suffix);
        let dir = desk.path();
        if by_hand {
            as_files(dir);
        }
        for (job, count) in [("sft", rows), ("rl", 21)] {
            let (code, printed) = dry(dir, job);
            let what = format!("{suffix} {by_hand} {job}: {printed}");
            assert!(code == 0 && printed.contains(&format!("read {count} rows: {count} images")), "{what}");
            assert!(job == "sft" || printed.contains("3 questions (3 of data/OpenMMReasoner-RL-74K)"), "{what}");
        }
        // A missing image is that of three rows, and more than max_bad_rows allows.
        let missing = if suffix.is_empty() { ["mmr1", "tqa_train"] } else { ["third", "tqa_train"] };
        for ((job, set), name) in SETS.into_iter().zip(missing) {
            fs::remove_file(dir.join(set).join(format!("images/{name}.png"))).unwrap();
            let (code, printed) = dry(dir, job);
            assert!(code == 2 && printed.contains(&format!("images/{name}.png (no such file")), "{job}: {printed}");
        }
    }
}

#[test]
fn a_name_or_pattern_that_matches_nothing_lists_the_folder_instead_of_a_download() {
    let desk = desk("");
    let dir = desk.path();
    let of = |value: &str| {
        let set = format!("train_files={value}");
        let args = ["rl", "configs/openmmreasoner-7b/rl.yaml", "--out", "runs/x", "--dry-run", &set];
        let (code, printed) = run(dir, &args);
        assert!(code == 2 && !printed.contains("omr download"), "{printed}");
        printed
    };
    let printed = of("[{path: data/OpenMMReasoner-RL-74K, name: mkk12}]");
    assert!(printed.contains("name: found mkk12, expected one of algopuzzle, mmk12, thinklite"), "{printed}");
    let printed = of("[data/OpenMMReasoner-RL-74K/**/mmk12*.parquet]");
    assert!(
        printed.contains("train_files[0].path: data/OpenMMReasoner-RL-74K/**/mmk12*.parquet: found no"),
        "{printed}"
    );
    assert!(printed.contains("the folder data/OpenMMReasoner-RL-74K has algopuzzle/train-00000-of"), "{printed}");
    let printed = of("[{path: data/OpenMMReasoner-RL-74K, name: val, data_folder: nowhere}]");
    assert!(printed.contains("train_files[0].data_folder: found nowhere, which does not exist in"), "{printed}");
    fs::remove_dir_all(dir.join("data")).unwrap();
    let (code, printed) = dry(dir, "rl");
    assert!(
        code == 2
            && printed.contains("train_files[0].path: found data/OpenMMReasoner-RL-74K, ")
            && printed.contains("omr download rl-data")
    );
}

/// The form of the original's `data_pipeline/examples`: `data_folder: ""` in each entry, and no newline at the end.
fn example(names: &[&str]) -> String {
    let entry = |name: &&str| {
        format!(
            "  - path: {name}/{name}.parquet\n    data_folder: \"\" # Add the data folder\n    data_type: parquet\n"
        )
    };
    format!("datasets:\n{}", names.iter().map(entry).collect::<String>()).trim_end().to_owned()
}

#[test]
fn the_data_configs_of_the_original_were_refused_for_an_empty_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let rl = "thinklite_vl_hard_train wemath_pro wemath_standard algopuzzle_train mmk12_train tqa_train virl39k_train puzzlevqa_train";
    let sft = "llava_cot_train OpenVLThinker-sft-iter3 We-Math2.0-SFT";
    let server = crate::pipeline::Server::start();
    let teacher = format!("teacher.base_url={}", server.base_url);
    // The first word tells the teacher of the tests to answer 5.
    let row = |k: usize| Row {
        id: k.to_string(),
        messages: vec![Message::text("user", format!("right {k}")), Message::text("assistant", "5")],
        ground_truth: Some("5".to_owned()),
        ..Row::default()
    };
    let rows: Vec<Row> = (0..3).map(row).collect();
    for (names, form, command) in [
        (rl, Form::Rl, &["data", "dedup", "example.yaml", "--out", "dedup", "mode=compat"][..]),
        (sft, Form::Sft, &["data", "distill", "example.yaml", "--out", "distill", &teacher, "teacher.model=t"]),
    ] {
        let names: Vec<&str> = names.split(' ').collect();
        for name in &names {
            fs::create_dir(dir.path().join(name)).unwrap();
            write::write(&dir.path().join(format!("{name}/{name}.parquet")), &rows, form).unwrap();
        }
        fs::write(dir.path().join("example.yaml"), example(&names)).unwrap();
        let (code, printed) = run(dir.path(), command);
        assert_eq!(code, 0, "{printed}");
    }
    for name in ["dedup/puzzlevqa_train.parquet", "distill/summary.json"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn two_prompts_of_the_judge_fit_all_published_tasks() {
    let dir = tempfile::tempdir().unwrap();
    benchmarks(dir.path());
    let tail = "Reference:\n{answer}\nModel's answer:\n```\n{prediction}\n```\n1 or 0?\n";
    fs::write(dir.path().join("with.txt"), format!("\nQuestion:\n```\n{{question}}\n```\n{tail}")).unwrap();
    fs::write(dir.path().join("without.txt"), tail).unwrap();
    let config = omr_base_tests::root().join("configs/openmmreasoner-7b/eval.yaml");
    let tasks: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let tasks: Vec<&str> = tasks["tasks"].as_array().unwrap().iter().map(|task| task.as_str().unwrap()).collect();
    assert_eq!(tasks.len(), 15);
    // A reply is right, wrong, empty or chatty.
    let answer =
        |k: usize| format!("<think>t</think><answer>{} nowhere</answer>", ["yes", "no", "empty", "prose"][k % 4]);
    let mut lines = String::new();
    for task in &tasks {
        for index in 0..4 {
            let responses: Vec<String> =
                (0..if task.starts_with("aime") { 8 } else { 1 }).map(|k| answer(index + k)).collect();
            lines += &format!("{}\n", json!({"task": task, "index": index, "responses": responses}));
        }
    }
    fs::write(dir.path().join("answers.jsonl"), lines).unwrap();
    let server = Server::start();
    let judge = format!("judge.base_url={}", server.base_url);
    let score = |out: &str, prompts: &str| {
        let common = ["eval", "--config", config.to_str().unwrap(), "--data", "data/benchmarks", "--limit", "4"];
        let more =
            ["--responses", "answers.jsonl", "--out", out, &judge, "judge.model=j", "judge.temperature=null", prompts];
        run(dir.path(), &[&common[..], &more].concat())
    };
    let (code, printed) = score("both", "judge.prompt_file=[with.txt, without.txt]");
    assert_eq!(code, 0, "{printed}");
    let text = |body: &serde_json::Value| body["messages"][0]["content"][0]["text"].as_str().unwrap().to_owned();
    let texts: Vec<String> = server.seen.lock().unwrap().bodies.iter().map(text).collect();
    let (with, without): (Vec<&String>, Vec<&String>) = texts.iter().partition(|text| text.starts_with("\nQuestion:"));
    assert!(with.len() > 40 && without.len() >= 8, "{} and {}", with.len(), without.len());
    assert!(
        without.iter().all(|text| text.starts_with("Reference:"))
            && texts.iter().all(|text| !text.contains("{answer}"))
    );
    for word in ["yes", "no", "empty", "prose"] {
        assert!(server.times(word) > 10, "{word}");
    }
    let samples = fs::read_to_string(dir.path().join("both/samples.jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 60);
    for (part, least) in [("\"judge\":1", 15), ("\"judge\":0", 15), ("unjudged", 15)] {
        assert!(samples.matches(part).count() >= least, "{part}: {samples}");
    }
    // Without the second prompt, the questions of CharXiv have none, and the message names the way out.
    let (code, printed) = score("one", "judge.prompt_file=with.txt");
    assert!(code == 2 && printed.contains("judge.prompt_file=[FILE, OTHER]"), "{printed}");
}
