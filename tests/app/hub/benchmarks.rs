//! Tests `omr eval --download`, and the downloads of docs/user/openmmreasoner.md, against a hub server on this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use omr_base_tests::golden;
use omr_base_tests::hub::server::Hub;
use omr_data::task::TASKS;

use super::{Done, bytes, command, program, run, walk};

fn eval(hub: &str, dir: &Path, args: &[&str]) -> Command {
    program(hub, dir, "eval", args)
}

/// Adds a data set with these files to the hub.
fn add(hub: &Hub, id: &'static str, revision: &'static str, files: &[(&str, Vec<u8>)]) {
    let files: BTreeMap<_, _> = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
    hub.state.lock().unwrap().datasets.insert((id, revision), files);
}

/// Asserts that the line with the size of everything comes before the first line about a download.
fn assert_size_first(printed: &str, size: &str) {
    let at = |part: &str| printed.find(part).unwrap_or_else(|| panic!("{part} is not in {printed}"));
    assert!(at(size) < at(" to download into "), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eval_download_prints_the_size_and_fetches_the_split_of_each_task() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&[]).await;
    let rows = std::fs::read(golden::dir().join("eval/logicvista_thinking/data.parquet")).unwrap();
    let (a, b) = (bytes(100_000, 1), bytes(50_000, 2));
    add(
        &hub,
        "lscpku/LogicVista",
        "main",
        &[("README.md", a.clone()), ("data/test-00000-of-00001.parquet", rows.clone())],
    );
    let wide = "standard (10 options)/test-00000-of-00001.parquet";
    let pro =
        [("standard (4 options)/test-0.parquet", b.clone()), (wide, a.clone()), ("vision/test-0.parquet", b.clone())];
    add(&hub, "MMMU/MMMU_Pro", "main", &pro);
    let splits = [("data/test-0.parquet", a.clone()), ("data/testmini-0.parquet", b.clone())];
    add(&hub, "MathLLMs/MathVision", "main", &splits);
    add(&hub, "Idavidrein/gpqa", "main", &[("gpqa_diamond.csv", a.clone())]);
    let converted = [("gpqa_diamond/train/0000.parquet", b.clone()), ("gpqa_main/train/0000.parquet", a.clone())];
    add(&hub, "Idavidrein/gpqa", "refs/convert/parquet", &converted);

    let tasks = ["--download", "--data", "bench", "--tasks", "logicvista,mmmu_pro,mathvision_testmini,gpqa"];
    let size = format!(
        "5 tasks: {} in 5 files of 4 data sets, for bench",
        omr_base::observe::bytes(rows.len() as u64 + 250_000)
    );
    let planned = run(eval(&hub.url, dir.path(), &[&tasks[..], &["--dry-run"]].concat())).await;
    assert!(planned.code == Some(0) && planned.printed.contains(&size), "{}", planned.printed);
    assert!(!dir.path().join("bench").exists() && hub.seen().iter().all(|seen| seen.path.starts_with("/api/")));

    let got = run(eval(&hub.url, dir.path(), &tasks)).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    assert_size_first(&got.printed, &size);
    let bench = dir.path().join("bench");
    let mut names: Vec<_> =
        walk(&bench).iter().map(|name| name[bench.to_str().unwrap().len() + 1..].to_owned()).collect();
    names.retain(|name| name.ends_with(".parquet"));
    names.sort();
    let wide = format!("MMMU_Pro/{wide}");
    let expected = [
        "LogicVista/data/test-00000-of-00001.parquet",
        &wide,
        "MMMU_Pro/vision/test-0.parquet",
        "MathVision/data/testmini-0.parquet",
        "gpqa/gpqa_diamond/train/0000.parquet",
    ];
    assert_eq!(names, expected);

    // `omr eval` reads the files where they are.
    let read = ["--data", "bench", "--tasks", "logicvista", "--dump-prompts", "prompts.jsonl"];
    let read = run(eval(&hub.url, dir.path(), &read)).await;
    assert!(read.code == Some(0) && read.printed.contains("questions of logicvista_thinking"), "{}", read.printed);
    // Another split of a set comes into the same folder. Existing files are not fetched again.
    hub.seen();
    let both = ["--download", "--data", "bench", "--tasks", "mathvision,mathvision_testmini"];
    let both = run(eval(&hub.url, dir.path(), &both)).await;
    assert_eq!(both.code, Some(0), "{}", both.printed);
    let fetched = |seen: &omr_base_tests::hub::server::Seen| seen.on_cdn.then(|| seen.path.clone());
    let fetched: Vec<String> = hub.seen().iter().filter_map(fetched).collect();
    assert!(fetched.len() == 1 && fetched[0].contains("data/test-0.parquet"), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eval_download_goes_on_after_a_data_set_that_cannot_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&[]).await;
    add(&hub, "math-ai/amc23", "main", &[("data/test-0.parquet", bytes(1000, 1))]);
    add(
        &hub,
        "lscpku/LogicVista",
        "main",
        &[("data/train-0.parquet", bytes(9, 1)), ("data/dev-0.parquet", bytes(9, 1))],
    );
    let tasks = ["--download", "--data", "bench", "--tasks", "gpqa,logicvista,amc23,digits"];
    let got = run(eval(&hub.url, dir.path(), &tasks)).await;
    assert_eq!(got.code, Some(2), "{}", got.printed);
    for part in [
        "gpqa_diamond_thinking is left out: Idavidrein/gpqa: found no such repository",
        "logicvista_thinking is left out: lscpku/LogicVista: found dev-0.parquet, train-0.parquet, expected files of",
        "digits is left out: --download: found the task digits, expected a task with a data set on the hub",
    ] {
        assert!(got.printed.contains(part), "{part} is not in {}", got.printed);
    }
    assert!(dir.path().join("bench/amc23/data/test-0.parquet").is_file(), "{}", got.printed);
    for (args, part) in [
        (&["--download"][..], "--download: found no --data"),
        (
            &["--download", "--data", "bench", "--gpus", "2"],
            "--gpus: found 2, expected 1: --download runs in one process",
        ),
        (
            &["--tasks", "gpqa", "--data", "bench", "--dump-prompts", "x"],
            "omr eval --download --tasks gpqa_diamond_thinking --data bench",
        ),
    ] {
        let Done { code, printed } = run(eval(&hub.url, dir.path(), args)).await;
        assert!(code == Some(2) && printed.contains(part), "{args:?}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_download_of_the_openmmreasoner_page_prints_its_size_before_it_starts() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/user/openmmreasoner.md");
    let page = std::fs::read_to_string(page).unwrap();
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("omr download datasets/")).collect();
    assert!(lines.len() > 8, "{lines:?}");
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&[]).await;
    let small: Vec<(&str, Vec<u8>)> = ["a.parquet", "b.jsonl", "image.zip.part-aa", "train.jsonl", "images.zip"]
        .into_iter()
        .map(|name| (name, bytes(2000, 3)))
        .collect();
    for line in lines {
        let words: Vec<&str> = line.split(' ').skip(2).map(|word| word.trim_matches('\'')).collect();
        let id: &'static str = words[0].strip_prefix("datasets/").unwrap().to_owned().leak();
        add(&hub, id, "main", &small);
        // A size that no disk has room for: the command prints it and requests no file.
        for name in ["a.parquet", "train.jsonl"] {
            hub.state.lock().unwrap().printed.insert(name.to_owned(), 1 << 60);
        }
        hub.seen();
        let refused = run(command(&hub.url, dir.path(), &words)).await;
        assert!(
            refused.code == Some(2) && refused.printed.contains(" TiB to download into "),
            "{line}: {}",
            refused.printed
        );
        assert!(hub.seen().iter().all(|seen| seen.path.starts_with("/api/")), "{line}");
        hub.state.lock().unwrap().printed.clear();
        let got = run(command(&hub.url, dir.path(), &words)).await;
        assert!(got.code == Some(0) && got.printed.contains(&format!("{id} at ")), "{line}: {}", got.printed);
    }
    // All benchmarks with one command.
    let sets: Vec<&'static str> = TASKS.iter().filter_map(|spec| Some(spec.hub?.repo)).collect();
    let each = ["test", "testmini", "validation", "val", "train"].map(|split| format!("{split}-0.parquet"));
    let each: Vec<(&str, Vec<u8>)> = each.iter().map(|name| (name.as_str(), bytes(1000, 4))).collect();
    sets.iter().for_each(|id| add(&hub, id, "main", &each));
    assert!(page.lines().any(|line| line == "omr eval --download --data data/benchmarks"));
    let all = run(eval(&hub.url, dir.path(), &["--download", "--data", "data/benchmarks"])).await;
    assert_eq!(all.code, Some(0), "{}", all.printed);
    assert_size_first(&all.printed, "16 tasks: ");
}
