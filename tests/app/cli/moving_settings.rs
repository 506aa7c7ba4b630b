//! Tests of `omr config --from` on single settings: groups in any order, chat templates, methods, losses, frozen parts and
//! shares of all steps.

use std::fs;
use std::path::Path;

use omr_base::config::{RlConfig, load};

use super::help::omr;
use super::moving_in::contains;

/// A group whose required key comes last, or that is switched off, as verl's `distillation` and its judge.
#[test]
fn a_group_of_settings_is_converted_as_a_whole_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let resolved = |groups: &[&str]| -> (RlConfig, String) {
        let path = dir.path().join("verl.yaml");
        let start =
            "algorithm: {adv_estimator: grpo}\ndata: {train_files: a.parquet}\nactor_rollout_ref: {rollout: {n: 4}}\n";
        fs::write(&path, format!("{start}{}", groups.concat())).unwrap();
        let text = omr_base::config::from_other(&path, 1).unwrap();
        fs::write(&path, &text).unwrap();
        (
            load(Some(&path), &["model=base".to_owned()], &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}")),
            text,
        )
    };
    let teacher = "teacher_models: {teacher_model: {model_path: x/y}}";
    let settings = "distillation_loss: {use_task_rewards: true, distillation_loss_coef: 0.5, loss_max_clamp: 10}";
    for group in [format!("enabled: true, {teacher}, {settings}"), format!("{settings}, {teacher}, enabled: true")] {
        let (config, text) = resolved(&[&format!("distillation: {{{group}}}\n")]);
        let found = config.distillation.expect(&text);
        assert_eq!(found.teacher, Path::new("x/y"), "{text}");
        assert_eq!((found.use_task_rewards, found.coef, found.loss_max_clamp), (true, 0.5, Some(10.0)), "{text}");
        assert!(!text.contains("# distillation"), "{text}");
        let off = group.replace("enabled: true", "enabled: false");
        let (config, text) = resolved(&[&format!("distillation: {{{off}}}\n")]);
        assert!(config.distillation.is_none() && !text.contains("to be changed"), "{text}");
        // Without the rewards, verl's loss has no coefficient.
        let alone = group.replace("use_task_rewards: true", "use_task_rewards: false");
        let (config, text) = resolved(&[&format!("distillation: {{{alone}}}\n")]);
        let found = config.distillation.expect(&text);
        assert_eq!((found.use_task_rewards, found.coef, found.loss_max_clamp), (false, 1.0, Some(10.0)), "{text}");
    }
    let judge = "max_tokens: 7, temperature: 0.5, max_concurrent_requests: 3, timeout: 9";
    let server = "base_url: 'http://localhost:1/v1', model_name: judge";
    for group in [format!("{judge}, {server}"), format!("{server}, {judge}")] {
        let (config, text) =
            resolved(&[&format!("reward_model: {{reward_kwargs: {{llm_judge_kwargs: {{{group}}}}}}}\n")]);
        let found = config.judge.expect(&text);
        let numbers = (found.max_tokens, found.temperature, found.concurrency, found.timeout_s);
        assert_eq!(numbers, (7, Some(0.5), 3, 9.0), "{text}");
        assert_eq!(
            (&found.base_url[..], &*found.model),
            (&["http://localhost:1/v1".to_owned()][..], "judge"),
            "{text}"
        );
    }
    // A group without its required key is named, and a bad value of a key is that key's error.
    let path = dir.path().join("bad.yaml");
    let start = "algorithm: {adv_estimator: grpo}\nactor_rollout_ref: {rollout: {n: 4}}\n";
    fs::write(&path, format!("{start}distillation: {{{settings}}}\n")).unwrap();
    let text = omr_base::config::from_other(&path, 1).unwrap();
    assert!(text.contains("# to be changed: distillation.teacher: found , expected a non-empty text"), "{text}");
    fs::write(&path, format!("{start}distillation: {{{teacher}, distillation_loss: {{loss_max_clamp: -1}}}}\n"))
        .unwrap();
    let text = omr_base::config::from_other(&path, 1).unwrap();
    assert!(text.contains("# to be changed: distillation.loss_max_clamp: found -1"), "{text}");
}

#[test]
fn variables_of_chat_templates_are_converted_from_each_system() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, expected) in [
        (
            "lf.yaml",
            "cutoff_len: 8\nfinetuning_type: full\ntemplate: qwen3\nenable_thinking: false\n",
            "enable_thinking: false",
        ),
        (
            "trl.sh",
            "python sft.py --max_length 64 --chat_template_kwargs '{\"enable_thinking\": false}'\n",
            "enable_thinking: false",
        ),
        (
            "verl.sh",
            "python3 -m verl.trainer.main_ppo data.train_files=a.parquet \\\n\
            +data.apply_chat_template_kwargs.enable_thinking=False algorithm.adv_estimator=grpo\n",
            "enable_thinking: false",
        ),
        (
            "other.yaml",
            "max_length: 8\nchat_template_kwargs: {tools: 1}\n",
            "# chat_template_kwargs.tools: 1 -> chat_template_kwargs (",
        ),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        let output = omr().args(["config", "--from"]).arg(dir.path().join(name)).output().unwrap();
        let ours = String::from_utf8(output.stdout).unwrap();
        assert!(ours.contains(expected), "{name}: {ours}{}", String::from_utf8_lossy(&output.stderr));
        assert!(ours.contains("chat_template_kwargs"), "{ours}");
    }
}

/// Converts a script of verl with these settings. Returns omr's config.
fn of_verl(settings: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("run.sh");
    fs::write(&script, format!("python3 -m verl.trainer.main_ppo data.train_files=a.parquet {settings}\n")).unwrap();
    let output = omr().args(["config", "--from"]).arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_method_that_omr_lacks_is_not_converted_to_another_one() {
    for (setting, line) in [
        ("algorithm.adv_estimator=gpg", "adv_estimator: gpg"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean", "loss_mode: geo_mean"),
    ] {
        let ours = of_verl(setting);
        contains(&ours, &[line]);
        assert!(ours.contains("# to be changed: "), "{ours}");
    }
}

#[test]
fn a_loss_of_trl_that_omr_lacks_is_not_converted_to_another_one() {
    for (keys, line) in [
        ("loss_type: sapo", "loss_mode: sapo"),
        (
            "loss_type: cispo\nimportance_sampling_level: sequence",
            "loss_mode: cispo with importance_sampling_level sequence",
        ),
        ("importance_sampling_level: sequence_token", "loss_mode: sequence_token"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grpo.yaml");
        fs::write(&file, format!("num_generations: 8\n{keys}\n")).unwrap();
        let output = omr().args(["config", "--from"]).arg(file).output().unwrap();
        let ours = String::from_utf8(output.stdout).unwrap();
        contains(&ours, &[line]);
        assert!(ours.contains("# to be changed: "), "{ours}");
    }
}

/// verl's vision tower includes the merger.
#[test]
fn a_frozen_vision_tower_of_verl_has_a_frozen_merger() {
    let freeze = "actor_rollout_ref.actor.freeze_vision_tower=True";
    contains(&of_verl(freeze), &["freeze_vision_tower: true", "freeze_multi_modal_projector: true"]);
    let lora = "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-3B-Instruct actor_rollout_ref.model.lora_rank=8 \
                actor_rollout_ref.model.target_modules=all-linear";
    contains(&of_verl(lora), &["vision: true"]);
    assert!(!of_verl(&format!("{lora} {freeze}")).contains("vision"), "no adapter in a frozen tower");
}

#[test]
fn shares_of_all_steps_in_a_config_of_trl_become_steps() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grpo.yaml");
    let text = "num_generations: 8\nmax_steps: 1000\nsave_steps: 0.1\neval_steps: 0.25\n\
                lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_rate: 0.1}\n";
    fs::write(&file, text).unwrap();
    let output = omr().args(["config", "--from"]).arg(file).output().unwrap();
    let ours = String::from_utf8(output.stdout).unwrap();
    contains(&ours, &["save_freq: 100", "test_freq: 250", "min_lr_ratio: 0.1"]);
}
