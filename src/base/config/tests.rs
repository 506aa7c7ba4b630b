use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

/// Returns the path of a shipped config. Tests of the package `omr-unit` do not run in the repository's root.
pub(super) fn shipped(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("configs").join(name)
}

pub(super) fn no_env(_: &str) -> Option<String> {
    None
}

pub(super) fn from_text<C: Config>(text: &str, overrides: &[&str]) -> crate::error::Result<C> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    load(Some(file.path()), &overrides, &no_env)
}

fn message<C: Config + std::fmt::Debug>(text: &str, overrides: &[&str]) -> String {
    let error = from_text::<C>(text, overrides).expect_err("refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn exponents_are_numbers() {
    let config: SftConfig = from_text("learning_rate: 1e-5\nmax_steps: 1e3\n", &[]).unwrap();
    assert_eq!(config.optimizer.learning_rate, 1e-5);
    assert_eq!(config.max_steps, Some(1000));
}

#[test]
fn overrides_win_and_reach_into_groups_and_lists() {
    let text = "datasets: [{path: a.parquet}, {path: b.parquet}]\n";
    let config: SftConfig = from_text(text, &["datasets.1.limit=7", "learning_rate=2e-4", "seed=9"]).unwrap();
    assert_eq!(config.datasets[1].limit, Some(7));
    assert_eq!(config.datasets[0].limit, None);
    assert_eq!((config.optimizer.learning_rate, config.seed), (2e-4, 9));
}

#[test]
fn an_unknown_key_names_the_nearest_and_the_file() {
    let text = message::<RlConfig>("rollout: {temprature: 1}\n", &[]);
    assert!(text.contains("rollout.temprature") && text.contains("did you mean temperature?"), "{text}");
    let text = message::<RlConfig>("", &["rolout.n=4"]);
    assert!(text.contains("command line: rolout") && text.contains("did you mean rollout?"), "{text}");
    let text = message::<RecipeConfig>("temperature: 1\n", &[]);
    assert!(text.contains("rl.rollout.temperature"), "{text}");
}

#[test]
fn a_config_of_a_recipe_names_its_command() {
    let text = message::<SftConfig>("task: {name: digits}\nsft: {max_steps: 3}\n", &[]);
    assert!(text.contains("the groups task and sft") && text.contains("`omr recipe FILE`"), "{text}");
}

#[test]
fn all_unknown_keys_are_reported_at_once() {
    let pasted = "model_name_or_path: x\ncutoff_len: 9\nlerning_rate: 1\nzzz: 1\ndatasets: [{path: a, pth: b}]\n\
        deepspeed: {zero_optimization: {stage: 3, x: 1}}\nrollout: {n: 1}\ntrainer: {total_epochs: 2, y: 1}\n";
    let text = message::<SftConfig>(pasted, &["template=qwen", "sed=1", "fsdp=x"]);
    for part in [
        " and command line: found 12 unknown keys, expected these instead (`omr config --from FILE` ",
        "\n- model_name_or_path -> model\n- cutoff_len -> packing_length (limits a pack of several rows)\n",
        "\n- lerning_rate -> learning_rate?\n- zzz -> no key is similar\n- datasets.0.pth -> path?\n",
        "\n- deepspeed -> nothing (each GPU has all weights ",
        "\n- rollout.n -> nothing (a key of `omr rl`)\n- trainer.total_epochs -> num_train_epochs\n- trainer.y -> nothing in omr\n",
        "\n- template -> nothing (the chat template of the model directory is used)\n- sed -> seed?\n- fsdp -> nothing (each",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = message::<RecipeConfig>("sft: {cutoff_len: 1, eval_stepz: 2}\nrl.rollout.n: 2\n", &[]);
    for part in [
        "sft.cutoff_len -> sft.packing_length (",
        "sft.eval_stepz -> eval_steps?",
        "rl.rollout.n -> n in the group rl.rollout (",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = message::<SftConfig>("", &["cutoff_len=9"]);
    assert!(
        text.starts_with("command line: cutoff_len: found the unknown key cutoff_len, expected packing_length"),
        "{text}"
    );
    let many: String = (0..1500).map(|i| format!("zzz{i}: 1\n")).collect();
    let text = message::<SftConfig>(&many, &[]);
    assert!(
        text.contains("found 1500 unknown keys") && text.contains("zzz999 -> no key is similar\n- 500 more"),
        "{text}"
    );
}

#[test]
fn duplicate_keys_bad_types_and_bad_values_are_refused() {
    assert!(message::<SftConfig>("seed: 1\nseed: 2\n", &[]).contains("duplicate"), "duplicate keys");
    assert!(message::<SftConfig>("seed: twelve\n", &[]).contains("found twelve, expected a whole number"));
    assert!(message::<SftConfig>("seed: -1\n", &[]).contains("found -1"));
    assert!(message::<SftConfig>("min_lr_ratio: 1.5\n", &[]).contains("a number from 0 to 1"));
    assert!(message::<SftConfig>("lr_scheduler_type: cosin\n", &[]).contains("did you mean cosine?"));
    assert!(message::<SftConfig>("datasets: [{data_type: parquet}]\n", &[]).contains("datasets.0.path"));
    assert!(message::<SftConfig>("shuffle: [\n", &[]).contains(":"));
    assert!(message::<SftConfig>("- 1\n", &[]).contains("keys with values"));
    assert!(message::<SftConfig>("", &["seed"]).contains("key=value"));
    let text = message::<SftConfig>("", &["model="]);
    assert!(text.contains("model: found an empty value, expected a value: model=null for none"), "{text}");
    assert!(message::<RlConfig>("ppo_mini_batch_size: 48\n", &[]).contains("divisor"));
}

#[test]
fn a_path_alone_is_a_data_set() {
    let config: RlConfig = from_text("train_files: [a.parquet, {path: b.jsonl, limit: 3}]\n", &[]).unwrap();
    let (a, b) = (&config.train_files[0], &config.train_files[1]);
    assert_eq!((a.path.as_path(), a.limit), (Path::new("a.parquet"), None));
    assert_eq!((b.path.as_path(), b.limit), (Path::new("b.jsonl"), Some(3)));
    let config: RlConfig = from_text("", &["train_files=a.parquet"]).unwrap();
    assert_eq!(config.train_files, [DatasetConfig { path: "a.parquet".into(), ..DatasetConfig::default() }]);
    assert!(message::<RlConfig>("train_files: ['']\n", &[]).contains("train_files.0.path"));
    assert!(message::<RlConfig>("train_files: [7]\n", &[]).contains("train_files.0: found 7"));
    // A group without a short form must be given as keys with values.
    assert!(message::<RlConfig>("rollout: 8\n", &[]).contains("expected keys with values"));
}

#[test]
fn the_yaml_parsers_advice_to_programmers_is_not_shown() {
    for text in [message::<SftConfig>("seed: 1\nseed: 2\n", &[]), message::<SftConfig>("learning_rate: .nan\n", &[])] {
        assert!(!text.contains("Policy") && !text.contains("policy") && text.contains("line "), "{text}");
    }
    let text = message::<SftConfig>("", &["learning_rate=.inf"]);
    assert!(text.contains("learning_rate: found .inf") && !text.contains("line 1"), "{text}");
}

#[test]
fn what_is_not_meant_is_said() {
    assert!(message::<SftConfig>("", &["lora_rank=8"]).contains("lora.rank"));
    assert!(message::<SftConfig>("quantization: int4\n", &[]).contains("one of int8, nf4"));
}

#[test]
fn steps_without_end_are_refused_before_they_are_planned() {
    assert!(message::<SftConfig>("", &["max_steps=18446744073709551615"]).contains("from 1 to 100000000"));
    assert!(message::<SftConfig>("", &["num_train_epochs=1e300"]).contains("num_train_epochs"));
    assert!(message::<RecipeConfig>("", &["control.max_steps=1e15"]).contains("control.max_steps"));
}

#[test]
fn every_count_has_an_upper_limit() {
    fn check<C: Config>() -> usize {
        let is_count = |key: &&Key| key.kind.starts_with("a whole number") && !key.path.ends_with("seed");
        let counts: Vec<Key> = keys::<C>().into_iter().filter(|key| is_count(&key)).collect();
        for key in &counts {
            let path = key.path.replace("[]", ".0");
            for value in ["18446744073709551615", "9223372036854775807", "1e18"] {
                // The value of a key is read before other keys of its group are missed.
                let mut lists: Vec<&str> = key.path.split("[].").collect();
                let nested = lists.split_off(1).iter().rev().fold(value.to_owned(), |value, part| {
                    let inner = part.split('.').rev().fold(value, |value, name| format!("{{{name}: {value}}}"));
                    format!("[{inner}]")
                });
                let error =
                    from_text::<C>("", &[&format!("{}={nested}", lists[0])]).err().map(|error| error.to_string());
                let error = error.unwrap_or_else(|| panic!("{}: {path} takes {value}", C::NAME));
                assert!(error.contains(&format!("{path}: found ")), "{}: {path}={value}: {error}", C::NAME);
            }
        }
        counts.len()
    }
    let all = check::<RecipeConfig>() + check::<DataConfig>() + check::<SftConfig>() + check::<RlConfig>();
    let more = check::<EvalConfig>() + check::<GenerateConfig>() + check::<ServeConfig>() + check::<ScoreConfig>();
    assert!(all > 150 && more > 20, "{all} {more}");
}

#[test]
fn rounded_weights_are_refused_where_they_cannot_follow() {
    let on = "bf16_stochastic_round: true\n";
    let text = message::<SftConfig>(on, &["learning_rate=5e-6"]);
    assert!(text.contains("learning_rate: found 5e-6") && text.contains("1e-5 or more"), "{text}");
    let text = message::<SftConfig>(on, &["dtype=f32"]);
    assert!(text.contains("bf16_stochastic_round") && text.contains("dtype bf16"), "{text}");
    assert!(from_text::<SftConfig>(on, &["learning_rate=1e-5"]).unwrap().optimizer.bf16_stochastic_round);
    assert!(from_text::<SftConfig>("learning_rate: 1e-7\n", &[]).is_ok());
    let nested = "dtype: bf16\nsft: {bf16_stochastic_round: true}\n";
    let text = message::<RecipeConfig>(nested, &["sft.learning_rate=9e-6"]);
    assert!(text.contains("sft.learning_rate"), "{text}");
    let text = message::<RecipeConfig>(nested, &["control.learning_rate=9e-6"]);
    assert!(text.contains("control.learning_rate"), "{text}");
    // RL has no such key, because its learning rates are lower.
    assert!(message::<RlConfig>(on, &[]).contains("unknown key"));
}

#[test]
fn the_resolved_yaml_reads_back_as_the_same_config() {
    let config: RecipeConfig = from_text("seed: 7\nrl: {rollout: {n: 4}}\n", &["sft.learning_rate=3e-3"]).unwrap();
    let again: RecipeConfig = from_text(&to_yaml(&config).unwrap(), &[]).unwrap();
    assert_eq!(config, again);
    assert_eq!((config.sft.seed, config.rl.seed, config.eval.seed), (7, 7, 7));
}

#[test]
fn differences_name_the_keys_and_know_the_safe_ones() {
    let was = SftConfig { max_steps: Some(10), ..SftConfig::default() };
    let now = SftConfig { max_steps: Some(20), save_steps: Some(5), ..SftConfig::default() };
    assert!(refuse_differences(Path::new("runs/x"), &was, &now).unwrap().len() == 2);
    let error = refuse_differences(Path::new("runs/x"), &now, &was).expect_err("fewer steps").to_string();
    assert!(error.contains("max_steps was 20 and is 10") && !error.contains("save_steps"), "{error}");
    let mut now = was.clone();
    now.optimizer.learning_rate = 1.0;
    assert!(refuse_differences(Path::new("runs/x"), &was, &now).is_err());
    // Limits of a sampling that gives up, or of a slow program, may be raised. They change no step that was made.
    let rl = |text: &str| from_text::<RlConfig>(text, &[]).unwrap();
    let was = rl("{rewards: {mine: {command: [x], timeout_s: 1.0}}, filter_groups: {max_num_gen_batches: 1}}");
    let now =
        rl("{rewards: {mine: {command: [x], timeout_s: 9.0, workers: 2}}, filter_groups: {max_num_gen_batches: 5}}");
    assert_eq!(refuse_differences(Path::new("runs/x"), &was, &now).unwrap().len(), 3);
    let other = rl("{rewards: {mine: {command: [y], timeout_s: 1.0}}, filter_groups: {max_num_gen_batches: 1}}");
    assert!(refuse_differences(Path::new("runs/x"), &was, &other).is_err());
}

#[test]
fn every_key_has_a_meaning_and_a_type() {
    let all =
        [keys::<RecipeConfig>(), keys::<SftConfig>(), keys::<RlConfig>(), keys::<EvalConfig>(), keys::<DataConfig>()];
    for key in all.iter().flatten() {
        assert!(!key.meaning.is_empty() && !key.kind.is_empty(), "{key:?}");
    }
    assert!(all[0].iter().any(|key| key.path == "rl.rollout.n" && key.default == "8"));
}

#[test]
fn the_shipped_configs_load() {
    let config: RecipeConfig = load(Some(&shipped("digits.yaml")), &[], &no_env).unwrap();
    assert_eq!((config.sft.optimizer.learning_rate, config.rl.rollout.n), (3e-3, 8));
}

#[test]
fn a_preset_sets_what_is_not_written_and_is_not_typed_over_what_is() {
    let keys = |config: &RlConfig| {
        let c = config;
        (c.loss_mode, c.loss_agg_mode, c.clip_ratio_low, c.clip_ratio_high, c.clip_ratio_c, c.filter_groups.enable)
    };
    // The defaults are those of the preset gspo.
    assert_eq!(from_text::<RlConfig>("preset: gspo\n", &[]).unwrap(), RlConfig::default());
    let dapo: RlConfig = from_text("preset: dapo\nfilter_groups: {max_num_gen_batches: 3}\n", &[]).unwrap();
    assert_eq!(keys(&dapo), (LossMode::Vanilla, LossAggMode::TokenMean, 0.2, 0.28, 10.0, true));
    assert_eq!((dapo.filter_groups.metric, dapo.filter_groups.max_num_gen_batches), (FilterMetric::Acc, 3));
    let typed: RlConfig = from_text("", &["preset=dr_grpo", "clip_ratio_low=0.1"]).unwrap();
    assert_eq!(keys(&typed), (LossMode::Vanilla, LossAggMode::SeqMeanTokenSumNorm, 0.1, 0.2, 3.0, false));
    assert!(!typed.norm_adv_by_std_in_grpo);
    let in_recipe: RecipeConfig = from_text("rl: {preset: grpo}\n", &["rl.filter_groups.enable=true"]).unwrap();
    assert_eq!(keys(&in_recipe.rl), (LossMode::Vanilla, LossAggMode::TokenMean, 0.2, 0.2, 3.0, true));
    for &(_, preset) in Preset::ALL {
        let all: RlConfig = from_text(&format!("preset: {}\n", preset.name()), &[]).unwrap();
        let again: RlConfig = from_text(&to_yaml(&all).unwrap(), &[]).unwrap();
        assert_eq!(all, again);
        let written = Setting::write(&all);
        for (key, value) in preset.keys() {
            let found = key.split('.').fold(&written, |group, name| &group[name]);
            assert_eq!((key, describe::inline(found)), (key, describe::inline(&value)));
        }
    }

    let text = "clip_ratio_low: 3e-4\nrollout: {n: 2}\nfilter_groups: {metric: score}\n";
    let refused = message::<RlConfig>(text, &["preset=dapo"]);
    for part in ["command line: preset", "clip_ratio_low: 0.0003, filter_groups.metric: score", "remove these keys"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    assert!(!refused.contains("rollout"), "{refused}");
    let refused = message::<RecipeConfig>("rl: {clip_ratio_high: 1}\n", &["rl.preset=grpo"]);
    assert!(refused.contains("command line: rl.preset") && refused.contains("rl.clip_ratio_high: 1"), "{refused}");
    let both = ["preset=dapo", "clip_ratio_low=0.2", "filter_groups.metric=acc"];
    assert_eq!(keys(&from_text(text, &both).unwrap()), keys(&dapo));
    // If a whole group is given on the command line, the preset still sets the keys that the group does not contain.
    let whole = ["preset=dapo", "clip_ratio_low=0.2", "filter_groups={metric: acc}"];
    assert_eq!(keys(&from_text(text, &whole).unwrap()), keys(&dapo));
    assert!(message::<RlConfig>("", &["preset=ppo"]).contains("gspo, grpo, dapo, dr_grpo"));
    assert!(message::<RlConfig>("gen_batch_size: 128\n", &[]).contains("filter_groups.enable"));
}

#[test]
fn raft_with_a_loss_divided_by_the_length_is_refused_because_answers_become_shorter() {
    for (text, key) in
        [("", "loss_mode: found gspo"), ("preset: grpo\nloss_agg_mode: seq-mean-token-mean\n", "loss_agg_mode")]
    {
        let refused = message::<RlConfig>(text, &["adv_estimator=raft"]);
        assert!(refused.contains(key) && refused.contains("shorter") && refused.contains("preset=grpo"), "{refused}");
        assert!(from_text::<RlConfig>(text, &[]).is_ok());
    }
    for preset in ["grpo", "dapo", "dr_grpo"] {
        assert!(from_text::<RlConfig>(&format!("preset: {preset}\n"), &["adv_estimator=raft"]).is_ok(), "{preset}");
    }
}

#[test]
fn the_number_of_reward_programs_has_a_limit() {
    let program = "command: [python3, p.py]";
    for text in [
        format!("reward: {{{program}, workers: 1000000}}\n"),
        format!("rewards: {{x: {{{program}, workers: 1025}}}}\n"),
        format!("reward: {{{program}, workers: 0}}\n"),
    ] {
        let error = message::<super::ScoreConfig>(&text, &[]);
        assert!(error.contains("workers") && error.contains("1024"), "{error}");
    }
}

#[test]
fn what_would_divide_by_nothing_or_count_nothing_is_refused() {
    let still = message::<SftConfig>("learning_rate: 0\nvision_tower_lr: 1e-4\n", &[]);
    assert!(still.contains("learning_rate") && still.contains("freeze_language_model"), "{still}");
    for key in ["lora.rank=4", "freeze_vision_tower=true"] {
        let unused = message::<SftConfig>("vision_tower_lr: 1e-4\n", &[key]);
        assert!(unused.contains("vision_tower_lr") && unused.contains("is not trained"), "{unused}");
    }
    let counted = "rl: {train_files: [a.parquet], total_training_steps: 3}\n";
    assert!(from_text::<RecipeConfig>(counted, &[]).is_ok());
    let uncounted = message::<RecipeConfig>("rl: {train_files: [a.parquet]}\n", &[]);
    assert!(uncounted.contains("control.max_steps"), "{uncounted}");
}

#[test]
fn epochs_are_counted_where_no_steps_are_named() {
    let config: RlConfig =
        from_text("total_epochs: 15\ntrain_batch_size: 128\nppo_mini_batch_size: 128\n", &[]).unwrap();
    // The next pass completes the last batch of a pass, so 1,110,000 prompts are 8,671 full batches and one partial
    // batch.
    assert_eq!(config.total_steps(74_000), 8672);
    assert_eq!(RlConfig { total_training_steps: Some(3), ..config }.total_steps(74_000), 3);
}

#[test]
fn nearest_is_near() {
    assert_eq!(nearest("lerning_rate", ["learning_rate", "seed"]), Some("learning_rate"));
    assert_eq!(nearest("zzz", ["learning_rate", "seed"]), None);
}

#[test]
fn names_of_verl_that_were_refused_are_read() {
    let of = |name: &str| {
        let text = format!("kl_loss_type: {name}\nkl_penalty: {name}\n");
        from_text::<RlConfig>(&text, &[]).map(|config| (config.kl_loss_type, config.kl_penalty))
    };
    for (name, kind) in [("k1", KlLossType::Kl), ("k2", KlLossType::Mse), ("k3", KlLossType::LowVarKl)] {
        assert_eq!(of(name).unwrap(), (kind, kind), "{name}");
    }
    let text = "loss_agg_mode: token-sum\nfilter_groups: {enable: true, metric: seq_final_reward}\n";
    let config: RlConfig = from_text(text, &[]).unwrap();
    assert_eq!(config.loss_agg_mode, LossAggMode::TokenSum);
    let message = from_text::<RlConfig>(text, &["use_kl_in_reward=true"]).unwrap_err().to_string();
    assert!(message.contains("expected seq_reward"), "{message}");
    let text = "adv_estimator: reinforce_plus_plus\nuse_kl_in_reward: true\n";
    let message = from_text::<RlConfig>(text, &[]).unwrap_err().to_string();
    assert!(message.contains("use_kl_in_reward: found true"), "{message}");
}

#[test]
fn a_run_that_is_older_than_a_key_continues_with_its_rule() {
    let dir = tempfile::tempdir().unwrap();
    let (recorded, own) = (dir.path().join("config.yaml"), dir.path().join("own.yaml"));
    let none = |_: &str| None;
    std::fs::write(&own, "min_lr_ratio: 0.1\n").unwrap();
    let continued = |values: &[String]| load_for::<SftConfig>(Some(&own), values, &none, Some(&recorded)).unwrap();
    let start = |config: &SftConfig| config.optimizer.init_lr_ratio;

    std::fs::write(&recorded, "# omr 0.1.0\nmin_lr_ratio: 0.1\n").unwrap();
    assert_eq!(start(&load(Some(&own), &[], &none).unwrap()), Some(0.0), "a new run");
    assert_eq!(start(&load(Some(&recorded), &[], &none).unwrap()), None, "the record of an older run");
    assert_eq!(start(&continued(&[])), None);
    let backend = |config: &SftConfig| config.training.images.image_backend;
    assert_eq!(backend(&continued(&[])), ImageBackend::Pil);
    assert_eq!(backend(&load(Some(&own), &[], &none).unwrap()), ImageBackend::Auto, "a new run");
    assert_eq!(start(&continued(&["init_lr_ratio=0.5".to_owned()])), Some(0.5));

    std::fs::write(&recorded, "# omr 0.1.0\nmin_lr_ratio: 0.1\ninit_lr_ratio: 0\n").unwrap();
    assert_eq!(start(&continued(&[])), Some(0.0), "a run that is not older");
}

#[test]
fn a_recorded_draft_is_ignored_and_a_new_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = dir.path().join("config.yaml");
    std::fs::write(&recorded, "# omr 0.1.0\nrollout: {n: 4, draft: auto}\n").unwrap();
    assert_eq!(load::<RlConfig>(Some(&recorded), &[], &|_| None).unwrap().rollout.n, 4);
    let message = from_text::<RlConfig>("rollout: {draft: off}\n", &[]).unwrap_err().to_string();
    assert!(message.contains("only omr replay drafts tokens"), "{message}");
}

#[test]
fn variables_of_a_chat_template_have_names_and_types() {
    let config: SftConfig = from_text("chat_template_kwargs: {enable_thinking: false}\n", &[]).unwrap();
    let variables = config.training.chat_template_kwargs.variables();
    assert_eq!(serde_json::Value::from(variables), serde_json::json!({"enable_thinking": false}));
    assert!(SftConfig::default().training.chat_template_kwargs.variables().is_empty());
    let of_recipe: RecipeConfig = from_text("", &["rl.chat_template_kwargs.date_string=01 Jan 2025"]).unwrap();
    assert_eq!(of_recipe.rl.training.chat_template_kwargs.date_string.as_deref(), Some("01 Jan 2025"));
    let text = message::<EvalConfig>("chat_template_kwargs: {messages: 1}\n", &[]);
    assert!(text.contains("chat_template_kwargs.messages: found the unknown key messages"), "{text}");
    assert!(text.contains("one of add_vision_id, date_string, enable_thinking"), "{text}");
    let text = message::<GenerateConfig>("", &["chat_template_kwargs.enable_thinking=no"]);
    assert!(text.contains("chat_template_kwargs.enable_thinking: found no, expected true or false"), "{text}");
    assert!(message::<RlConfig>("enable_thinking: true\n", &[]).contains("chat_template_kwargs.enable_thinking"));
    let changed = refuse_differences(Path::new("run"), &SftConfig::default(), &config).unwrap_err().to_string();
    assert!(changed.contains("chat_template_kwargs.enable_thinking was null and is false"), "{changed}");
}
