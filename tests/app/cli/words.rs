//! Tests what the program answers to words that people know from other programs: commands, flags, keys, values, YAML.

use std::fs;

use super::training::{Folder, failure, run};

/// Runs a command line that clap refuses, and returns its error line.
fn refused(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    stderr.lines().next().unwrap().to_owned()
}

#[test]
fn commands_of_other_programs_are_answered_with_ours() {
    for (word, ours) in [
        ("train", "`omr sft` on conversations, or `omr rl`"),
        ("finetune", "`omr sft`"),
        ("fine-tune", "`omr sft`"),
        ("grpo", "`omr rl`"),
        ("GSPO", "`omr rl`"),
        ("merge", "`omr export --merge`"),
        ("infer", "`omr generate`"),
        ("inspect", "`omr data inspect`"),
        ("distill", "`omr data distill`"),
        ("evaluate", "`omr eval`"),
        ("compare", "`omr report`"),
    ] {
        let error = refused(&[word]);
        assert!(error.starts_with(&format!("error: omr has no command {word}: use {ours}")), "{error}");
    }
    // A slip is no word of another program.
    assert!(refused(&["recipee"]).contains("unrecognized subcommand"));
    for (typed, command) in
        [(&["help"][..], "--help"), (&["help", "rl"], "rl"), (&["data", "help", "dedup"], "data dedup")]
    {
        let (code, text, _) = run(typed);
        assert!(
            code == 0 && text == run(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat()).1,
            "{text}"
        );
    }
}

#[test]
fn config_keys_as_flags_are_answered_by_every_command_with_keys() {
    for (line, answer) in [
        (
            "generate --model m --prompt x --temperature 0",
            "--temperature is a config key, which is written without dashes: temperature=VALUE",
        ),
        ("chat m --temperature=0", "temperature=VALUE"),
        ("eval --model m --max-new-tokens 8", "max_new_tokens=VALUE"),
        ("generate --model m --prompt x --max-new-tokens 8", "max_tokens=VALUE"),
        ("serve m --temperature 0", "each request states its temperature"),
        ("rl x.yaml --out y --num-generations 4", "rollout.n=VALUE"),
        ("sft x.yaml --out y --lr 1e-5", "learning_rate=VALUE"),
        ("data passrate x.yaml --out y --temperature 1", "temperature=VALUE"),
        ("recipe x.yaml --out y --max_steps 3", "sft.max_steps"),
    ] {
        let error = refused(&line.split(' ').collect::<Vec<_>>());
        assert!(error.contains(answer), "{line}: {error}");
    }
    // A slip in a flag is still answered with the flag.
    assert!(run(&["sft", "x.yaml", "--out", "y", "--dry-rn"]).2.contains("'--dry-run'"));
}

#[test]
fn names_of_data_types_and_devices_are_those_that_people_type() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|_| {}), folder.at("out"));
    for (typed, ours) in [("bfloat16", "bf16"), ("torch.bfloat16", "bf16"), ("float32", "f32"), ("fp32", "f32")] {
        let (code, text, stderr) = run(&["sft", &sft, "--out", &out, &format!("dtype={typed}"), "--print-config"]);
        assert!(code == 0 && text.contains(&format!("\ndtype: {ours}\n")), "{typed}: {stderr}");
    }
    for typed in ["float16", "fp16", "half"] {
        let expected = ["dtype", typed, "expected one of auto, f32, bf16", "65504"];
        failure(&["sft", &sft, "--out", &out, &format!("dtype={typed}")], 2, &expected);
    }
    failure(&["sft", &sft, "--out", &out, "optim=adam"], 2, &["optim", "did you mean adamw_torch?"]);
    failure(&["sft", &sft, "--out", &out, "lora.dropout=0.05"], 2, &["lora.dropout: found 0.05, expected 0"]);
    failure(&["--device", "gpu", "generate", "--model", &folder.at("base"), "--prompt", "x"], 2, &["GPU"]);
}

#[test]
fn keys_in_the_groups_of_a_recipe_are_answered_without_the_group() {
    let folder = Folder::new();
    let (sft, rl, out) = (folder.sft(|_| {}), folder.rl(|_| {}), folder.at("out"));
    failure(&["rl", &rl, "--out", &out, "rl.rollout.n=4"], 2, &["unknown key rl.rollout.n", "expected rollout.n"]);
    failure(&["sft", &sft, "--out", &out, "sft.max_steps=4"], 2, &["unknown key sft.max_steps", "expected max_steps"]);
    fs::write(folder.at("wrong.yaml"), "max_steps: 3\nlearning_rate: 1e-4\n").unwrap();
    let (code, _, stderr) = run(&["recipe", &folder.at("wrong.yaml"), "--out", &out]);
    assert!(code == 2 && stderr.contains("- max_steps -> sft.max_steps or "), "{stderr}");
}

#[test]
fn a_pair_of_answers_is_verified_without_flags() {
    for args in
        [&["verify", "78", "the answer is 78"][..], &["verify", "-5", "-5"], &["verify", "5", "6", "--mode", "compat"]]
    {
        let (code, text, stderr) = run(args);
        assert!(code == 0 && text.contains(&format!("\"equal\":{}", args.len() == 3)), "{args:?}: {text}{stderr}");
    }
    assert!(refused(&["verify", "78"]).contains("required"), "one of two");
}

/// Mistakes in YAML are described for people who do not know the grammar, in the line where they are.
#[test]
fn mistakes_in_yaml_are_described_in_words() {
    let folder = Folder::new();
    for (text, part) in [
        ("seed: 1\n\tx: 2\n", "line 2: a tab in the indentation"),
        ("seed:7\n", "`seed: 7` with a space after the colon"),
        ("seed = 7\n", "`seed: 7` with a space after the colon"),
        ("seed: 7\nrollout: n: 4\n", "line 2 column 11: a second `: `"),
        ("rollout:\n  n: 4\n temperature: 1\n", "line 3 column 2: the indentation is that of no line above"),
        (" seed: 1\nmodel: x\n", "line 2 column 1: the indentation is that of no line above"),
        ("model: @x\n", "line 1 column 8: a value needs quotes if it begins with"),
        ("model: *x\n", "a value that begins with `*` needs quotes"),
        ("seed: 1\nfoo\n", "line 2 column 1: a key without `: ` and a value"),
        ("seed: 1\n---\nseed: 2\n", "expected one"),
    ] {
        fs::write(folder.at("x.yaml"), text).unwrap();
        let error = failure(&["rl", &folder.at("x.yaml"), "--out", &folder.at("out")], 2, &["x.yaml: ", part]);
        assert!(!["from_str", "Options", "Policy", "scalar"].iter().any(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_small_batch_of_prompts_needs_no_smaller_mini_batch() {
    let folder = Folder::new();
    fs::write(folder.at("x.yaml"), "train_batch_size: 8\n").unwrap();
    let size = |args: &[&str]| {
        let (code, text, stderr) = run(&[&["rl", &folder.at("x.yaml"), "--out", "y", "--print-config"], args].concat());
        assert_eq!(code, 0, "{stderr}");
        text.lines().find_map(|line| line.strip_prefix("ppo_mini_batch_size: ")).unwrap().to_owned()
    };
    assert_eq!((size(&[]), size(&["ppo_mini_batch_size=4"])), ("8".to_owned(), "4".to_owned()));
    assert_eq!((size(&["train_batch_size=4"]), size(&["train_batch_size=128"])), ("4".to_owned(), "64".to_owned()));
}
