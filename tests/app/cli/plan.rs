//! Tests `omr plan` as users run it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::training::{failure, run};

pub fn config(name: &str) -> String {
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
    for part in ["sft on one H200", "8.292 B parameters", "with one image of 256 tokens", "bound", "tokens/day"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (code, text, stderr) = run(&[&args[..], &["--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let plan: Value = serde_json::from_str(&text).unwrap();
    let regions = plan["memory"]["regions"].as_object().unwrap();
    let sum: u64 = regions.values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(Some(sum), plan["memory"]["total"].as_u64());
    // Two passes of 2,048 tokens. Each token needs 3 x 14.14 GFLOP for matrices, 3.5 x 0.41 GFLOP for attention over
    // 2,048 tokens, and one more product over the vocabulary. One eighth of the tokens also need 3 x 5.2 GFLOP in the
    // vision tower, whose full attention covers only 1,024 patches.
    let floor = plan["floor"]["step"]["seconds"].as_f64().unwrap();
    let predicted = plan["predicted"]["step_seconds"].as_f64().unwrap();
    // A launch takes at least its floor at 1,500 MHz, at which tensor cores give 811 TFLOP/s. The floor is computed
    // with 790 TFLOP/s.
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
        let args = ["plan", config, "--json", "--launches", path.to_str().unwrap(), "--overwrite"];
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
    // The list of launches and the plan contain the same work, because both of their devices run the same code.
    let flops: f64 = sft.iter().filter_map(|line| line["flops"].as_f64()).sum();
    assert_eq!(Some(flops), sft[0]["floor"]["step"]["flops"].as_f64());
    let kernels = |list: &[Value], name: &str| list.iter().filter(|line| line["kernel"] == name).count();
    for kernel in ["attention_fwd_wide_hd128", "attention_bwd_dq_wide_hd128", "attention_bwd_dkv_wide_hd128"] {
        assert_eq!(kernels(&sft, kernel), 28, "{kernel}");
    }
    assert_eq!(kernels(&sft, "grad_norm_finish"), 1);
    let rl = listed(&config("rl.yaml"), &["optim=adamw_8bit"]);
    // The work of all launches of a pass is the work of its ops, with and without shared prompts.
    for list in [&sft, &rl] {
        let pass = list.split(|line| line["phase"] == "update").next().unwrap();
        let [own, ops] =
            ["own_flops", "flops"].map(|key| pass.iter().filter_map(|line| line[key].as_f64()).sum::<f64>());
        assert!((own / ops - 1.0).abs() < 1e-9, "{own:e} of {ops:e}");
    }
    // The memory is planned for the largest possible mini-batch, and the time for one that can occur.
    let passes = |of: &Value| of["passes"].as_f64().or(of["passes"]["seconds"].as_f64()).unwrap();
    let [floor, predicted] = [passes(&rl[0]["floor"]["parts"]), passes(&rl[0]["predicted"]["seconds"])];
    assert!(predicted > floor * 790.0 / 811.0, "{predicted} s predicted, {floor} s at least");
    let steps: Vec<&[Value]> = rl.split(|line| line["phase"] == "decode").skip(1).collect();
    // All products use wgmma, including those of the tower's width of 3,420, which is padded.
    let by_mma = |name: &&str| ["_m16", "_m64", "_m128"].iter().any(|tile| name.ends_with(tile));
    let others: Vec<&str> = sft.iter().chain(&rl).filter_map(|line| line["kernel"].as_str()).filter(by_mma).collect();
    assert!(others.is_empty(), "{others:?}");
    // Attention uses wgmma, too, in training, prefill and decode. Windows of the tower have their own kernel.
    let attends = |name: &&str| name.starts_with("paged_attention") || name.starts_with("attention_fwd");
    let mut bodies: Vec<&str> =
        sft.iter().chain(&rl).filter_map(|line| line["kernel"].as_str()).filter(attends).collect();
    bodies.sort();
    bodies.dedup();
    let wide = [
        "attention_fwd_wide_hd128",
        "attention_fwd_wide_hd80",
        "paged_attention_decode_wide_hd128",
        "paged_attention_prefill_wide_hd128",
    ];
    assert_eq!(bodies, wide);
    // Five decode steps are in the list. The sixth is the decode step of the plan itself, in which no sequence waits
    // for a block.
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

/// Tests a config that eight GPUs of 80 GB can run and one GPU cannot. The table shows both cases.
#[test]
fn numbers_of_gpus_stand_side_by_side() {
    let small = ["packing_length=4096", "micro_batch_tokens=4096", "gradient_accumulation_steps=8"];
    let sft = config("sft.yaml");
    let args = ["plan", &sft, "--gpu", "a100", "--image-tokens", "256", "--gpus", "8", "optim=adamw_8bit"];
    let (code, text, stderr) = run(&[&args[..], &small].concat());
    assert_eq!(code, 0, "{stderr}");
    println!("{text}");
    for part in
        ["sft on 8 A100", "sent", "what goes over TCP", "No run on two GPUs", "more memory on 64 GPUs than on 32"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (_, table) = text.split_once("Lower bounds, not measured:\n").unwrap();
    let cells = |name: &str| -> Vec<&str> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect()
    };
    assert_eq!(cells("GPUs"), ["1", "8"]);
    assert_eq!((cells("memory per GPU")[0], cells("step ")[0]), ("-", "-"));
    assert!(table.contains("\n1 GPU(s): memory: found a run that needs at least "), "{table}");
    assert_eq!(cells("tokens per row"), ["-", "4096"]);

    // Sequences that are too long are replaced by the longest that fit into the memory that the config allows.
    let long = ["packing_length=49152", "micro_batch_tokens=49152", "max_memory_gib=50"];
    let (code, text, stderr) = run(&[&args[..], &long].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(text.starts_with("The rows of the config do not fit: memory: found a run that needs at least "), "{text}");
    let (_, longest) = text.split_once("adamw_8bit: ").unwrap();
    let longest: usize = longest.split('.').next().unwrap().parse().unwrap();
    assert!((8192..49_152).contains(&longest), "{longest}");
    assert!(text.contains(&format!("32 packs of {longest} tokens")), "{text}");
}

/// Checks what two GPUs exchange if an update has eight micro-batches, so that each GPU has four.
#[test]
fn lanes_beyond_the_cards_have_their_price() {
    let small = ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=8", "gradient_lanes=8"];
    let sft = config("sft.yaml");
    let args = ["plan", &sft, "--gpu", "a100", "--image-tokens", "256", "--gpus", "2", "--json"];
    let (code, text, stderr) = run(&[&args[..], &small].concat());
    assert_eq!(code, 0, "{stderr}");
    let plan: Value = serde_json::from_str(&text).unwrap();
    let number = |of: &Value| of.as_u64().unwrap();
    let (update, micro_batch) = (&plan["update"], &plan["micro_batch"]);
    let near = |found: u64, expected: u64| {
        assert!(found.abs_diff(expected) < expected / 500, "{found}, {expected} by hand");
    };
    let weights = number(&plan["memory"]["regions"]["weights"]) / 2;
    // Gradients are f32. For each micro-batch, a GPU sends the half of the gradients that the other GPU owns. For the
    // update, it sends its own half of the weights.
    near(number(&micro_batch["sent"]), 4 * weights / 2);
    near(number(&micro_batch["received"]), 4 * weights / 2);
    near(number(&update["sent"]), 2 * weights / 2);
    near(number(&update["received"]), 2 * weights / 2);
    // Eight lanes of one micro-batch each are four micro-batches for each GPU.
    let (_, text, _) = run(&[&args[..args.len() - 1], &small].concat());
    println!("{text}");
    // The region contains half of the state, and the larger states of norms, biases and the token table.
    let (state, all) = (number(&plan["memory"]["regions"]["state"]), number(&update["state"]));
    assert!(state * 2 >= all && state < all * 2 / 3, "{state} of {all}");
}

/// Tests 12 GPUs, of which eight are on one node and four on another. The four GPUs have 8 peers over the network, so
/// their transfers take longest.
#[test]
fn a_node_that_is_not_full_waits_longest() {
    let small = ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=12"];
    let sft = config("sft.yaml");
    let args = ["plan", &sft, "--gpu", "a100", "--image-tokens", "256", "--gpus", "12", "--json"];
    let (code, text, stderr) = run(&[&args[..], &small].concat());
    assert_eq!(code, 0, "{stderr}");
    let plan: Value = serde_json::from_str(&text).unwrap();
    let most = |of: &Value| of["received"].as_f64().unwrap().max(of["sent"].as_f64().unwrap());
    // The network port has 200 Gb/s, of which 47/50 are reached.
    let seconds = |of: &Value| most(of) / 11.0 * 8.0 / (25e9 * 47.0 / 50.0);
    // Each GPU has one micro-batch. The gradients of the vision tower and the token table are sent after backward, and
    // the others beside it, unless they take longer than the pass.
    let number = |of: &Value| of.as_f64().unwrap();
    let (all, pass) = (seconds(&plan["micro_batch"]), number(&plan["floor"]["parts"]["passes"]["seconds"]));
    let exposed = number(&plan["micro_batch"]["exposed"]);
    assert!((0.14..0.16).contains(&exposed), "{exposed}");
    let by_hand = seconds(&plan["update"]) + (exposed * all).max(all - pass);
    let links = number(&plan["floor"]["links"]);
    assert!((links / by_hand - 1.0).abs() < 1e-9, "{links} s, {by_hand} s by hand");
}

/// Compares `dist.overlap: false`, with which the exchange of gradients is exposed, with the default, with which backward
/// has eight of 132 multiprocessors less for as long.
#[test]
fn an_exchange_beside_backward_takes_its_multiprocessors() {
    let sft = config("sft.yaml");
    let [with, without] = ["true", "false"].map(|overlap| -> Value {
        let small = ["packing_length=8192", "micro_batch_tokens=8192", &format!("dist.overlap={overlap}")];
        let args = ["plan", &sft, "--gpu", "h200", "--image-tokens", "256", "--gpus", "8", "--json"];
        let (code, text, stderr) = run(&[&args[..], &small].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&text).unwrap()
    });
    let links = |plan: &Value| plan["floor"]["links"].as_f64().unwrap();
    let hidden = links(&without) - links(&with);
    let predicted = |plan: &Value| plan["predicted"]["step_seconds"].as_f64().unwrap();
    let gained = predicted(&without) - predicted(&with);
    println!("{hidden} s beside backward, which makes a step {gained} s shorter");
    assert!(hidden > 0.0 && (gained / hidden - (1.0 - 8.0 / 124.0)).abs() < 1e-6, "{gained} s of {hidden} s");
    assert_eq!(without["micro_batch"]["exposed"], 1.0);
}

#[test]
fn what_cannot_be_planned_is_one_error() {
    let sft = config("sft.yaml");
    failure(&["plan", &sft, "--gpus", "0"], 2, &["--gpus", "at least 1"]);
    failure(&["plan", &sft, "--gpus", "2147483648"], 2, &["--gpus", "2147483648", "at most 65536"]);
    for clock in ["0", "-1", "nan", "inf", "1e308"] {
        failure(&["plan", &sft, &format!("--clock={clock}")], 2, &["--clock", "1 to 100000 MHz"]);
    }
    let small = ["packing_length=256", "micro_batch_tokens=256", "--gpu", "l40s"];
    failure(&[&["plan", &sft][..], &small].concat(), 2, &["memory", "weights 15.4 GiB", "fit"]);
    let rl = config("rl.yaml");
    failure(&["plan", &rl, "micro_batch_tokens=1000"], 2, &["micro_batch_tokens", "32792 tokens"]);
    failure(&["plan", &sft, "--gpu", "a100", "--launches", "unwritten"], 2, &["--launches", "h200 or h100"]);
    failure(&["plan", &sft, "learning_rat=1"], 2, &["learning_rat"]);
    let (code, _, stderr) = run(&["plan", &sft, "--gpu", "h300"]);
    let parts = ["'h300'", "--gpu", "b200", "rtx-pro-6000", "a100-40", "4090"];
    assert!(code == 2 && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    let (code, _, stderr) = run(&["plan", &sft, "--table", "--gpu", "h100"]);
    assert!(code == 2 && stderr.contains("'--table' cannot be used with '--gpu"), "{stderr}");
}

/// Tests that 7B fits with adapters on GPUs of 24 GB, and that memory that is free stores activations and keys. A has
/// 16 (3 x 3584 + 3584 + 2 x 3584 + 18944) weights in a layer, B has 16 (3584 + 2 x 512 + 3584 + 2 x 18944 + 3584).
#[test]
fn adapters_fit_on_24_gb_and_use_what_is_free() {
    let plan = |config_name: &str, gpu: &str, more: &[&str]| -> Value {
        let config = config(config_name);
        let (code, text, stderr) = run(&[&["plan", &config, "--gpu", gpu, "--json", "lora.rank=16"], more].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&text).unwrap()
    };
    let sft = ["packing_length=4096", "micro_batch_tokens=4096", "optim=adamw_torch"];
    let [small, large] = ["4090", "a100"].map(|gpu| plan("sft.yaml", gpu, &sft));
    let adapters = 28 * 16 * (3 * 3584 + 3584 + 2 * 3584 + 18_944 + 3584 + 1024 + 3584 + 2 * 18_944 + 3584);
    assert_eq!(large["adapter_parameters"], adapters);
    // Moments and low halves are 10 bytes per weight, without padding on a GPU.
    let bytes = |key: &str| large["memory"]["regions"][key].as_u64().unwrap();
    assert!((10 * adapters..10 * adapters + (1 << 20)).contains(&bytes("state")), "{large}");
    assert!((2 * 8_292_000_000..2 * 8_600_000_000).contains(&bytes("weights")), "{large}");
    // Three checkpoints and the one being written contain the f32 masters and the state.
    assert_eq!(large["disk"], 4 * (4 * adapters + large["update"]["state"].as_u64().unwrap()));
    assert_eq!(large["kept"]["text"], json!([0, 0, 28]));
    assert_ne!(small["kept"]["text"], json!([0, 0, 28]));
    let rl = ["max_prompt_length=1024", "max_response_length=7168", "micro_batch_tokens=8192"];
    let batch = ["rollout.max_num_batched_tokens=8192", "train_batch_size=8", "ppo_mini_batch_size=8"];
    plan("rl.yaml", "l40s", &[&rl[..], &batch].concat());
}

/// Runs `omr plan --table --json`. Plans each of its hints on the GPU that it is for, and the config without the hint. If
/// several GPUs have the same hint, plans the one with the least memory. Returns the keys of all hints.
fn hints_hold(config: &str, more: &[&str]) -> Vec<String> {
    let (code, text, stderr) = run(&[&["plan", config, "--table", "--json"], more].concat());
    assert_eq!(code, 0, "{stderr}");
    let table: Value = serde_json::from_str(&text).unwrap();
    let mut hints: BTreeMap<(String, Vec<String>), &Value> = BTreeMap::new();
    for cell in table["cells"].as_array().unwrap() {
        assert_eq!(cell["fits"], cell["needs"].as_u64() <= cell["available"].as_u64(), "{cell}");
        let Some(changes) = cell["hint"]["changes"].as_array() else { continue };
        let set = changes.iter().flat_map(|change| change["set"].as_array().unwrap());
        let set = set.map(|typed| typed.as_str().unwrap().to_owned()).collect();
        // GPUs whose times are predicted take longer to plan.
        if !["h100", "h200"].contains(&cell["gpu"].as_str().unwrap()) {
            hints.insert((cell["gpus"].to_string(), set), cell);
        }
    }
    for ((gpus, set), cell) in &hints {
        let gpu = cell["gpu"].as_str().unwrap();
        let args = [&["plan", config, "--gpu", gpu, "--gpus", gpus], more].concat();
        if gpus == "1" {
            failure(&args, 2, &["memory", "it fits with", &set.join(" ")]);
        }
        let typed: Vec<&str> = set.iter().map(String::as_str).collect();
        let (code, text, stderr) = run(&[&args[..], &typed, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?} {typed:?}: {stderr}");
        let plan: Value = serde_json::from_str(&text).unwrap();
        let (total, budget) = (plan["memory"]["total"].as_u64(), plan["memory"]["budget"].as_u64());
        assert!(plan["as_configured"] != false && total <= budget, "{args:?} {typed:?}: {text}");
        assert_eq!(budget, cell["available"].as_u64());
    }
    let keys = hints.keys().flat_map(|(_, set)| set.iter().map(|typed| typed.split('=').next().unwrap().to_owned()));
    keys.collect::<BTreeSet<String>>().into_iter().collect()
}

#[test]
fn each_hint_of_the_table_makes_the_run_fit() {
    let small = ["packing_length=4096", "micro_batch_tokens=65536", "optim=adamw_torch"];
    let found = hints_hold(&config("sft.yaml"), &small);
    assert!(
        ["optimizer_offload", "micro_batch_tokens"].iter().all(|key| found.contains(&(*key).to_owned())),
        "{found:?}"
    );
}

#[test]
#[ignore = "slow: a minute"]
fn each_hint_for_the_published_settings_makes_the_run_fit() {
    let (sft, rl) = (config("sft.yaml"), config("rl.yaml"));
    let found = hints_hold(&sft, &[]);
    assert!(found.contains(&"packing_length".to_owned()), "{found:?}");
    // Fewer prompts change the memory by less than a tenth, and the plan is ready ten times sooner.
    let prompts = ["train_batch_size=8", "ppo_mini_batch_size=8"];
    let found = hints_hold(&rl, &prompts);
    assert!(found.contains(&"max_response_length".to_owned()), "{found:?}");
    let small = ["max_prompt_length=1024", "max_response_length=1024", "micro_batch_tokens=32768", "rollout.n=4"];
    let found = hints_hold(&rl, &[&small[..], &prompts].concat());
    assert!(found.contains(&"micro_batch_tokens".to_owned()), "{found:?}");
}

#[test]
fn the_table_of_gpus_fits_in_100_columns() {
    let (code, text, stderr) = run(&["plan", &config("sft.yaml"), "--table"]);
    assert_eq!(code, 0, "{stderr}");
    println!("{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for part in ["\nB200          179 fits ", "\nRTX PRO 6000 ", "\nRTX 4090 "] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // One H200 has no room for the published optimizer. The first change to propose is 8-bit Adam.
    let at = text.lines().position(|line| line.starts_with("H200")).unwrap();
    let rows: Vec<&str> = text.lines().skip(at).take(2).collect();
    assert_eq!(rows[0].matches("fits").count(), 4, "{text}");
    assert!(rows[1].trim_start().starts_with("8-bit Adam"), "{text}");
}

/// `configs/openmmreasoner-7b` has a `model/` of its own.
#[test]
fn a_published_name_is_planned_although_another_model_lies_beside_the_config() {
    let small = ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=1", "--gpu", "l40s"];
    let sft = config("sft.yaml");
    let args = ["plan", &sft, "model=Qwen/Qwen3-VL-2B-Instruct", "lora.rank=16"];
    let (code, text, stderr) = run(&[&args[..], &small].concat());
    assert!(code == 0 && text.contains("2.128 B parameters"), "{stderr}{text}");
}

/// Plans SFT and RL of each size, of all weights and of adapters. Either the run fits, or the error states what it needs.
#[test]
#[ignore = "slow: minutes"]
fn qwen3_vl_of_each_size_is_planned_on_four_kinds_of_gpus() {
    let sft =
        ["packing_length=4096", "micro_batch_tokens=4096", "gradient_accumulation_steps=1", "gradient_lanes=null"];
    let rl = ["max_prompt_length=1024", "max_response_length=1024", "micro_batch_tokens=4096", "rollout.n=4"];
    let batch = ["rollout.max_num_batched_tokens=4096", "train_batch_size=8", "ppo_mini_batch_size=8"];
    let stages = [(config("sft.yaml"), sft.to_vec()), (config("rl.yaml"), [&rl[..], &batch].concat())];
    let sizes = [("2B", "2.128"), ("4B", "4.438"), ("8B", "8.767"), ("32B", "33.357")];
    for ((size, parameters), (config, keys)) in sizes.iter().flat_map(|size| stages.iter().map(move |s| (size, s))) {
        let model = format!("model=Qwen/Qwen3-VL-{size}-Instruct");
        let fits = [None, Some("lora.rank=16")].map(|adapter| {
            let args = [&["plan", config, &model], &keys[..], adapter.as_slice()].concat();
            let on = |gpu: &str| {
                let (code, text, stderr) = run(&[&args[..], &["--gpu", gpu]].concat());
                match code {
                    0 => assert!(text.contains(&format!("{parameters} B parameters")), "{text}"),
                    _ => assert!(code == 2 && stderr.contains("needs at least"), "{args:?} {gpu}: {stderr}"),
                }
                code == 0
            };
            let fits = ["4090", "l40s", "h100", "h200"].map(on);
            assert!(fits.is_sorted(), "{args:?}: a smaller GPU has room, a larger one has not: {fits:?}");
            let (code, text, stderr) = run(&[&args[..], &["--table", "--json"]].concat());
            assert_eq!(code, 0, "{args:?}: {stderr}");
            let table: Value = serde_json::from_str(&text).unwrap();
            let alone = |cell: &&Value| cell["gpus"] == 1 && cell["gpu"] == "h200";
            let cell = table["cells"].as_array().unwrap().iter().find(alone).unwrap();
            assert_eq!(cell["fits"], fits[3], "{args:?}: {cell}");
            fits
        });
        assert!(fits[0].iter().zip(&fits[1]).all(|(full, lora)| full <= lora), "{model}: {fits:?}");
    }
}

#[test]
fn a_7b_trains_adapters_on_16_gb_with_a_quantised_base() {
    let (sft, rl) = (config("sft.yaml"), config("rl.yaml"));
    let sft = ["plan", &sft, "packing_length=4096", "lora.rank=16"];
    let rl = [
        &["plan", &rl, "lora.rank=16", "max_prompt_length=2048", "max_response_length=6144", "rollout.n=16"][..],
        &["train_batch_size=1", "ppo_mini_batch_size=1", "micro_batch_tokens=8192", "rollout.max_num_seqs=16"],
        &["rollout.max_num_batched_tokens=2048"],
    ]
    .concat();
    let memory = |args: &[&str], format: &str| -> u64 {
        let format = format!("quantization={format}");
        let (code, text, stderr) = run(&[args, &["--gpu", "rtx-4080", "--json", &format]].concat());
        assert_eq!(code, 0, "{stderr}");
        let plan: Value = serde_json::from_str(&text).unwrap();
        plan["memory"]["regions"]["weights"].as_u64().unwrap()
    };
    let [int8, nf4] = ["int8", "nf4"].map(|format| memory(&sft, format));
    // 6.5 B weights of the layers in 8.125 or 4.5 bits, the rest in bf16.
    assert!(nf4 + (2 << 30) < int8 && int8 < 10 << 30, "{int8} {nf4}");
    assert_eq!(memory(&rl, "nf4"), nf4);
    // The plan names matrices that a format cannot store: rows of 3,420 terms in the tower.
    let all = [&sft[..], &["--gpu", "4080", "quantization={base: nf4, skip_modules: [lm_head]}"]].concat();
    let (code, text, stderr) = run(&all);
    let said =
        "in nf4, none of lm_head (skip_modules); 32 more keep bf16, because their rows are not whole blocks of 64";
    assert!(code == 0 && text.contains(said), "{text}{stderr}");
    // The error names the format as a change that helps, and what RL lacks with int8.
    failure(&[&sft[..], &["--gpu", "4080"]].concat(), 2, &["memory", "it fits with quantization=int8"]);
    failure(&[&rl[..], &["--gpu", "4080", "quantization=int8"]].concat(), 2, &["memory", "at least 15.8 GiB"]);
    failure(&[&sft[..3], &["quantization=int8"]].concat(), 2, &["quantization", "null without lora"]);
    // The memory of the GPU can be given, and older GPUs are answered with the reason.
    assert_eq!(memory(&[&sft[..], &["--gpu-memory", "12.5GiB"]].concat(), "nf4"), nf4);
    failure(
        &[&sft[..], &["--gpu-memory", "9GiB", "quantization=nf4"]].concat(),
        2,
        &["memory", "expected at most 8.0 GiB"],
    );
    // What would help was counted for the given memory.
    failure(
        &[&sft[..], &["--gpu-memory", "9GiB"]].concat(),
        2,
        &["memory", "expected at most 8.0 GiB", "quantization=nf4"],
    );
    assert_eq!(run(&[&sft[..], &["--table", "--gpu-memory", "9GiB"]].concat()).0, 2, "the table would ignore it");
    for (flag, value, expected) in [("--gpu", "t4", "t4 has no bf16"), ("--gpu-memory", "16", "a number of GiB")] {
        let (code, _, stderr) = run(&[&sft[..], &[flag, value]].concat());
        assert!(code == 2 && stderr.contains(expected), "{stderr}");
    }
}

/// Tests the questions of a user: how long does my run take, how many epochs are that, and what do the words mean?
#[test]
fn a_plan_states_steps_epochs_and_hours_of_the_whole_run() {
    let plan = |config: &str, more: &[&str]| -> (String, Value) {
        let args = [&["plan", config, "--gpu", "h200", "--image-tokens", "256"][..], more].concat();
        let (code, text, stderr) = run(&args);
        assert_eq!(code, 0, "{stderr}");
        let (code, json, stderr) = run(&[&args[..], &["--json"]].concat());
        assert_eq!(code, 0, "{stderr}");
        (text, serde_json::from_str(&json).unwrap())
    };
    let (sft, rl) = (config("sft.yaml"), config("rl.yaml"));
    let small = ["packing_length=2048", "micro_batch_tokens=2048", "gradient_accumulation_steps=2"];
    // 2 packs of 4 rows per update.
    let rows = ["--row-tokens", "512", "--data-rows", "1000"];
    let (text, json) = plan(&sft, &[&small[..], &rows].concat());
    assert!(text.contains("whole run     4300 steps, 34.4 epochs: at least "), "{text}");
    let hours = 4300.0 * json["predicted"]["step_seconds"].as_f64().unwrap() / 3600.0;
    assert!((json["run"]["predicted_hours"].as_f64().unwrap() / hours - 1.0).abs() < 1e-9, "{json}");
    for part in [
        "weights       15.4 GiB  model weights, padded, in bf16 unless they are quantised",
        "optimizer state, divided among the GPUs",
        "memory for one purpose at a time: gradients and stored activations, or in RL the KV cache",
        "scratch memory of single ops",
        "stores as many activations as fit",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (_, json) = plan(&sft, &[&small[..], &rows, &["max_steps=null", "num_train_epochs=3"]].concat());
    assert_eq!((&json["run"]["steps"], &json["run"]["epochs"]), (&json!(375), &json!(3.0)));
    // 8 rows per update, whatever the packs contain.
    let fixed =
        ["packing_length=2048", "micro_batch_tokens=2048", "train_batch_size=8", "gradient_accumulation_steps=1"];
    let (_, json) = plan(&sft, &[&fixed[..], &rows, &["max_steps=null", "num_train_epochs=3"]].concat());
    assert_eq!((&json["run"]["steps"], &json["run"]["epochs"]), (&json!(375), &json!(3.0)));
    let (text, json) = plan(&sft, &[&small[..], &["max_steps=null"]].concat());
    assert!(text.contains("whole run     1 epochs; --data-rows N") && json["run"]["hours"].is_null(), "{text}");

    // 15 epochs of 74,695 questions in batches of 128. Shorter responses take less time and no other memory.
    let short = ["max_response_length=2048", "micro_batch_tokens=6144", "optim=adamw_8bit", "rollout.n=2"];
    let short = [&short[..], &["--row-tokens", "512", "--data-rows", "74695"]].concat();
    let (text, full) = plan(&rl, &short);
    assert!(text.contains("whole run     8754 steps, 15 epochs: at least "), "{text}");
    let wanted = " if each response has 2048 tokens (a step ends with its longest response)\n";
    assert!(text.contains(wanted), "{text}");
    let (text, mean) = plan(&rl, &[&short[..], &["--mean-response", "512"]].concat());
    assert!(text.contains(" if each response has 512 tokens ") && mean["memory"] == full["memory"], "{text}");
    let hours = |json: &Value| json["run"]["predicted_hours"].as_f64().unwrap();
    assert!(hours(&mean) < hours(&full) / 2.0, "{} {}", hours(&mean), hours(&full));
    failure(
        &[&["plan", &rl][..], &short, &["--image-tokens", "256", "--mean-response", "3000"]].concat(),
        2,
        &["--mean-response", "1 to 2048, which is max_response_length"],
    );
    let wrong = [&["plan", &sft][..], &small, &["--image-tokens", "256", "--mean-response", "300"]].concat();
    failure(&wrong, 2, &["--mean-response", "--row-tokens"]);
}
