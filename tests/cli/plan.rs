//! `omr plan` as users run it.

use std::path::Path;

use serde_json::Value;

use super::training::{failure, run};

fn config(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("configs/openmmreasoner-7b").join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_plan_says_memory_time_and_bound() {
    let small = ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=2"];
    let sft = config("sft.yaml");
    let args = [&["plan", &sft, "--gpu", "h200", "--image-tokens", "256"][..], &small].concat();
    let (code, text, stderr) = run(&args);
    assert_eq!(code, 0, "{stderr}");
    println!("{text}");
    for part in ["sft on one H200", "8.292 B parameters", "with one picture of 256 tokens", "bound", "tokens a day"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (code, text, stderr) = run(&[&args[..], &["--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let plan: Value = serde_json::from_str(&text).unwrap();
    let regions = plan["memory"]["regions"].as_object().unwrap();
    let sum: u64 = regions.values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(Some(sum), plan["memory"]["total"].as_u64());
    // Two passes of 2,048 tokens, each with 3 x 14.14 GFLOP of matrices and 3.5 x 0.41 of attention over 2,048 tokens,
    // and one more product over the vocabulary; an eighth of them with 5.2 GFLOP of tower three times (its full
    // attention goes over 1,024 patches only).
    let floor = plan["floor"]["step"]["seconds"].as_f64().unwrap();
    let predicted = plan["predicted"]["step_seconds"].as_f64().unwrap();
    // A launch takes at least its floor at 1,500 MHz, where tensor cores give 811 TFLOP/s; the floor counts 790.
    assert!(predicted > floor * 790.0 / 811.0, "{predicted} s predicted, {floor} s at least");
    let flops = plan["floor"]["step"]["flops"].as_f64().unwrap();
    let by_hand = 4096.0 * (3.0 * 14.14e9 + 1.09e9 + 3.5 * 0.41e9) + 512.0 * 3.0 * 5.2e9;
    assert!((flops / by_hand - 1.0).abs() < 0.01, "{flops:e} of {by_hand:e}");
}

#[test]
fn what_a_card_would_be_given_is_listed_with_its_work() {
    let dir = tempfile::tempdir().unwrap();
    let listed = |config: &str, more: &[&str]| -> Vec<Value> {
        let path = dir.path().join("launches.jsonl");
        let args = ["plan", config, "--json", "--launches", path.to_str().unwrap()];
        let (code, plan, stderr) = run(&[&args[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        let lines = std::fs::read_to_string(path).unwrap();
        let plan = std::iter::once(serde_json::from_str(&plan).unwrap());
        plan.chain(lines.lines().map(|line| serde_json::from_str(line).unwrap())).collect()
    };
    let small =
        ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=1", "--image-tokens", "256"];
    let sft = listed(&config("sft.yaml"), &small);
    let phases: Vec<&str> = sft.iter().filter_map(|line| line["phase"].as_str()).collect();
    assert_eq!(phases, ["pass", "update"]);
    // The same code on the device that lists and on the one that counts.
    let flops: f64 = sft.iter().filter_map(|line| line["flops"].as_f64()).sum();
    assert_eq!(Some(flops), sft[0]["floor"]["step"]["flops"].as_f64());
    let kernels = |list: &[Value], name: &str| list.iter().filter(|line| line["kernel"] == name).count();
    for kernel in ["attention_fwd_wide_hd128", "attention_bwd_dq_wide_hd128", "attention_bwd_dkv_wide_hd128"] {
        assert_eq!(kernels(&sft, kernel), 28, "{kernel}");
    }
    assert_eq!(kernels(&sft, "grad_norm_finish"), 1);
    // No work is lost on the way from ops to launches.
    let own: f64 = sft.iter().filter_map(|line| line["own_flops"].as_f64()).sum();
    assert!((own / flops - 1.0).abs() < 1e-9, "{own:e} of {flops:e}");

    let rl = listed(&config("rl.yaml"), &[]);
    // Planned for the largest there can be, timed for one there is.
    let passes = |of: &Value| of["passes"].as_f64().or(of["passes"]["seconds"].as_f64()).unwrap();
    let [floor, predicted] = [passes(&rl[0]["floor"]["parts"]), passes(&rl[0]["predicted"]["seconds"])];
    assert!(predicted > floor * 790.0 / 811.0, "{predicted} s predicted, {floor} s at least");
    let steps: Vec<&[Value]> = rl.split(|line| line["phase"] == "decode").skip(1).collect();
    // All products are by wgmma, those of the tower's 3,420 too, which are padded.
    let by_mma = |name: &&str| ["_m16", "_m64", "_m128"].iter().any(|tile| name.ends_with(tile));
    let others: Vec<&str> = sft.iter().chain(&rl).filter_map(|line| line["kernel"].as_str()).filter(by_mma).collect();
    assert!(others.is_empty(), "{others:?}");
    // So is attention, of training, prefill and decode alike; windows of the tower have a kernel of their own.
    let attends = |name: &&str| name.starts_with("paged_attention") || name.starts_with("attention_fwd");
    let mut bodies: Vec<&str> =
        sft.iter().chain(&rl).filter_map(|line| line["kernel"].as_str()).filter(attends).collect();
    bodies.sort();
    bodies.dedup();
    let wide = ["attention_fwd_wide_hd128", "attention_fwd_wide_hd80", "paged_attention_decode_wide_hd128"];
    assert_eq!(bodies, wide);
    // The five of a list, and that of the plan itself, where nobody waits for a block.
    assert_eq!(steps.len(), 6);
    assert_eq!(
        steps[5].iter().filter(|line| line["kernel"].as_str().is_some_and(|k| k.starts_with("paged"))).count(),
        28
    );
    for step in steps {
        assert_eq!(kernels(step, "paged_attention_decode_wide_hd128"), 28);
        assert_eq!(step.iter().filter(|line| line["op"] == "linear").count(), 4 * 28);
    }
}

#[test]
fn what_cannot_be_planned_is_one_error() {
    let sft = config("sft.yaml");
    failure(&["plan", &sft, "--gpus", "8"], 2, &["--gpus", "a plan of several cards is not built yet"]);
    let small = ["packing_length=256", "micro_batch_tokens=256", "--gpu", "l40s"];
    failure(&[&["plan", &sft][..], &small].concat(), 2, &["memory", "weights 15.4 GiB", "micro_batch_tokens"]);
    let rl = config("rl.yaml");
    failure(&["plan", &rl, "micro_batch_tokens=1000"], 2, &["micro_batch_tokens", "32792 tokens"]);
    failure(&["plan", &sft, "--gpu", "a100", "--launches", "unwritten"], 2, &["--launches", "h200 or h100"]);
    failure(&["plan", &sft, "learning_rat=1"], 2, &["learning_rat"]);
}
