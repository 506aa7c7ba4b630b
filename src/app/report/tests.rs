use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use omr_base::config;
use omr_model::rollout::file::{self, RolloutRow};
use omr_train::eval::samples::{Answer, Sample};
use omr_train::eval::stats;

/// A PNG of one black pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==";

fn pixel() -> Vec<u8> {
    STANDARD.decode(PIXEL.rsplit(',').next().unwrap()).unwrap()
}

fn answer(text: &str, right: bool) -> Answer {
    let acc = f64::from(right);
    let predict_str = text.rsplit("<answer>").next().and_then(|t| t.split("</answer>").next()).unwrap_or("");
    Answer {
        opened: String::new(),
        response: text.to_owned(),
        response_length: text.len() / 4,
        finish_reason: "stop".to_owned(),
        score: Some(0.9 * acc + 0.1),
        acc_score: acc,
        format_reward_score: 1.0,
        predict_str: predict_str.to_owned(),
        why: String::new(),
        judge: None,
    }
}

/// Writes the directory of a finished recipe with invented results.
fn run(dir: &Path) {
    let rate = [("base", 0), ("sft", 5), ("control", 6), ("rl", 8)];
    let mut stages = serde_json::Map::new();
    for (stage, tenths) in rate {
        let rows: Vec<Sample> = (0..400)
            .map(|i| {
                let right = i % 10 < tenths;
                let text = if right { "<think>I see 3 and 5.</think><answer>8</answer>" } else { "<answer>9</answer>" };
                Sample {
                    task: "sums".to_owned(),
                    index: i,
                    id: format!("heldout-{i}"),
                    question: "What is the sum? </script><b>".to_owned(),
                    target: "8".to_owned(),
                    greedy: Some(answer(text, right)),
                    sampled: vec![answer(text, right)],
                    ..Sample::default()
                }
            })
            .collect();
        let folder = dir.join("eval").join(stage);
        fs::create_dir_all(&folder).unwrap();
        let lines: String = rows.iter().map(|row: &Sample| row.line().unwrap()).collect();
        fs::write(folder.join("samples.jsonl"), lines).unwrap();
        let acc = tenths as f64 / 10.0;
        let ci95 = stats::wilson(acc, 400.0);
        stages.insert(
            stage.to_owned(),
            serde_json::json!({"acc": acc, "acc_t1": acc, "ci95": ci95, "format": 1.0, "n": 400}),
        );
    }
    let summary = serde_json::json!({"seed": 1, "device": "cpu", "stages": stages,
        "seconds": {"data": 2.0, "sft": 30.0, "rl": 60.0, "eval": 8.0, "total": 100.0},
        "tokens_per_sec": {"sft": 41234.0, "rollout": 51234.0}});
    fs::write(dir.join("summary.json"), summary.to_string()).unwrap();
    for (stage, metric) in [("sft", "loss"), ("control", "loss"), ("rl", "critic/score/mean")] {
        fs::create_dir_all(dir.join(stage)).unwrap();
        let lines: Vec<_> =
            (1..=1500).map(|i| serde_json::json!({"step": i, metric: 1.0 / f64::from(i)}).to_string() + "\n").collect();
        fs::write(dir.join(stage).join("metrics.jsonl"), lines.concat()).unwrap();
    }
}

#[test]
fn a_recipe_run_becomes_a_report() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path());
    let report = report(dir.path()).unwrap();
    let names: Vec<_> = report.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["base", "sft", "control", "rl"]);
    assert_eq!(report.contrasts.len(), 4);
    let control = report.contrasts.iter().find(|c| c.label == "RL minus control").unwrap();
    assert!((control.estimate.mean - 0.2).abs() < 1e-12 && control.estimate.ci95[0] > 0.0);
    assert!(
        report.headline.contains("from 50.0 % to 80.0 %") && report.headline.contains("+20.0 points"),
        "{}",
        report.headline
    );
    let examples = report.examples.as_ref().unwrap();
    assert_eq!((examples.rows.len(), examples.rows[0].answers.len()), (400, 4));
    let fixed = |how: &str| (how.to_owned(), "fixed by RL".to_owned());
    assert_eq!(examples.rows[0].facets, [fixed("greedy"), fixed("temperature 1")]);
    assert_eq!(examples.rows[399].facets[0].1, "wrong both times");
    let loss = report.curves.iter().find(|c| c.title == "SFT loss").unwrap();
    assert_eq!(loss.series.len(), 2);
    assert!(loss.series[0].points.len() <= 600 && loss.series[1].points[0].0 > 1500.0, "control follows SFT");
}

#[test]
fn the_page_holds_no_network_address_and_no_markup_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path());
    let mut report = report(dir.path()).unwrap();
    report.examples.as_mut().unwrap().rows[0].images = vec![PIXEL.to_owned()];
    let page = page(&report).unwrap();
    assert!(!page.contains("</script><b>"));
    for word in ["src=\"http", "href=\"http", "url(http", "@import", "fetch("] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("<script").count(), 4);
    assert!(page.contains("80.0 %"));
}

#[test]
fn several_runs_become_one_comparison() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(a.path());
    run(b.path());
    let report = comparison(&[a.path(), b.path()]).unwrap();
    let table = report.table.clone().unwrap();
    assert_eq!((table.rows.len(), table.head.len()), (6, 3));
    assert_eq!(table.rows[4], ["RL - SFT", "+30.0 / +30.0", "+30.0 / +30.0"]);
    assert!(report.curves.iter().all(|c| c.series.len() == 2));
    assert!(report.facts.contains(&("Device".to_owned(), "cpu".to_owned())), "what they have in common");
    assert!(page(&report).unwrap().contains("<table>"));
    // Compares two runs that have a single stage each.
    let dirs = [a.path().join("rl"), a.path().join("sft")];
    let table = comparison(&[&dirs[0], &dirs[1]]).unwrap().table.unwrap();
    let row = |label: &str| table.rows.iter().find(|row| row[0] == label).unwrap()[1..].to_vec();
    assert_eq!(table.head, ["", "rl", "sft"]);
    assert_eq!(
        (row("Mean reward"), row("Loss")),
        (["0.0373 to 0.0007", "-"].map(str::to_owned).to_vec(), ["-", "0.0373 to 0.0007"].map(str::to_owned).to_vec())
    );
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(report(dir.path()).unwrap_err().exit_code(), 2);
}

/// An RL run of one step has a group of two rollouts. One of them contains text that closes a script element.
#[test]
fn rollouts_are_shown_and_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "<think>x</think></script><script>alert(1)</script>";
    let row = |rollout: u32, output: &str, score: f64| RolloutRow {
        opened: String::new(),
        prompt: 3,
        rollout,
        id: "q3".to_owned(),
        input: "What is it? <image>".to_owned(),
        output: output.to_owned(),
        gts: "5".to_owned(),
        score: Some(score),
        reward: Some(score),
        acc_score: Some(score),
        format_reward_score: 0.0,
        predict_str: "5".to_owned(),
        advantage: score - 0.5,
        response_length: 2,
        token_ids: vec![1, 2],
        log_probs: vec![-0.5, -2.0],
        finish_reason: "stop".to_owned(),
        judge: String::new(),
        question: "What is it? <b>".to_owned(),
        images: if rollout == 0 { vec![pixel()] } else { Vec::new() },
    };
    // Null in the file: the response has no score.
    let unscored = RolloutRow { score: None, reward: None, acc_score: None, ..row(2, "?", 0.5) };
    let rows = [row(0, evil, 0.0), row(1, "<think>x</think><answer>5</answer>", 1.0), unscored];
    file::write(dir.path(), 1, &rows).unwrap();
    assert_eq!(file::read(dir.path(), 1).unwrap().unwrap(), rows);
    let config = config::to_yaml(&config::RlConfig::default()).unwrap();
    fs::write(dir.path().join("config.yaml"), config).unwrap();
    let step = serde_json::json!({"step": 1, "critic/score/mean": 0.5, "timing_s/step": 2.0});
    fs::write(dir.path().join("metrics.jsonl"), format!("{step}\n")).unwrap();
    let report = report(dir.path()).unwrap();
    let rollouts = report.rollouts.as_ref().unwrap();
    assert_eq!((rollouts.rows.len(), rollouts.rows[0].answers.len()), (1, 3));
    assert!(rollouts.rows[0].answers[2].why.starts_with("reward none, advantage +0.00"));
    assert!(rollouts.rows[0].answers[1].why.starts_with("reward 1.000, advantage +0.50"));
    assert_eq!(
        (&*rollouts.rows[0].question, &rollouts.rows[0].images[..]),
        ("What is it? <b>", &[PIXEL.to_owned()][..])
    );
    let page = page(&report).unwrap();
    assert!(!page.contains("</script><script>alert") && page.contains("Content-Security-Policy"));
    assert!(!page.contains("Where a step's time goes"), "the step has no spans");
}

#[test]
fn a_watched_page_follows_the_run_and_has_a_strict_policy() {
    let dir = tempfile::tempdir().unwrap();
    let line = |step: u32| serde_json::json!({"step": step, "loss": 0.5, "timing_s/wall_time": 1e9 + 7.0}).to_string();
    let yaml = config::to_yaml(&config::SftConfig::default()).unwrap();
    fs::write(dir.path().join("config.yaml"), format!("# omr 0.1.0, on the CPU\n{yaml}")).unwrap();
    let mut watched = Watched::open(vec![dir.path().to_owned()]).unwrap();
    let begun = std::time::Instant::now();
    let (first, page) = watched.page();
    assert!(page.contains("No step is finished yet.") && page.contains("connect-src 'self'"));
    assert!(!page.contains("script-src 'unsafe-inline'") && page.contains("default-src 'none'; script-src 'sha256-"));
    let first = first.to_owned();
    fs::write(dir.path().join("metrics.jsonl"), line(1) + "\n" + &line(2) + "\n{\"step\": 3, \"lo").unwrap();
    assert!(watched.page().0 == first || begun.elapsed().as_secs() > 0, "a page is not built again at once");
    while watched.page().0 == first {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (second, page) = watched.page();
    assert!(second != first && page.contains("0.5000 in the last") && page.contains("\"changed\":1000000007.0"));
    let plain = super::page(&report(dir.path()).unwrap()).unwrap();
    assert!(!plain.contains("connect-src") && !plain.contains("id=\"live\""));
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "").unwrap();
    assert!(Watched::open(vec![foreign]).is_err(), "a folder with other files is no run");
}

#[test]
fn a_watcher_that_is_opened_before_the_run_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut watched = Watched::open(vec![run.clone()]).unwrap();
    assert!(watched.page().1.contains("no run has started here yet") && is_awaited(&run));
    fs::create_dir(&run).unwrap();
    fs::write(run.join(".lock"), "").unwrap();
    assert!(is_awaited(&run));
    let yaml = config::to_yaml(&config::RlConfig::default()).unwrap();
    fs::write(run.join("config.yaml"), format!("# omr 0.1.0, on the CPU\n{yaml}")).unwrap();
    fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"critic/score/mean\":0.25}\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1050));
    assert!(watched.page().1.contains("Mean reward 0.2500") && !is_awaited(&run));
}

/// A run whose answers are all wrong, with a reward program of its own and rows of two domains.
#[test]
fn metrics_that_are_0_or_constant_are_on_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config::RlConfig::default();
    config.reward.scorer.command = vec!["python3".to_owned(), "mine.py".to_owned()];
    fs::write(dir.path().join("config.yaml"), config::to_yaml(&config).unwrap()).unwrap();
    let line = |step: u32| {
        serde_json::json!({"step": step, "critic/score/mean": 0.5, "critic/score/acc_score/mean": 0.0,
            "actor/ppo_kl": 0.0, "actor/grad_norm": f64::from(step), "actor/kept": 3, "actor/moved": step,
            "reward/domain/maths/mean": 0.5, "reward/domain/a/b/mean": f64::from(step)})
    };
    let write = |steps: u32| {
        let lines: String = (1..=steps).map(|step| format!("{}\n", line(step))).collect();
        fs::write(dir.path().join("metrics.jsonl"), lines).unwrap();
        report(dir.path()).unwrap()
    };
    let found = write(3);
    let shown = |folded| found.curves.iter().filter(|c| c.folded == folded).map(|c| &*c.title).collect::<Vec<_>>();
    assert_eq!(shown(false), ["Reward", "Right answers", "Reward by domain"]);
    assert_eq!(shown(true), ["Gradient norm", "actor/moved"]);
    assert_eq!(found.constant, ["KL to the sampler 0", "actor/kept 3"]);
    let names = |report: &RecipeReport| {
        let curve = report.curves.iter().find(|curve| curve.title == "Reward by domain").unwrap();
        curve.series.iter().map(|line| line.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&found), ["a/b", "maths"]);
    assert_eq!(found.curves[0].caption, "Mean over the rollouts of a step: by python3 mine.py.");
    assert!(page(&found).unwrap().contains("The same in all steps: KL to the sampler 0, actor&#x2f;kept 3."));
    assert_eq!(write(1).curves.len(), 3, "one step is enough for a chart");
    let compared = comparison(&[dir.path(), dir.path()]).unwrap();
    assert_eq!(names(&compared).len(), 4);
}

#[test]
fn a_comparison_begins_with_the_keys_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, change: fn(&mut config::RlConfig)| {
        let mut config = config::RlConfig::default();
        change(&mut config);
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.yaml"), config::to_yaml(&config).unwrap()).unwrap();
        fs::write(folder.join("metrics.jsonl"), "{\"step\":1,\"critic/score/mean\":0.5}\n").unwrap();
        folder
    };
    let dirs = [
        run("a", |_| ()),
        run("b", |config| config.entropy_coeff = 0.01),
        run("c", |config| (config.use_kl_loss, config.rollout.n) = (true, 4)),
    ];
    let compare = |dirs: &[&PathBuf]| {
        let dirs: Vec<&Path> = dirs.iter().map(|dir| dir.as_path()).collect();
        comparison(&dirs).unwrap()
    };
    let found = compare(&[&dirs[0], &dirs[1], &dirs[2]]);
    let keys = found.keys.clone().unwrap();
    assert_eq!(keys.head, ["key", "a", "b", "c"]);
    let rows = [
        ["rollout.n", "8", "8", "4"],
        ["use_kl_loss", "false", "false", "true"],
        ["entropy_coeff", "0.0", "0.01", "0.0"],
    ];
    assert!(keys.rows.len() == 3 && rows.iter().all(|row| keys.rows.iter().any(|found| found == row)), "{keys:?}");
    let html = page(&found).unwrap();
    assert!(html.find("Keys that differ") < html.find("Side by side"));
    assert!(page(&compare(&[&dirs[0], &dirs[0]])).unwrap().contains("All keys of the configs are equal."));
    fs::write(dirs[1].join("config.yaml"), config::to_yaml(&config::SftConfig::default()).unwrap()).unwrap();
    assert_eq!(compare(&[&dirs[0], &dirs[1]]).keys, None, "configs of two kinds have no common keys");
}

/// The line of step 0 only contains the validation before training.
#[test]
fn step_0_is_no_step_and_noise_is_averaged() {
    let dir = tempfile::tempdir().unwrap();
    let write = |steps: u32| {
        let begin = serde_json::json!({"step": 0, "val-core/sums/acc": 0.1});
        let line =
            |i: u32| serde_json::json!({"step": i, "loss": if i.is_multiple_of(2) { f64::from(i) } else { 0.0 }});
        let lines: Vec<_> =
            std::iter::once(begin).chain((1..=steps).map(line)).map(|line| format!("{line}\n")).collect();
        fs::write(dir.path().join("metrics.jsonl"), lines.concat()).unwrap();
        report(dir.path()).unwrap()
    };
    assert_eq!(write(0).headline, "No step is finished yet.");
    assert_eq!(write(4).headline, "Loss 0.0000 in the first of 4 steps, 4.0000 in the last.");
    let report = write(40);
    assert_eq!(report.headline, "Loss 1.5000 in the first 4 of 40 steps, 19.5000 in the last 4.");
    assert!(
        report.facts.iter().any(|(label, value)| label == "Steps" && value.starts_with("40,")),
        "{:?}",
        report.facts
    );
    let table = comparison(&[dir.path(), dir.path()]).unwrap();
    assert!(table.facts.contains(&("Loss".to_owned(), "1.5000 to 19.5000".to_owned())), "{:?}", table.facts);
}

#[test]
fn the_starts_of_a_run_are_facts() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        |time: &str| serde_json::json!({"time": time, "host": "h1", "command": "omr sft", "commit": null}).to_string();
    let starts = [start("2026-11-23T18:33:52Z"), start("2026-11-24T09:00:00Z")].join("\n");
    fs::write(dir.path().join("starts.jsonl"), starts).unwrap();
    fs::create_dir(dir.path().join("rl")).unwrap();
    fs::write(dir.path().join("rl/metrics.jsonl"), "{\"step\":1,\"critic/score/mean\":0.5}\n").unwrap();
    let facts = report(&dir.path().join("rl")).unwrap().facts;
    let of = |label: &str| facts.iter().find(|fact| fact.0 == label).map(|fact| fact.1.as_str());
    let started = "2026-11-23 18:33 UTC, continued once, last at 2026-11-24 09:00 UTC";
    assert_eq!(
        (of("Started"), of("Host"), of("Command"), of("Commit")),
        (Some(started), Some("h1"), Some("omr sft"), None)
    );
}

#[test]
fn the_spans_of_a_step_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let spans = serde_json::json!([["sampling", 0.0, 1.2], ["passes", 1.25, 1.9]]);
    let step = serde_json::json!({"step": 1, "loss": 0.5, "timing_s/step": 2.0, "timing_s/spans": spans});
    fs::write(dir.path().join("metrics.jsonl"), format!("{step}\n")).unwrap();
    let page = page(&report(dir.path()).unwrap()).unwrap();
    for part in ["Where a step's time goes", ">sampling</text>", "<title>1.25 to 1.9 s</title>", "<td>60.0 %</td>"] {
        assert!(page.contains(part), "{part}");
    }
}
