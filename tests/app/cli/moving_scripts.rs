//! Tests of `omr config --from` on what scripts are made of, on the files that they name, and on what is refused. The files
//! have the forms of those of OpenMMReasoner, EasyR1 and LLaMA-Factory.

use std::fs;
use std::path::Path;
use std::process::Command;

use omr_data_tests::rows::layouts::made;
use omr_train_tests::training::tiny;
use serde_json::Value;

use super::help::{fed, omr};
use super::moving_in::contains;

/// Converts the file `name` in `dir`. Returns the exit status, and stdout with stderr.
fn convert(dir: &Path, name: &str) -> (i32, String) {
    let output = omr().args(["config", "--gpus", "8", "--from"]).arg(dir.join(name)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

/// Writes a file and converts it. Returns the config.
fn converted(name: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), text).unwrap();
    let (code, ours) = convert(dir.path(), name);
    assert_eq!(code, 0, "{text}: {ours}");
    ours
}

const RUN: &str = "python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo data.train_files=a.parquet \
                   custom_reward_function.path=custom_rewards/lmms_lab_recipe.py";
const JUDGE: &str = "OPENAI_BASE_URL=http://judge:8000/v1 OPENAI_MODEL_NAME=judge";

#[test]
fn a_script_that_exports_the_judge_was_converted_without_it() {
    let inner = RUN.replace(' ', " \\\n    ");
    let json = "{\"env_vars\": {\"USE_LLM_JUDGE\": \"True\", \"OPENAI_BASE_URL\": \"http://judge:8000/v1\", \"OPENAI_MODEL_NAME\": \"judge\"}}";
    let exports = format!("export {}\n", JUDGE.replace(' ', "\nexport "));
    for script in [
        format!("export USE_LLM_JUDGE=\"True\"\n{exports}{RUN}\n"),
        format!("export USE_LLM_JUDGE=${{USE_LLM_JUDGE:-True}}\n{exports}{RUN} \"$@\"\n"),
        format!("USE_LLM_JUDGE=${{1:-${{JUDGE:-True}}}}\n{exports}export USE_LLM_JUDGE\n{RUN}\n"),
        format!("declare -x USE_LLM_JUDGE=1; export {JUDGE}; {RUN} > log 2>&1 &\n"),
        format!("set -a\nUSE_LLM_JUDGE=True\n{}\nset +a\n{RUN}\n", JUDGE.replace(' ', "\n")),
        format!("USE_LLM_JUDGE=True {JUDGE} {RUN}\n"),
        format!("env USE_LLM_JUDGE=True {JUDGE} bash -c '{inner}'\n"),
        format!("bash -c \"cd /verl && export USE_LLM_JUDGE=True {JUDGE} && \\\n{inner}\"\n"),
        format!("export USE_LLM_JUDGE=True\n{exports}ray job submit --address=x -- bash -lc \"cd /verl && {inner}\"\n"),
        format!("ray job submit --runtime-env-json='{json}' -- {RUN}\n"),
        format!("set -o allexport\nUSE_LLM_JUDGE=True\n{}\nset +o allexport\n{RUN}\n", JUDGE.replace(' ', "\n")),
        format!("docker run --env=USE_LLM_JUDGE=True -e {} image {RUN}\n", JUDGE.replace(' ', " -e ")),
        format!("sbatch --export=USE_LLM_JUDGE=True,{},ALL --wrap '{RUN}'\n", JUDGE.replace(' ', ",")),
        format!("ray job submit --runtime-env-json '{json}' --no-wait -- bash -c \"{inner}\"\n"),
        format!("srun --nodes=2 --export=ALL,USE_LLM_JUDGE=True,{} bash -c \"{RUN}\"\n", JUDGE.replace(' ', ",")),
        format!("export USE_LLM_JUDGE=True\n{exports}sbatch --nodes=2 --wrap=\"srun {RUN}\"\n"),
        format!("export USE_LLM_JUDGE=True\n{exports}sbatch --wrap \"{RUN}\"\n"),
        format!("export USE_LLM_JUDGE=True\n{exports}ARGS=({RUN})\n\"${{ARGS[@]}}\" trainer.total_epochs=2\n"),
        format!("train() {{\n  {RUN} \"$@\"\n}}\nexport USE_LLM_JUDGE=True\n{exports}train trainer.total_epochs=2\n"),
        format!("judge() {{ export USE_LLM_JUDGE=True; export {JUDGE}; }}\njudge\n{RUN}\n"),
        format!("function main\n{{\nexport USE_LLM_JUDGE=True {JUDGE}\n{RUN}\n}}\nmain \"$@\"\n"),
        format!("main() (\nexport USE_LLM_JUDGE=True {JUDGE}\n{RUN}\n)\nmain\n"),
        format!(
            "{RUN} +ray_kwargs.ray_init.runtime_env.env_vars.USE_LLM_JUDGE=True \\\n\
                 +ray_kwargs.ray_init.runtime_env.env_vars.OPENAI_BASE_URL=http://judge:8000/v1 \\\n\
                 +ray_kwargs.ray_init.runtime_env.env_vars.OPENAI_MODEL_NAME=judge\n"
        ),
        format!("JUDGED=yes\nif [ \"$JUDGED\" = yes ]; then\n  export USE_LLM_JUDGE=True {JUDGE}\nfi\n{RUN}\n"),
        format!("N=2\n[[ $N -gt 1 && -n judge ]] && export USE_LLM_JUDGE=True {JUDGE}\n{RUN}\n"),
        format!("srun bash -c '\n  set -e; cd /verl\n  export USE_LLM_JUDGE=True {JUDGE}\n  {inner}\n'\n"),
        format!(": \"${{USE_LLM_JUDGE:=True}}\"\nexport USE_LLM_JUDGE {JUDGE}\n{RUN}\n"),
        format!("sbatch <<'END'\n#!/bin/bash\nexport USE_LLM_JUDGE=True {JUDGE}\nsrun {RUN}\nEND\n"),
        format!("cat > note.txt <<-END\nit's a note\n\tEND\nexport USE_LLM_JUDGE=True {JUDGE}\n{RUN}\n"),
    ] {
        let ours = converted("run.sh", &script);
        contains(&ours, &["judge:", "- http://judge:8000/v1", "model: judge", "mode: compat"]);
        assert!(!ours.contains("command:") && ours.contains("# custom_reward_function.path: "), "{script}: {ours}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("examples")).unwrap();
    fs::write(dir.path().join("run.sh"), format!("cd /verl\n{RUN} \"$@\"\n")).unwrap();
    let outer = format!("env USE_LLM_JUDGE=True {JUDGE} bash run.sh trainer.total_epochs=7\n");
    fs::write(dir.path().join("examples/outer.sh"), outer).unwrap();
    let (_, ours) = convert(dir.path(), "examples/outer.sh");
    contains(&ours, &["- http://judge:8000/v1", "model: judge", "total_epochs: 7"]);
    fs::write(dir.path().join("examples/env.yaml"), json).unwrap();
    fs::write(dir.path().join("ray.sh"), format!("ray job submit --runtime-env=examples/env.yaml -- {RUN}\n")).unwrap();
    contains(&convert(dir.path(), "ray.sh").1, &["- http://judge:8000/v1", "model: judge"]);
}

#[test]
fn a_script_that_switches_the_judge_off_has_none() {
    for script in [
        format!("export USE_LLM_JUDGE=False {JUDGE}\n{RUN}\n"),
        format!("export USE_LLM_JUDGE=True {JUDGE}\nexport USE_LLM_JUDGE=False\n{RUN}\n"),
        format!("export {JUDGE}\nUSE_LLM_JUDGE=True\n{RUN}\n"),
        format!("export USE_LLM_JUDGE=True {JUDGE}\nunset USE_LLM_JUDGE\n{RUN}\n"),
        format!("export USE_LLM_JUDGE=True {JUDGE}\nUSE_LLM_JUDGE=False {RUN}\n"),
        format!("USE_LLM_JUDGE=True {JUDGE} python3 other.py --x 1\n{RUN}\n"),
        format!("if [ 0 -eq 1 ]; then\n  export USE_LLM_JUDGE=True {JUDGE}\nfi\n{RUN}\n"),
        format!(
            "MODE=rules\ncase $MODE in\n  judge|both) export USE_LLM_JUDGE=True {JUDGE} ;;\n  *) ;;\nesac\n{RUN}\n"
        ),
        format!("# export USE_LLM_JUDGE=True {JUDGE}, it's off\n{RUN}\n"),
        format!("(export USE_LLM_JUDGE=True {JUDGE})\n{RUN}\n"),
        format!("false && export USE_LLM_JUDGE=True {JUDGE}\n{RUN}\n"),
        format!("export USE_LLM_JUDGE=True {JUDGE}\nexport -n USE_LLM_JUDGE\n{RUN}\n"),
        format!("export USE_LLM_JUDGE=True {JUDGE}\nenv -u USE_LLM_JUDGE {RUN}\n"),
    ] {
        let ours = converted("run.sh", &script);
        assert!(!ours.lines().any(|line| line == "judge:"), "{script}: {ours}");
        contains(&ours, &["mode: compat"]);
    }
    let ours = converted("run.sh", &format!("export WANDB_API_KEY=abc HF_HOME=/h OPENAI_MODEL_NAME=judge\n{RUN}\n"));
    assert!(
        ours.contains("# WANDB_API_KEY: *** -> report_to (") && ours.contains("# HF_HOME: /h -> nothing ("),
        "{ours}"
    );
    assert!(ours.contains("# OPENAI_MODEL_NAME: judge -> judge (with USE_LLM_JUDGE=true)"), "{ours}");
}

#[test]
fn lists_of_branches_that_are_not_taken_were_appended() {
    let script = |device: &str| {
        format!(
            "DEVICE={device}\nARGS=(\n  algorithm.adv_estimator=grpo # it's a comment\n  trainer.total_epochs=3\n)\n\
             case \"$DEVICE\" in\n  gpu) ;;\n  npu|tpu)\n    ARGS+=(trainer.total_epochs=5 actor_rollout_ref.rollout.n=7)\n    \
             n=64 ;;\n  *) exit 1 ;;\nesac\nif [ \"$DEVICE\" != gpu ] && [ -n \"$DEVICE\" ]; then k=8; \
             elif [[ $DEVICE == g* ]]; then k=$((4 * 4)); else k=9; fi\n\
             python3 -m verl.trainer.main_ppo data.train_files=a.parquet \"${{ARGS[@]}}\" data.train_batch_size=${{n:-32}} \\\n  \
             actor_rollout_ref.rollout.top_k=$k trainer.experiment_name=x_${{KIND}}_$DEVICE\n"
        )
    };
    let ours = converted("run.sh", &script("gpu"));
    contains(
        &ours,
        &[
            "total_epochs: 3",
            "train_batch_size: 32",
            "top_k: 16",
            "# trainer.experiment_name: x_${KIND}_gpu -> --out DIR",
        ],
    );
    assert!(!ours.contains("not known"), "{ours}");
    let ours = converted("run.sh", &script("npu"));
    contains(&ours, &["total_epochs: 5", "train_batch_size: 64", "top_k: 8", "\"n\": 7"]);
    // A condition that is not known: its first branch.
    let ours = converted("run.sh", &script("$(probe)"));
    contains(
        &ours,
        &["total_epochs: 3", "top_k: 8", "# not known, so its first branch is read: [[ \"$DEVICE\" = gpu ]]"],
    );
}

#[test]
fn an_evaluation_by_lmms_eval_is_answered_with_ours() {
    let script = "export OPENAI_API_KEY=\"EMPTY\"\nexport OPENAI_BASE_URL=\"http://judge:8000/v1\"\nexport OPENAI_MODEL_NAME=judge\n\
        export USE_LLM_JUDGE=\"True\"\nCKPT=$1\nTASKS=$2\naccelerate launch --num_processes=8 -m lmms_eval --model vllm \\\n    \
        --model_args model=$CKPT,tensor_parallel_size=1 --tasks $TASKS --batch_size 256 --log_samples --output_path ./logs\n";
    let ours = converted("eval.sh", script);
    let first = ours.lines().next().unwrap();
    assert!(first.contains("omr eval --config THIS_FILE --model DIR --tasks A,B --data DIR --out DIR"), "{ours}");
    contains(&ours, &["mode: compat", "max_num_seqs: 256", "- http://judge:8000/v1", "model: judge"]);
    assert!(ours.contains("# OPENAI_API_KEY: *** -> ") && ours.contains("# tasks: $2 -> an option"), "{ours}");
    let known = script.replace("$1", "runs/rl/model").replace("$2", "\"logicvista_thinking,dynamath\"");
    let ours = converted("eval.sh", &known);
    contains(&ours, &["model: runs/rl/model", "- logicvista_thinking", "- dynamath"]);
    assert!(ours.lines().next().unwrap().contains("omr eval --config THIS_FILE --data DIR --out DIR"), "{ours}");
}

#[test]
fn a_key_that_stands_twice_was_an_error() {
    let text = "trainer_args: {max_steps: 5, bf16: true, report_to: none, eval_strategy: 'no'}\ndataset_config:\n  extra_kwargs: {}\n  \
        packing_length: 64\n  datasets: [{path: a.parquet, data_folder: images, data_type: parquet}]\n  packing_length: 128\n  \
        extra_kwargs:\n    image_max_pixels: 4194304\n";
    let ours = converted("sft.yaml", text);
    contains(
        &ours,
        &[
            "packing_length: 128",
            "image_max_pixels: 4194304",
            "dtype: bf16",
            "report_to: []",
            "max_steps: 5",
            "data_folder: images",
        ],
    );
    assert!(ours.contains("# dataset_config.packing_length: 64 is not used, because the key stands again"), "{ours}");
    assert!(!ours.contains("dtype: found"), "{ours}");
    // The script names the config.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sft.yaml"), text).unwrap();
    let script = "torchrun -m lmms_engine.launch.cli config_yaml=sft.yaml trainer_args.max_steps=9\n";
    fs::write(dir.path().join("run.sh"), script).unwrap();
    contains(&convert(dir.path(), "run.sh").1, &["max_steps: 9", "packing_length: 128", "- path: a.parquet"]);
}

/// A config of EasyR1 with a script, a template and a reward function, as its repository has them.
#[test]
fn a_script_of_easyr1_is_converted_with_its_config_and_starts_from_any_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("examples/f")).unwrap();
    let config = "data: {train_files: me/rows@train, val_files: me/rows@test, prompt_key: problem, answer_key: solution, \
        format_prompt: ./examples/f/math.jinja, rollout_batch_size: 64, max_response_length: 256}\n\
        algorithm: {adv_estimator: grpo, disable_kl: false, use_kl_loss: true, kl_penalty: low_var_kl, kl_coef: 1.0e-2}\n\
        worker:\n  actor: {global_batch_size: 32, max_grad_norm: 1.0, model: {model_path: x, freeze_vision_tower: true}, \
        optim: {lr: 2.0e-6, strategy: adamw}, offload: {offload_params: true}}\n  \
        rollout: {n: 5, tensor_parallel_size: 2, val_override_config: {temperature: 0.6, top_p: 0.95, n: 1}}\n  \
        reward: {reward_function: './examples/f/math.py:score', reward_function_kwargs: {scale: 2}}\n\
        trainer: {total_epochs: 15, val_freq: 5, save_freq: 5, save_limit: 3, logger: [file]}\n";
    fs::write(at("examples/config.yaml"), config).unwrap();
    fs::write(at("examples/f/math.jinja"), "{{ content | trim }} Think first.\n").unwrap();
    fs::write(at("examples/f/math.py"), "def score(reward_input, scale):\n    return {'overall': scale}\n").unwrap();
    let script = "MODEL_PATH=Qwen/Qwen2.5-VL-7B-Instruct  # replace it\npython3 -m verl.trainer.main \\\n    config=examples/config.yaml \\\n    \
        worker.actor.model.model_path=${MODEL_PATH} \\\n    worker.actor.loss_type=gspo_token worker.actor.loss_avg_mode=seq \\\n    \
        worker.actor.clip_ratio_low=3e-4 algorithm.disable_kl=True trainer.n_gpus_per_node=8\n";
    fs::write(at("examples/gspo.sh"), script).unwrap();
    let (code, ours) = convert(dir.path(), "examples/gspo.sh");
    assert!(code == 0 && ours.starts_with("# EasyR1 -> omr rl: omr rl THIS_FILE --out DIR"), "{ours}");
    let lines = [
        "loss_mode: gspo",
        "loss_agg_mode: seq-mean-token-mean",
        "clip_ratio_low: 0.0003",
        "clip_ratio_high: 0.3",
        "use_kl_loss: false",
        "use_kl_in_reward: false",
        "train_batch_size: 64",
        "ppo_mini_batch_size: 32",
        "\"n\": 5",
        "learning_rate: 2.0e-6",
        "path: me/rows",
        "split: test",
        "answer: solution",
        "test_freq: 5",
        "save_total_limit: 3",
        "temperature: 0.6",
        "- omr:my_reward.py",
        "- score",
        "- scale=2",
        "freeze_vision_tower: true",
        "seed: 1",
        "image_max_pixels: 4194304",
        "max_prompt_length: 512",
        "prompt: \"{{ problem | trim }} Think first.\"",
        "# worker.rollout.tensor_parallel_size: 2 -> nothing (each GPU has all weights)",
        "# worker.actor.offload.offload_params: true -> optim=adamw_8bit (uses less memory, weights are not sharded)",
    ];
    contains(&ours, &lines);
    assert!(!ours.contains("nothing known"), "{ours}");
    let ours = convert(dir.path(), "examples/config.yaml").1;
    contains(&ours, &["use_kl_loss: true", "kl_loss_coef: 0.01", "kl_loss_type: low_var_kl", "loss_mode: vanilla"]);
    // It starts in another folder, and the reward function gives a score.
    let elsewhere = tempfile::tempdir().unwrap();
    tiny::base_model(&elsewhere.path().join("base"));
    fs::write(elsewhere.path().join("ours.yaml"), &ours).unwrap();
    let rows = format!("[{{path: {0}/verl/train.parquet, data_folder: {0}}}]", made().display());
    let sets = [format!("train_files={rows}"), format!("val_files={rows}"), "model=base".to_owned()];
    let args = ["--device", "cpu", "rl", "ours.yaml", "--out", "out", "--dry-run", "max_prompt_length=4096"];
    let output = omr().current_dir(elsewhere.path()).args(args).args(&sets).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("read 60 rows"), "{text}\n{ours}");
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("this machine has no python3: the reward function is not run");
        return;
    }
    let ours: Value = serde_saphyr::from_str(&ours).unwrap();
    let command = format!("reward.command={}", ours["reward"]["command"]);
    let line = "{\"response\": \"5\", \"ground_truth\": \"5\"}\n";
    let output = fed(omr().current_dir(elsewhere.path()).args(["score", "--jsonl", &command]), line);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"score\":2.0,"), "{output:?}");
}

#[test]
fn names_of_dataset_info_json_were_taken_for_paths() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("data")).unwrap();
    fs::create_dir_all(at("examples/lora")).unwrap();
    let info = "{\"demo\": {\"file_name\": \"demo.json\", \"formatting\": \"sharegpt\", \"columns\": {\"messages\": \"talk\", \"images\": \"images\"}}, \
        \"hub\": {\"hf_hub_url\": \"me/rows\", \"subset\": \"en\", \"split\": \"train\", \"columns\": {\"prompt\": \"ask\", \"system\": \"rule\"}}, \
        \"pairs\": {\"ms_hub_url\": \"me/p\", \"ranking\": true}}";
    fs::write(at("data/dataset_info.json"), info).unwrap();
    let config = |more: &str| {
        let text = format!("stage: sft\nfinetuning_type: lora\ncutoff_len: 64\nmax_samples: 10\n{more}");
        fs::write(at("examples/lora/sft.yaml"), text).unwrap();
        convert(dir.path(), "examples/lora/sft.yaml")
    };
    let (code, ours) = config("dataset: demo, hub,pairs\n");
    assert_eq!(code, 0, "{ours}");
    let path = format!("- path: {}", at("data/demo.json").display());
    contains(
        &ours,
        &[&path, "messages: talk", "- path: me/rows", "name: en", "split: train", "question: ask", "limit: 10"],
    );
    let missing =
        format!("# dataset pairs: neither file_name nor hf_hub_url in {}", at("data/dataset_info.json").display());
    contains(
        &ours,
        &[
            &missing,
            "# dataset hub: columns.system: rule is not converted",
            "# dataset pairs: ranking: true is not converted",
        ],
    );
    assert!(!ours.contains("images: images") && !ours.contains("dataset demo"), "{ours}");
    fs::remove_file(at("data/dataset_info.json")).unwrap();
    let (_, ours) = config("dataset: demo\n");
    assert!(ours.contains("# dataset: dataset_info.json is not beside the file"), "{ours}");
    // Quantisation.
    let (_, ours) = config("quantization_bit: 4\nquantization_method: bnb\n");
    contains(&ours, &["base: nf4"]);
    let (_, ours) = config("quantization_bit: 8\n");
    contains(&ours, &["base: int8"]);
    assert!(ours.contains("# quantization_bit: 8 -> quantization=int8, whose arithmetic differs"), "{ours}");
    for (more, found) in [
        ("quantization_bit: 4\nquantization_method: hqq\n", "quantization_method: found hqq, expected bitsandbytes"),
        ("quantization_bit: 4\nquantization_type: fp4\n", "quantization_type: found fp4, expected nf4"),
        ("quantization_bit: 2\n", "quantization_bit: found 2, expected 4 (nf4) or 8 (int8)"),
    ] {
        let (code, error) = config(more);
        assert!(code == 2 && error.contains(found), "{error}");
    }
    let (_, ours) = config("finetuning_type: full\nquantization_bit: 4\n");
    assert!(
        ours.contains("is not used")
            && ours.contains("# quantization_bit: 4 -> quantization (")
            && !ours.contains("nf4\n"),
        "{ours}"
    );
}

#[test]
fn other_methods_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, found) in [
        (
            "grpo_vlm.py",
            "from trl import GRPOTrainer\n",
            "found a script in Python, expected the command that starts it",
        ),
        ("dpo.yaml", "stage: dpo\nmodel_name_or_path: x\n", "found DPO or KTO, expected supervised fine-tuning or RL"),
        ("dpo.sh", "accelerate launch examples/dpo_vlm.py --beta 0.1\n", "found DPO or KTO, "),
        ("trl.sh", "trl dpo --beta 0.1 --learning_rate 1e-6\n", "found DPO or KTO, "),
        ("swift.sh", "swift rlhf --rlhf_type dpo --model x\n", "found DPO or KTO, "),
        ("kto.yaml", "stage: kto\nmodel_name_or_path: x\n", "found DPO or KTO, "),
        ("rm.yaml", "stage: rm\nmodel_name_or_path: x\n", "found a reward model, "),
        ("pt.yaml", "stage: pt\nmodel_name_or_path: x\n", "found pre-training, "),
        ("oft.yaml", "stage: sft\nfinetuning_type: oft\n", "found OFT, "),
        ("freeze.yaml", "stage: sft\nfinetuning_type: freeze\n", "found freeze tuning, "),
        ("open.sh", "x=1\necho \"it\npython3 train.py --a 1\n", "line 2: a quote or a list that never ends"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        let (code, error) = convert(dir.path(), name);
        assert!(code == 2 && error.contains(name) && error.contains(found), "{name}: {error}");
    }
    // A range of one number.
    fs::write(dir.path().join("empty.yaml"), "").unwrap();
    let args = ["sft", "empty.yaml", "--out", "out", "--print-config", "lora.dropout=0.05"];
    let output = omr().current_dir(dir.path()).args(args).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("lora.dropout: found 0.05, expected 0") && !error.contains("from 0 to 0"), "{error}");
}

#[test]
fn variables_that_double_their_text_are_refused_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let command = "\npython3 -m trl grpo --learning_rate 1e-6\n";
    let doubled = format!("A=xxxxxxxx\n{}{command}", "A=$A$A\n".repeat(40));
    let list = format!("A=(x y)\n{}{command}", "A+=(\"${A[@]}\" \"${A[@]}\")\n".repeat(40));
    let keys: String = (0..100_000).map(|i| format!("k{i}: ${{a}}\n")).collect();
    let yaml = format!("a: {}\n{keys}", "x".repeat(200_000));
    for (name, text) in [("a.sh", doubled), ("b.sh", list), ("a.yaml", yaml)] {
        fs::write(dir.path().join(name), text).unwrap();
        let (code, error) = convert(dir.path(), name);
        assert!(code == 2 && error.contains(name), "{error}");
        assert!(error.contains("its variables stand for more than 16777216 bytes of text"), "{error}");
    }
}

#[test]
fn a_script_with_more_settings_than_any_program_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings: String = (0..10_001).map(|i| format!(" a{i}=1")).collect();
    fs::write(dir.path().join("a.sh"), format!("{RUN}{settings}\n")).unwrap();
    let (code, error) = convert(dir.path(), "a.sh");
    assert!(code == 2 && error.contains("settings, expected at most 10000"), "{error}");
}

#[test]
fn a_quote_or_a_list_that_never_ends_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "echo it is a line with \"quotes\" and (brackets\n".repeat(60_000);
    for (text, line) in [
        (format!("A=1\necho 'never\n{lines}"), 2),
        (format!("A=(never\n{}", "word\n".repeat(60_000)), 1),
        ("A=1\nB=2\n\necho \"never\n".to_owned(), 4),
    ] {
        fs::write(dir.path().join("a.sh"), text).unwrap();
        let (code, error) = convert(dir.path(), "a.sh");
        assert!(
            code == 2 && error.contains(&format!("a.sh: line {line}: a quote or a list that never ends")),
            "{error}"
        );
    }
    // Comments, escaped quotes and quotes in quotes open nothing; a backslash in the last line continues to nothing.
    let text = "# it's a comment\nA=\"it's\"\nB='say \"x'\nC=a\\'b\n\
                python3 -m trl grpo --run_name \"$A\" --learning_rate 1e-6 \\";
    let ours = converted("a.sh", text);
    assert!(ours.starts_with("# TRL -> omr rl: ") && ours.contains("learning_rate: 1.0e-6"), "{ours}");
    assert!(ours.contains("# run_name: it's -> "), "{ours}");
}
