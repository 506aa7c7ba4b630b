//! Predicted times of the ops and jobs that an H200 has measured, beside the measured times.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::Machine;
use super::start_check::{HOPPER, sums};

/// Results of `omr bench` on an H200, and the jobs among them as arguments of `omr bench`.
const MEASURED: &str = "bench/results/2026-11-26-h200-9ef6b107/results.json";
const JOBS: [&str; 14] = [
    "ops",
    "train-step --model-shape 7b",
    "decode --model-shape 7b --batch-size 1 --input-len 1536",
    "decode --model-shape 7b --batch-size 16 --input-len 1536",
    "decode --model-shape 7b --batch-size 64 --input-len 1536",
    "decode --model-shape 7b --batch-size 256 --input-len 1536",
    "decode --model-shape 7b --batch-size 1 --input-len 28672",
    "decode --model-shape 7b --batch-size 16 --input-len 28672",
    "decode --model-shape 7b --batch-size 1 --input-len 1536 --lora-rank 16",
    "decode --model-shape 7b --batch-size 16 --input-len 1536 --lora-rank 16",
    "decode --model-shape 7b --batch-size 64 --input-len 1536 --lora-rank 16",
    "configs/openmmreasoner-7b/rl.yaml optim=adamw_8bit",
    "configs/openmmreasoner-7b/sft.yaml optim=adamw_8bit packing_length=16384 micro_batch_tokens=16384 \
     --row-tokens 4096 --image-tokens 1024",
    "configs/openmmreasoner-7b/sft.yaml optim=adamw_8bit packing_length=16384 micro_batch_tokens=16384 \
     --row-tokens 4096 --image-tokens 1024 lora.rank=16",
];

/// Returns the rows of a file of results whose kernels use wgmma, by name and shape. The number of recomputed layers
/// depends on the version of omr, so it is left out.
fn rows(file: &Path) -> BTreeMap<(String, String), Value> {
    let results: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let rows = results["rows"].as_array().unwrap().iter().filter(|row| row["runs_by"] == "wgmma");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let shape = |row: &Value| match text(row, "shape").rsplit_once(", ") {
        Some((shape, last)) if last.ends_with("recomputed") => shape.to_owned(),
        _ => text(row, "shape"),
    };
    rows.map(|row| ((text(row, "name"), shape(row)), row.clone())).collect()
}

/// The driver here computes nothing, so only the predictions of `omr bench` mean something. They assume the clock that
/// plans assume. Half of them must be within 10 % of the measured times.
#[test]
#[ignore = "prints a table; takes minutes"]
fn predictions_are_near_the_times_that_an_h200_measured() {
    let (machine, root) = (Machine::new(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let [results, file] = ["rows.json", "sums"].map(|name| machine.folder.path().join(name));
    std::fs::write(&file, sums()).unwrap();
    let memory = (143_771_u64 << 20).to_string();
    let gpu = [
        ("FAKE_NAME", "NVIDIA H200"),
        ("FAKE_MEMORY", &memory),
        ("FAKE_LARGEST_COPY", "1048576"),
        ("FAKE_SUMS", file.to_str().unwrap()),
    ];
    let mut predicted = BTreeMap::new();
    for job in JOBS {
        let job = job.replace("configs/", &format!("{}/configs/", root.display()));
        let given = ["--device", "cuda", "bench", "--seconds", "0", "--json", results.to_str().unwrap()];
        let args: Vec<&str> = given.into_iter().chain(job.split_whitespace()).collect();
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, &[&HOPPER[..], &gpu].concat());
        assert!(output.status.success(), "{job}: {}", String::from_utf8_lossy(&output.stderr));
        predicted.extend(rows(&results));
    }
    let mut ratios = Vec::new();
    println!("| case | shape | measured ms | predicted ms | bound by | predicted / measured |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for ((name, shape), row) in rows(&root.join(MEASURED)) {
        let Some(measured) = row["predicted_ms"].as_f64().and(row["ours_ms"].as_f64()) else { continue };
        let row = predicted.get(&(name.clone(), shape.clone())).unwrap_or_else(|| panic!("no case {name}, {shape}"));
        let ms = row["predicted_ms"].as_f64().unwrap_or_else(|| panic!("{name}, {shape} has no prediction"));
        let bound = row["bound"].as_str().unwrap();
        println!("| {name} | {shape} | {measured:.3} | {ms:.3} | {bound} | {:.2} |", ms / measured);
        ratios.push(ms / measured);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median of {}: {median:.3}", ratios.len());
    let near = ratios.iter().filter(|ratio| (**ratio - 1.0).abs() < 0.1).count();
    assert!(2 * near > ratios.len(), "{near} of {} predictions are within 10 %, median {median:.3}", ratios.len());
}
