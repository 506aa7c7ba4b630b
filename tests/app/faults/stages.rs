//! Tests changes of the inputs of a data stage. The next start and the joining of its parts are refused with the name
//! of the input, until the key that the error names accepts the change.

use std::path::Path;

use omr_app::pipeline::Shard;
use omr_base::config::{self, DataConfig, DedupConfig, FilterConfig, InputKind, StageConfig};
use omr_base::error::Error;
use omr_base::identity::Manifest;
use omr_data::rows::read;
use omr_train_tests::faults::inputs::{Change, LONGER, folder};
use omr_train_tests::training::tiny::base_model;
use serde_json::json;

use crate::pipeline::{Impatient, observed, reads, refused, run, write_lines};

#[test]
fn an_input_of_a_data_stage_that_changed_is_refused_until_its_key_accepts_it() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let [rows, benchmark, model, out] = ["rows.jsonl", "benchmark.jsonl", "model", "out"].map(at);
    let ask = |path: &Path, of: &str| write_lines(path, &["a", "b", of].map(|q| json!({"problem": q, "answer": 1})));
    ask(&benchmark, "none");
    base_model(&model);
    let stage = reads(std::slice::from_ref(&rows));
    let dedup = DedupConfig { stage: stage.clone(), against: vec![read::entry(&benchmark)], ..DedupConfig::default() };
    let mut filter =
        FilterConfig { stage, model: Some(model.clone()), max_tokens: Some(99), ..FilterConfig::default() };
    ask(&rows, "x");
    let run_dedup = |config: &DedupConfig| run(config, &out, None);
    let printed =
        |refused: String, parts: [&str; 2]| parts.iter().for_each(|part| assert!(refused.contains(part), "{refused}"));
    let accepting = |kind| {
        let stage = StageConfig { accept_changed: vec![kind], ..dedup.stage.clone() };
        DedupConfig { stage, ..dedup.clone() }
    };
    // The stage is stopped, finished, and the change is accepted.
    let stopped = observed(&dedup, &out, None, &Impatient::after(0));
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    ask(&rows, "xy");
    printed(refused(run_dedup(&dedup)), ["rows.jsonl", "accept_changed=[rows]"]);
    assert_eq!(run_dedup(&accepting(InputKind::Rows)).unwrap().0.kept, 1);
    Change::Touched.make(&rows);
    assert!(!run_dedup(&dedup).unwrap().1);
    ask(&benchmark, "xy");
    printed(refused(run_dedup(&dedup)), ["benchmark.jsonl", "(remove the key afterwards)"]);
    refused(run_dedup(&accepting(InputKind::Model)));
    let (summary, fresh) = run_dedup(&accepting(InputKind::Rows)).unwrap();
    assert!(fresh && summary.kept == 0 && !run_dedup(&dedup).unwrap().1);
    // Other inputs: the output of another stage, parts, and a model.
    Manifest::write_of(folder.path(), vec!["rows.jsonl".to_owned()]).unwrap();
    ask(&rows, "xyz");
    let fresh = run(&dedup, &at("fresh"), None);
    printed(refused(fresh), ["stages ", "accept_changed=[stages]"]);
    run(&accepting(InputKind::Stages), &at("fresh"), None).unwrap();
    std::fs::remove_file(at("MANIFEST")).unwrap();
    for index in [0, 1] {
        run(&filter, &at("parts"), Some(Shard { index, count: 2 })).unwrap();
    }
    ask(&rows, "z");
    printed(refused(run(&filter, &at("parts"), None)), ["rows.jsonl", "accept_changed=[rows]"]);
    run(&filter, &at("whole"), None).unwrap();
    LONGER.make(&model.join("chat_template.jinja"));
    printed(refused(run(&filter, &at("whole"), None)), ["chat_template.jinja", "accept_changed=[model]"]);
    filter.stage.accept_changed = vec![InputKind::Model];
    assert!(run(&filter, &at("whole"), None).unwrap().1);

    let list = "stages: [{name: a, format: {datasets: [q.jsonl]}}]\naccept_changed: [rows]\n";
    std::fs::write(at("list.yaml"), list).unwrap();
    let list: DataConfig = config::load(Some(&at("list.yaml")), &[], &|_| None).unwrap();
    assert_eq!(list.stages[0].format.as_ref().unwrap().stage.accept_changed, [InputKind::Rows]);
}
