//! Checks docs/user/moving-in.md: its configs work, and the program answers each key of another system as the page does.

use std::fs;
use std::path::Path;
use std::process::Command;

use omr_base::config::{Config, RlConfig, SftConfig, keys, load};
use omr_data_tests::rows::layouts::made;
use omr_train_tests::training::tiny;
use serde_json::Value;

use super::help::omr;

/// A row of a table: settings of another system, our lines, and what differs.
struct Row<'a> {
    theirs: Vec<&'a str>,
    ours: Vec<&'a str>,
    differs: &'a str,
}

/// Returns the text in backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the tables of the page: the name of our config, and the rows.
fn tables(page: &str) -> Vec<(&str, Vec<Row<'_>>)> {
    let mut out: Vec<(&str, Vec<Row>)> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
        let [theirs, ours, differs] = cells[..] else { panic!("{line}") };
        match code(theirs)[..] {
            [] => out.push((code(ours)[0], Vec::new())),
            _ => out.last_mut().unwrap().1.push(Row { theirs: code(theirs), ours: code(ours), differs }),
        }
    }
    out
}

/// Appends the paths of all keys and groups in `value`.
fn paths(at: &str, value: &Value, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            paths(format!("{at}.{name}").trim_start_matches('.'), value, out);
        }),
        Value::Array(list) => list.iter().for_each(|value| paths(&format!("{at}[]"), value, out)),
        _ => {}
    }
}

/// Returns what the program expects instead of `key`, without the hint.
fn answer<C: Config>(key: &str) -> String {
    let error = load::<C>(None, &[format!("{key}=1")], &|_| None).err().unwrap_or_else(|| panic!("{key} is a key"));
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    let found = text.strip_prefix(&format!("command line: {key}: found the unknown key ")).expect(&text);
    let (_, expected) = found.split_once(", expected ").expect(&text);
    expected.strip_suffix(" (`omr config` lists all keys with their names in other systems)").expect(&text).to_owned()
}

/// Checks the keys of a row. Returns those that omr does not have.
fn check<'a, C: Config>(row: &Row<'a>) -> Vec<&'a str> {
    let mut ours = Vec::new();
    for line in &row.ours {
        match line.starts_with("--") {
            true => ours.push((*line).to_owned()),
            false => paths("", &serde_saphyr::from_str(line).expect(line), &mut ours),
        }
    }
    let known = keys::<C>();
    let names = row.theirs.iter().map(|setting| setting.split([':', '=']).next().unwrap());
    let (same, foreign): (Vec<&str>, Vec<&str>) = names.partition(|name| known.iter().any(|key| key.path == *name));
    same.iter().for_each(|name| assert!(ours.iter().any(|key| key == name), "{name} is a key, the page has {ours:?}"));
    for name in &foreign {
        let answer = answer::<C>(name);
        let (keys, note) =
            answer.split_once(" (").map_or((&*answer, None), |(keys, note)| (keys, note.strip_suffix(')')));
        match keys {
            "nothing" => assert!(row.ours.is_empty(), "{name}: {answer}, the page has {ours:?}"),
            _ => assert!(keys.split(" or ").any(|key| ours.iter().any(|o| o == key)), "{name}: {answer}, {ours:?}"),
        }
        assert!(note.is_none_or(|note| note == row.differs), "{name}: {answer}, the page has {}", row.differs);
    }
    foreign
}

/// Checks all rows of a table, and that one error contains all of its keys.
fn check_all<C: Config>(rows: &[Row]) {
    let foreign: Vec<&str> = rows.iter().flat_map(check::<C>).collect();
    assert!(foreign.len() >= 5, "{foreign:?}");
    let typed: Vec<String> = foreign.iter().map(|key| format!("{key}=1")).collect();
    let text = load::<C>(None, &typed, &|_| None).err().unwrap().to_string();
    assert!(text.contains(&format!("found {} unknown keys, expected these instead (", foreign.len())), "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(" -> "));
    let listed: Vec<&str> = lines.map(|(name, _)| name).collect();
    foreign.iter().for_each(|key| assert!(listed.contains(key), "{key} is not in {text}"));
}

#[test]
fn moving_in_names_the_keys_that_the_program_names_and_its_configs_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/user/moving-in.md")).unwrap();
    assert!(page.lines().count() <= 150);
    let (page, lora) = page.split_once("\n## LoRA\n").unwrap();
    assert!(["| LLaMA-Factory |", "| verl |", "| TRL |", "| PEFT |", "| omr |"].iter().all(|row| lora.contains(row)));
    let tables = tables(page);
    assert_eq!(
        tables.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["sft.yaml", "rl.yaml", "sft.yaml", "rl.yaml"]
    );
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    tiny::tuned_model(&at("base"));
    fs::create_dir(at("data")).unwrap();
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").arg("-r").arg(made().join(from)).arg(at(to)).status().unwrap();
        assert!(copied.success(), "{from}");
    };
    ["llama_factory/.", "verl/.", "trl/."].iter().for_each(|layout| copy(layout, "data"));
    copy("verl/train.parquet", "data/test.parquet");
    // The rows name their images by paths from the working directory.
    copy("verl", "verl");
    for (name, rows) in &tables {
        let lines = rows.iter().flat_map(|row| &row.ours).filter(|line| !line.starts_with("--"));
        fs::write(at(name), lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let command = name.strip_suffix(".yaml").unwrap();
        let args = ["--device", "cpu", command, *name, "--out", "out", "--dry-run"];
        let output = omr().current_dir(dir.path()).args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("read 60 rows: 60 images"), "{name}: {text}");
        match command {
            "sft" => check_all::<SftConfig>(rows),
            _ => check_all::<RlConfig>(rows),
        }
    }
}

/// Converts a file in `tests/app/cli/moving_in`, and starts the command of its first line with `paths`. Returns our config.
fn converted(file: &str, gpus: &str, command: &str, paths: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    tiny::base_model(&dir.path().join("base"));
    let theirs = root.join("tests/app/cli/moving_in").join(file);
    let output = omr().args(["config", "--gpus", gpus, "--from"]).arg(theirs).output().unwrap();
    let ours = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = ours.lines().next().unwrap();
    assert!(first.contains(&format!("omr {command} THIS_FILE --out DIR")), "{first}");
    fs::write(dir.path().join("ours.yaml"), &ours).unwrap();
    // A stand-in for the package of W&B, to which verl's example reports.
    fs::write(dir.path().join("wandb.py"), "").unwrap();
    let args = ["--device", "cpu", command, "ours.yaml", "--out", "out", "--dry-run", "model=base"];
    let output = omr().current_dir(dir.path()).env("PYTHONPATH", ".").args(args).args(paths).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("read 60 rows"), "{file}: {text}\n{ours}");
    ours
}

/// Checks that `ours` contains each of the lines.
pub fn contains(ours: &str, lines: &[&str]) {
    for line in lines {
        assert!(ours.lines().any(|found| found.trim() == *line), "{line} is not in\n{ours}");
    }
}

#[test]
fn the_gspo_example_of_verl_is_converted_and_starts() {
    let folder = made().display();
    let rows = format!("[{{path: {folder}/verl/train.parquet, data_folder: {folder}}}]");
    let paths = [format!("train_files={rows}"), format!("val_files={rows}")];
    let ours = converted("verl_gspo.sh", "8", "rl", &paths.each_ref().map(String::as_str));
    contains(
        &ours,
        &[
            "loss_mode: gspo",
            "clip_ratio_high: 0.0004",
            "max_response_length: 8192",
            // 5 % of the 500 steps.
            "warmup_steps: 25",
            "micro_batch_tokens: 20480",
            "\"n\": 16",
            "- /data/gsm8k/train.parquet",
            "- wandb",
            "temperature: 1.0",
            "# trainer.n_gpus_per_node: 8 -> --gpus N",
            "# actor_rollout_ref.rollout.mode: async -> nothing (omr has its own sampler, which uses the trainer's weights directly)",
            "# trainer.nnodes: ${SLURM_JOB_NUM_NODES} -> torchrun, srun or mpirun, one process per GPU",
        ],
    );
    assert!(!ours.contains("local_save_dir"), "{ours}");
}

#[test]
fn the_lora_example_of_llama_factory_is_converted_and_starts() {
    let folder = made().display();
    let datasets =
        format!("datasets=[{{path: {folder}/llama_factory/sharegpt.json, data_folder: {folder}/llama_factory/media}}]");
    let ours = converted("llama_factory_qwen2_5vl_lora.yaml", "1", "sft", &[&datasets]);
    contains(
        &ours,
        &[
            // The default of LLaMA-Factory is twice the rank.
            "rank: 8",
            "alpha: 16",
            "train_batch_size: 8",
            "packing_length: 2048",
            "report_to: []",
            "dtype: bf16",
            "- path: alpaca_en_demo",
            "limit: 1000",
            "dataloader_num_workers: 4",
            "# template: qwen2_vl -> nothing (the chat template of the model directory is used)",
        ],
    );
    assert!(!ours.contains("gradient_accumulation_steps:"), "{ours}");
}

#[test]
fn the_grpo_script_for_vlms_of_trl_is_converted_and_starts() {
    let rows = made().join("trl/grpo.parquet").display().to_string();
    let files = format!("train_files=[{rows}]");
    let ours = converted("trl_grpo_vlm.sh", "8", "rl", &[&files]);
    contains(
        &ours,
        &[
            "learning_rate: 0.00001",
            "loss_mode: vanilla",
            "loss_agg_mode: token-mean",
            // 8 rows x 8 GPUs / 8 generations.
            "ppo_mini_batch_size: 8",
            "train_batch_size: 8",
            "# lora_alpha: 32 (default of TRL) -> lora.alpha",
            "warmup_steps: 0",
            "max_response_length: 1024",
            "alpha: 32",
            "- v_proj",
            "# vllm_mode: colocate -> nothing (omr has its own sampler, which uses the trainer's weights directly)",
        ],
    );
}

/// verl's newer examples collect their settings in arrays, and set values for each kind of processor.
#[test]
fn a_script_of_verl_with_arrays_and_conditions_is_converted() {
    let rows = format!("train_files=[{{path: {0}/verl/train.parquet, data_folder: {0}}}]", made().display());
    let ours = converted("verl_arrays.sh", "8", "rl", &[&rows, "val_files=[]"]);
    let first =
        ["train_batch_size: 512", "max_response_length: 2048", "ppo_mini_batch_size: 128", "\"n\": 5", "save_freq: 20"];
    contains(&ours, &first);
    contains(
        &ours,
        &[
            "# actor_rollout_ref.rollout.enforce_eager: true -> nothing (omr has its own sampler, which uses the trainer's weights directly)",
        ],
    );
}

#[test]
fn fine_tuning_of_verl_and_lmms_engine_and_the_steps_of_trl_are_converted() {
    let dir = tempfile::tempdir().unwrap();
    let convert = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        let output = omr().args(["config", "--gpus", "2", "--from"]).arg(dir.path().join(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let verl = "extra=()\nif [ $USE = 1 ]; then\n  extra+=(model.lora_rank=32 model.lora_alpha=16)\nfi\n\
        torchrun --nproc_per_node=2 -m verl.trainer.sft_trainer data.train_files=a.parquet optim.lr=1e-4 \\\n\
        model=hf_model model.path=base trainer.total_epochs=2 \"${extra[@]}\" \"$@\"\n";
    let ours = convert("verl.sh", verl);
    contains(&ours, &["datasets: a.parquet", "learning_rate: 0.0001", "num_train_epochs: 2", "rank: 32", "alpha: 16"]);
    contains(&ours, &["model: base", "train_batch_size: 256", "warmup_ratio: 0", "lr_scheduler_type: constant"]);
    // The trainer before it has other defaults and names.
    let before = "torchrun -m verl.trainer.fsdp_sft_trainer data.train_files=a.parquet model.partial_pretrain=Qwen/Qwen2.5-VL-7B-Instruct \\\n\
        model.lora_rank=8 model.target_modules=all-linear\n";
    let ours = convert("before.sh", before);
    contains(&ours, &["learning_rate: 0.00001", "adam_beta2: 0.95", "vision: true"]);
    // Cosine with a warm-up of a tenth is omr's default, too.
    assert!(!ours.contains("lr_scheduler_type") && !ours.contains("warmup_ratio"), "{ours}");
    // verl's default is `all-linear`. It leaves the tower out if the script excludes it, and a text model has none.
    for (more, vision) in
        [("", true), (" model.exclude_modules='.*visual.*'", false), (" model.path=/data/VLM/Qwen3-8B", false)]
    {
        let script = format!(
            "torchrun -m verl.trainer.sft_trainer data.train_files=a.parquet model.path=Qwen/qwen2.5-vl-7b-instruct \
             model.lora_rank=8{more}\n"
        );
        let ours = convert("tower.sh", &script);
        assert_eq!(ours.contains("vision: true"), vision, "{more}: {ours}");
    }
    let cosine = "trainer_args: {lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr: 1.0e-6}, learning_rate: 1.0e-5}\n";
    contains(&convert("engine.yaml", cosine), &["lr_scheduler_type: cosine", "min_lr_ratio: 0.1"]);
    let factory = "stage: sft\nfinetuning_type: full\nlearning_rate: 1.0e-5\nlr_scheduler_type: cosine_with_min_lr\n\
        lr_scheduler_kwargs: {min_lr: 1.0e-6}\nwarmup_steps: 0.05\n";
    contains(&convert("factory.yaml", factory), &["min_lr_ratio: 0.1", "warmup_ratio: 0.05"]);
    let rl = "python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo actor_rollout_ref.actor.optim.betas=[0.9,0.95]\n";
    contains(&convert("betas.sh", rl), &["adam_beta2: 0.95"]);
    let engine = "trainer_args: {per_device_train_batch_size: 1, gradient_accumulation_steps: 4}\ndataset_config: {packing_length: 64}\n";
    let ours = convert("engine.yaml", engine);
    contains(&ours, &["gradient_accumulation_steps: 8", "packing_length: 64"]);
    // The defaults of Hugging Face's trainer, its `constant` without a warm-up, and no clipping.
    contains(&ours, &["num_train_epochs: 3", "lr_scheduler_type: linear", "warmup_ratio: 0"]);
    let constant = "trainer_args: {lr_scheduler_type: constant, warmup_ratio: 0.1, max_grad_norm: 0}\n";
    contains(
        &convert("engine.yaml", constant),
        &["lr_scheduler_type: constant", "warmup_ratio: 0", "max_grad_norm: 1000000000.0"],
    );
    assert!(!ours.contains("train_batch_size:") && !ours.contains("micro_batch_tokens: 1\n"), "{ours}");
    // TRL counts updates, of which each generation batch has 4 here, and omr counts generation batches.
    let trl = "trl grpo --max_steps 1000 --save_steps 100 --warmup_ratio 0.1 --gradient_accumulation_steps 2 \
        --steps_per_generation 4 --num_iterations 2 --model_name_or_path base --dataset_name a.parquet\n";
    contains(&convert("trl.sh", trl), &["total_training_steps: 250", "save_freq: 25", "warmup_steps: 25"]);
    // The default length of TRL. Its `constant` has no warm-up, and with the ratio of a sequence its tokens have equal weights.
    contains(&convert("trl.sh", trl), &["max_response_length: 512"]);
    let constant = format!("{} --lr_scheduler_type constant --importance_sampling_level sequence", trl.trim_end());
    let ours = convert("trl.sh", &constant);
    contains(&ours, &["warmup_steps: 0"]);
    assert!(ours.contains("# importance_sampling_level: sequence -> loss_mode: found gspo (each answer"), "{ours}");
    contains(&convert("trl.sh", &format!("{constant} --loss_type grpo")), &["loss_mode: gspo"]);
    let sft = "trl sft --lr_scheduler_type constant --warmup_ratio 0.1 --dataset_name a.jsonl\n";
    contains(&convert("sft.sh", sft), &["warmup_ratio: 0", "lr_scheduler_type: constant"]);
}

#[test]
fn what_cannot_be_converted_is_refused_or_stands_as_a_comment() {
    let dir = tempfile::tempdir().unwrap();
    let convert = |name: &str, text: &str, args: &[&str]| {
        fs::write(dir.path().join(name), text).unwrap();
        let output = omr().args(["config", "--from"]).arg(dir.path().join(name)).args(args).output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()))
    };
    let (code, [_, error]) = convert("other.yaml", "compute_environment: LOCAL\n", &[]);
    assert!(code == Some(2) && error.contains("another system or method"), "{error}");
    let (code, [_, error]) = convert("empty.sh", "echo hello\n", &[]);
    assert!(code == Some(2) && error.contains("found no settings"), "{error}");
    let text = "cutoff_len: 8\nfinetuning_type: full\noptim: adafactor\nfrobnicate: 1\nlearning_rate: ${RATE}\n\
        per_device_train_batch_size: 2\npacking: true\neval_steps: 5\nlora_rank: 4\n";
    let (code, [ours, error]) = convert("full.yaml", text, &["--gpus", "3"]);
    assert_eq!(code, Some(0), "{error}");
    contains(&ours, &["gradient_accumulation_steps: 6", "# frobnicate: 1 -> nothing known in omr"]);
    for part in
        ["# optim: adafactor -> optim: found adafactor", "# learning_rate: ${RATE} -> ", "# to be changed: eval_steps"]
    {
        assert!(ours.contains(part) && !ours.contains("rank: 4"), "{part}: {ours}");
    }
    let text =
        "stage: sft\nfinetuning_type: full\nhf_hub_token: hf_abc\nswanlab_api_key: key-abc\nlearning_rate: 1e-5\n";
    let (code, [ours, _]) = convert("token.yaml", text, &[]);
    assert!(code == Some(0) && ours.contains("# hf_hub_token: ***") && !ours.contains("abc"), "{ours}");
    let text = "stage: sft\nfinetuning_type: full\ntoken: Abc12345\nrun_name: x-Abc12345\nunknown_key: hf_AbcAbcAbcAbcAbcAbcAbcAbcAbcAbc\n";
    let (_, [ours, _]) = convert("form.yaml", text, &[]);
    assert!(ours.contains("# token: ***") && !ours.contains("Abc"), "{ours}");
    let text = "export MY_TOKEN=Abc12345\npython3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo trainer.wandb_key=Key12345 \
        reward_model.url=http://h/v1?sig=Sig12345 data.prompt_key=question trainer.experiment_name=run-$MY_TOKEN judge.auth=Auth1234\n";
    let (code, [ours, error]) = convert("secrets.sh", text, &[]);
    assert!(
        code == Some(0) && ["Abc1", "Key1", "Sig1", "Auth1"].iter().all(|part| !ours.contains(part)),
        "{ours}{error}"
    );
    let text = "algorithm: {adv_estimator: grpo}\nactor_rollout_ref: {rollout: {n: 4}}\n\
        ray_kwargs: {ray_init: {runtime_env: {env_vars: {HF_TOKEN: hf_abc, WANDB_API_KEY: abc}}}}\n";
    let (code, [ours, error]) = convert("ray.yaml", text, &[]);
    assert!(code == Some(0) && !ours.contains("abc"), "{ours}{error}");
    // verl's YAML refers to its own keys.
    let text = "algorithm: {adv_estimator: grpo}\ndata: {train_files: a.parquet, max_prompt_length: 64}\n\
        actor_rollout_ref: {rollout: {max_num_batched_tokens: '${data.max_prompt_length}'}, model: {lora_rank: 8, lora_alpha: 16}}\n\
        custom_reward_function: {path: my.py, name: f, reward_kwargs: {scale: 2}}\n";
    let (code, [ours, error]) = convert("verl.yaml", text, &[]);
    assert_eq!(code, Some(0), "{error}");
    contains(
        &ours,
        &["max_num_batched_tokens: 64", "rank: 8", "alpha: 16", "- my.py", "- scale=2", "weight_decay: 0.01"],
    );
    // Keys of Vero, a fork of verl.
    let text = "algorithm: {adv_estimator: grpo}\ndata: {train_files: a.parquet, max_prompt_length: 64, \
        normalize_bbox_to_1000: true, per_batch_domain_weights: 'stem:0.25,chart_ocr:0.75'}\n\
        actor_rollout_ref: {actor: {dtype: float16}, rollout: {dtype: float16}}\n\
        reward_model: {reward_kwargs: {format_score: 0.25, llm_judge_kwargs: {base_url: 'http://localhost:1/v1', \
        model_name: judge, timeout: 150, top_k: 20}}}\n";
    let (code, [ours, error]) = convert("vero.yaml", text, &[]);
    assert_eq!(code, Some(0), "{error}");
    contains(
        &ours,
        &[
            "normalize_bbox_to_1000: true",
            "format_weight: 0.25",
            "per_batch_domain_weights: stem:0.25,chart_ocr:0.75",
            "- http://localhost:1/v1",
            "timeout_s: 150",
            "dtype: bf16",
            "# reward_model.reward_kwargs.llm_judge_kwargs.top_k: 20 -> nothing (a judge gets the prompt, max_tokens and temperature)",
        ],
    );
    assert!(ours.contains("# actor_rollout_ref.actor.dtype: float16 -> dtype (float16 is not needed"), "{ours}");
}
