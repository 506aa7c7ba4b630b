//! Tests stages that decide row by row: the rows that they keep and reject, and that a stage run in parts gives the
//! same rows as the complete stage.

use std::path::{Path, PathBuf};

use omr_app::pipeline::Shard;
use omr_base::config::{FilterConfig, FormatConfig, Images, MixConfig, RowForm, StageConfig, VerifyConfig};
use omr_data::rows::{ImageSource, text_of};
use serde_json::{Value, json};

use super::{files, in_parts, lines, reads, refused, rows, run, write_lines};

fn png(path: &Path, side: u32) {
    image::RgbImage::from_fn(side, side, |x, y| image::Rgb([(x * 40) as u8, (y * 40) as u8, 9])).save(path).unwrap();
}

/// Writes `count` answered questions with an image each. Every fifth answer is wrong. The image of the last row is
/// missing.
fn answered(dir: &Path, name: &str, count: usize) -> PathBuf {
    png(&dir.join("a.png"), 5);
    let row = |i: usize| {
        let answer = if i % 5 == 4 { i + 1 } else { i };
        let image = if i + 1 == count { "gone.png" } else { "a.png" };
        json!({"id": format!("{name}{i}"), "messages": [
            {"role": "user", "content": format!("<image>What is {i} + 0?")},
            {"role": "assistant", "content": format!("<think>Easy.</think><answer>{answer}</answer>")}],
            "images": [image], "answer": i.to_string(), "extra_info": {"pass_rate": i as f64 / count as f64}})
    };
    let path = dir.join(format!("{name}.jsonl"));
    write_lines(&path, &(0..count).map(row).collect::<Vec<_>>());
    path
}

#[test]
fn format_writes_one_form_and_names_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = answered(dir.path(), "a", 200);
    let question = dir.path().join("q.jsonl");
    write_lines(&question, &[json!({"problem": "Two?", "answer": 2}), json!({"problem": "Three?"})]);
    for (form, images) in [(RowForm::Sft, Images::Path), (RowForm::Rl, Images::Embed), (RowForm::Rl, Images::Path)] {
        let stage = StageConfig { form, images, ..reads(&[path.clone(), question.clone()]) };
        let config = FormatConfig { stage, system_prompt: Some("Be brief.".into()) };
        let out = dir.path().join(format!("{}-{}", form.name(), images.name()));
        let (summary, fresh) = run(&config, &out, None).unwrap();
        assert!(fresh);
        assert_eq!(summary.rejected["missing_image"], 1);
        assert_eq!(summary.rejected.get("no_label").copied().unwrap_or(0), usize::from(form == RowForm::Rl));
        assert_eq!(lines(&out.join("rejected.jsonl")).len(), summary.rejected.values().sum::<usize>());
        assert_eq!(lines(&out.join("rejected.jsonl"))[0]["index"], 199);
        let entry = omr_base::config::DatasetConfig {
            data_folder: Some(dir.path().to_owned()),
            ..omr_data::rows::read::entry(out.join("a.parquet"))
        };
        let back = omr_data::rows::read(&entry).unwrap();
        assert_eq!(back.len(), 199);
        assert_eq!(text_of(&back[3].messages[0]), "Be brief.");
        let answers = back[3].messages.iter().filter(|m| m.role == "assistant").count();
        assert_eq!(answers, usize::from(form == RowForm::Sft));
        let embedded = matches!(back[3].images[0], ImageSource::Bytes { .. });
        assert_eq!(embedded, images == Images::Embed);
        if form == RowForm::Rl {
            assert_eq!(back[3].ground_truth.as_deref(), Some("3"));
        }
        let before = files(&out);
        assert_eq!(run(&config, &out, None).unwrap(), (summary, false), "a finished stage is left alone");
        assert_eq!(files(&out), before);
    }
}

#[test]
fn too_many_bad_rows_end_a_stage_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = answered(dir.path(), "a", 50);
    let config = FormatConfig { stage: reads(&[path]), system_prompt: None };
    let message = refused(run(&config, &dir.path().join("out"), None));
    assert!(message.contains("1 bad rows of 50") && message.contains("gone.png"), "{message}");
    assert!(files(&dir.path().join("out")).is_empty());
}

#[test]
fn parts_of_every_stage_make_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [answered(dir.path(), "a", 150), answered(dir.path(), "b", 120)];
    let stage = StageConfig { max_bad_rows: 0.1, ..reads(&paths) };
    fn check<C: omr_app::pipeline::Stage>(dir: &Path, name: &str, config: &C, kept: usize) {
        let (whole, parts) = (dir.join(name), dir.join(format!("{name}-parts")));
        let (summary, _) = run(config, &whole, None).unwrap();
        assert_eq!(summary.kept, kept, "{summary:?}");
        assert_eq!(in_parts(config, &parts, 4), summary);
        for ((name, one), (_, other)) in files(&whole).iter().zip(&files(&parts)) {
            assert!(one == other, "{name}");
        }
        assert_eq!(files(&whole).len(), files(&parts).len(), "nothing of the parts is left");
    }
    check(dir.path(), "format", &FormatConfig { stage: stage.clone(), system_prompt: None }, 268);
    check(dir.path(), "verify", &VerifyConfig { stage: stage.clone(), ..VerifyConfig::default() }, 216);
    let bounds = FilterConfig {
        stage: stage.clone(),
        min_pass_rate: Some(0.2),
        max_pass_rate: Some(0.8),
        max_characters: Some(55),
        ..FilterConfig::default()
    };
    check(dir.path(), "filter", &bounds, 143);
    // The trained reply counts.
    let long = dir.path().join("long.jsonl");
    let row = |i: usize| json!({"problem": "?", "solution": "s".repeat(100 * i)});
    write_lines(&long, &(0..4).map(row).collect::<Vec<Value>>());
    let stage = StageConfig { form: RowForm::Sft, ..reads(&[long]) };
    check(dir.path(), "long", &FilterConfig { stage, max_characters: Some(150), ..FilterConfig::default() }, 1);
}

#[test]
fn a_part_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = FormatConfig {
        stage: StageConfig { max_bad_rows: 0.1, ..reads(&[answered(dir.path(), "a", 40)]) },
        system_prompt: None,
    };
    let out = dir.path().join("out");
    for index in [0, 2] {
        run(&config, &out, Some(Shard { index, count: 4 })).unwrap();
    }
    let message = refused(run(&config, &out, None));
    assert!(message.contains("0/4, 2/4") && message.contains("not finished: 1/4, 3/4"), "{message}");
}

#[test]
fn mix_takes_rows_by_weight_and_turn() {
    let dir = tempfile::tempdir().unwrap();
    let names = [("a", 60, 1.5, None), ("b", 40, 2.0, Some(10)), ("c", 30, 0.5, None)];
    let mut stage = StageConfig::default();
    for (name, count, weight, limit) in names {
        let path = dir.path().join(format!("{name}.jsonl"));
        let row = |i: usize| json!({"id": format!("{name}{i}"), "problem": "?", "answer": i});
        write_lines(&path, &(0..count).map(row).collect::<Vec<Value>>());
        stage.datasets.push(omr_base::config::DatasetConfig { weight, limit, ..omr_data::rows::read::entry(path) });
    }
    let config = MixConfig { stage, ..MixConfig::default() };
    let (out, again) = (dir.path().join("out"), dir.path().join("again"));
    let (summary, _) = run(&config, &out, None).unwrap();
    let ids: Vec<String> = rows(&out.join("mix.parquet")).into_iter().map(|row| row.id).collect();
    let of = |name: &str| ids.iter().filter(|id| id.starts_with(name)).collect::<Vec<_>>();
    assert_eq!((of("a").len(), of("b").len(), of("c").len()), (90, 20, 15));
    assert_eq!((summary.kept, &summary.rejected["not_drawn"]), (125, &15));
    assert_eq!(summary.rows, 140);
    // Each set keeps its own order, and every row occurs once before any row occurs again. The sets alternate.
    assert_eq!(of("b")[..10], of("b")[10..]);
    let numbers: Vec<usize> = of("a").iter().map(|id| id[1..].parse().unwrap()).collect();
    assert!(numbers[..60].is_sorted() && numbers[60..].is_sorted());
    let first = ids.iter().take(40).filter(|id| id.starts_with('a')).count();
    assert!((15..40).contains(&first), "{first} of the first 40");
    run(&config, &again, None).unwrap();
    assert_eq!(files(&out), files(&again));
    let other = MixConfig { seed: 2, max_rows: Some(50), ..config };
    let (summary, _) = run(&other, &dir.path().join("other"), None).unwrap();
    assert_eq!(summary.kept, 50);
    assert!(refused(run(&other, &dir.path().join("part"), Some(Shard { index: 0, count: 2 }))).contains("--shard"));
}

#[test]
fn a_weight_that_a_stage_does_not_follow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = reads(&[answered(dir.path(), "a", 10)]);
    stage.datasets[0].weight = 0.5;
    let config = FormatConfig { stage, system_prompt: None };
    let error = run(&config, &dir.path().join("out"), None).unwrap_err().to_string();
    assert!(error.contains("datasets.weight") && error.contains("a.jsonl") && error.contains("`mix`"), "{error}");
    let mut against =
        omr_base::config::DedupConfig { stage: reads(&[answered(dir.path(), "b", 10)]), ..Default::default() };
    against.against = vec![omr_base::config::DatasetConfig { weight: 3.0, ..against.stage.datasets[0].clone() }];
    let error = run(&against, &dir.path().join("against"), None).unwrap_err().to_string();
    assert!(error.contains("datasets.weight") && error.contains("b.jsonl"), "{error}");
}

/// The folders of a repository in the cache of Hugging Face have the repository's name.
#[test]
fn two_configurations_of_one_repository_are_two_data_sets() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("datasets--lab--set/snapshots/0123");
    let entry = |name: &str| {
        let folder = repository.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        write_lines(&folder.join("train.jsonl"), &[json!({"problem": name, "answer": 2})]);
        omr_base::config::DatasetConfig { name: vec![name.to_owned()], ..omr_data::rows::read::entry(&repository) }
    };
    let stage = StageConfig { datasets: vec![entry("one"), entry("two")], ..StageConfig::default() };
    let config = FormatConfig { stage, system_prompt: None };
    let out = dir.path().join("out");
    let (summary, _) = run(&config, &out, None).unwrap();
    assert_eq!(summary.kept, 2);
    assert!(out.join("set.parquet").exists() && out.join("set-two.parquet").exists());
}
