//! Tests the help texts, `omr config` and `omr doctor`. Defines the command that tests of the program run.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub fn omr() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    for name in [
        "OAI_BASE_URL",
        "OAI_API_KEY",
        "MODEL_VERSION",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "OPENAI_MODEL_NAME",
        "USE_LLM_JUDGE",
    ] {
        command.env_remove(name);
    }
    // The GPUs are hidden, so that the tests give the same results on every machine.
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// Runs a command with `input` on its stdin.
pub fn fed(command: &mut Command, input: impl AsRef<[u8]> + Send) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that refuses its arguments does not read its input.
        scope.spawn(move || drop(stdin.write_all(input.as_ref())));
        child.wait_with_output().unwrap()
    })
}

fn stdout(args: &[&str]) -> String {
    let output = omr().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the commands of `omr --help`, which lists them in groups.
pub fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let (_, listed) = help.split_once("\nRun:\n").unwrap();
    let (listed, rest) = listed.split_once("\nExamples:\n").unwrap();
    assert!(rest.contains("\n\nOptions:\n"), "the flags of all commands come last: {help}");
    for line in listed.lines() {
        assert!(line.chars().count() <= 80, "does not fit on a line: {line}");
    }
    for group in ["Data:", "Use:", "Inspect:", "Other:"] {
        assert!(listed.lines().any(|line| line == group), "{group}: {listed}");
    }
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// Returns the commands below a command.
pub fn subcommands(command: &str) -> Vec<String> {
    let help = stdout(&[command, "--help"]);
    let (_, listed) = help.split_once("\nCommands:\n").unwrap();
    let lines = listed.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_listed_answers_help_and_none_says_not_implemented() {
    let names = commands();
    assert!(["config", "doctor"].iter().all(|name| names.iter().any(|listed| listed == name)), "{names:?}");
    for name in names {
        let help = stdout(&[&name, "--help"]);
        assert!(help.contains("Usage: omr") && !help.to_lowercase().contains("not implemented"), "{name}: {help}");
    }
}

#[test]
fn help_of_sft_and_rl_has_an_example_and_names_the_list_of_keys() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for command in ["sft", "rl"] {
        let help = stdout(&[command, "--help"]);
        assert!(help.contains(&format!("omr config {command} lists all keys of CONFIG")), "{help}");
        let example = help.lines().find_map(|line| line.trim().strip_prefix(&format!("omr {command} "))).unwrap();
        let (config, keys) = example.split_once(" --out ").unwrap();
        assert!(root.join(config).is_file(), "{example}");
        let keys: Vec<&str> = keys.split(' ').filter(|word| word.contains('=')).collect();
        stdout(
            &[&[command, root.join(config).to_str().unwrap(), "--out", "run", "--print-config"][..], &keys].concat(),
        );
    }
}

#[test]
fn flags_of_all_commands_are_explained_once() {
    let all = stdout(&["--help"]);
    assert!(all.contains("Compute threads") && all.contains("\n  omr recipe configs/digits.yaml --out "), "{all}");
    for command in [&["sft"][..], &["doctor"], &["data", "dedup"]] {
        let help = stdout(&[command, &["--help"]].concat()).replace('\n', " ");
        assert!(
            help.contains("--device, --kernel-variant, --kernel-images, --threads, --log-level, --quiet")
                && !help.contains("Compute threads"),
            "{help}"
        );
    }
    assert!(stdout(&["doctor", "--threads", "3"]).contains("\nthreads          3: "));
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    stdout(&["man", "--out", dir.path().to_str().unwrap()]);
    for name in commands() {
        let page = std::fs::read_to_string(dir.path().join(format!("omr-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(page("omr-data-dedup.1").contains("CONFIG") && page("omr-sft.1").contains("print\\-config"));
    let pages = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    match Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).args(pages).output() {
        Err(_) => eprintln!("this machine has no groff: it does not check the pages"),
        Ok(checked) => assert!(checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr)),
    }
}

#[test]
fn completions_know_commands_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        let missing: Vec<_> = commands().into_iter().filter(|name| !script.contains(name)).collect();
        assert!(missing.is_empty() && script.contains("print-config"), "{shell}: {missing:?}");
    }
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("this machine has no bash: its completions are not tried");
        return;
    }
    for (line, expected) in [
        ("omr sf", "sft"),
        ("omr rl x.yaml rollout.t", "rollout.temperature= rollout.top_p= rollout.top_k="),
        ("omr sft --dry-run x.yaml lora.r", "lora.rank="),
        ("omr sft x.yaml --out warm", ""),
        ("omr sft warm", ""),
        ("omr generate --model m max_t", "max_tokens="),
        ("omr data dedup x.yaml text_", "text_threshold="),
        ("omr doctor s", ""),
    ] {
        let last = line.rsplit(' ').next().unwrap();
        let program = env!("CARGO_BIN_EXE_omr");
        let line = line.replacen("omr", program, 1);
        let typed = format!(
            "COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _omr_keys {program} {last} x\n\
             for word in \"${{COMPREPLY[@]}}\"; do case $word in --*) ;; *) echo \"$word\";; esac; done\n"
        );
        let script = format!("{}\n{typed}\n", stdout(&["completions", "bash"]));
        let output = fed(&mut Command::new("bash"), script);
        let offered = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(offered, expected, "{line}: {output:?}");
    }
}

#[test]
fn zsh_and_fish_complete_config_keys_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("_omr"), stdout(&["completions", "zsh"])).unwrap();
    std::fs::write(dir.path().join("omr.fish"), stdout(&["completions", "fish"])).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_omr"), dir.path().join("omr")).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let fish = "source omr.fish; complete -C 'omr rl x.yaml rollout.te'";
    // The keys that zsh offers, printed by the function that would add them.
    let zsh = "compdef() { :; }; source ./_omr; compadd() { print -l -- $keys; }; _files() { :; }\n\
        LBUFFER='omr rl x.yaml rollout.te'; _omr_keys";
    for (shell, script) in [("fish", fish), ("zsh", zsh)] {
        let mut command = Command::new(shell);
        let output =
            command.args(["-c", script]).current_dir(dir.path()).env("PATH", &path).env("HOME", dir.path()).output();
        let Ok(output) = output else {
            eprintln!("this machine has no {shell}: its completions are not tried");
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.lines().any(|line| line.starts_with("rollout.temperature=")), "{shell}: {output:?}");
    }
    assert!(stdout(&["completions", "zsh"]).contains(":_omr_keys'"));
}

#[test]
fn doctor_says_in_json_what_it_says_in_words() {
    let found: Value = serde_json::from_str(&stdout(&["doctor", "--json"])).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let text = stdout(&["doctor"]);
    let in_words: Vec<&str> = text.lines().skip(1).map(|line| line[..16].trim()).collect();
    assert_eq!(findings.iter().map(|one| one["what"].as_str().unwrap()).collect::<Vec<_>>(), in_words);
    assert!(text.starts_with(&format!("omr {} ", found["version"].as_str().unwrap())), "{text}");
    for one in findings {
        let is_fault = ["NOT ", "STALE"].iter().any(|word| one["remark"].as_str().unwrap().contains(word));
        assert_eq!(one["ok"], !is_fault, "{one}");
    }
}

#[test]
fn version_is_the_packages() {
    assert_eq!(stdout(&["--version"]).trim(), concat!("omr ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn config_lists_type_default_meaning_and_names_elsewhere() {
    let text = stdout(&["config", "rl"]);
    let (_, entry) = text.split_once("clip_ratio_low: 0.0003\n    ").unwrap();
    let (meaning, facts) = entry.split_once("\n    [").unwrap();
    assert!(meaning.contains("clip") && !meaning.contains('\n'), "{meaning}");
    let key = "a number, 0 or more; verl actor_rollout_ref.actor.clip_ratio_low; TRL epsilon (and clip_ratio_high); \
               published: 3e-4]\n";
    assert!(facts.starts_with(key), "{facts}");
    // The help shows a single rule for the valid numbers, instead of the rules of the type and of the key.
    assert!(stdout(&["config", "sft"]).contains("[a whole number, from 1 to 100000000 or null; "));
    assert!(!text.contains("0 or more, ") && !text.contains("0 or more or null, "), "{text}");
    assert!(stdout(&["config", "--grep", "rollout.n"]).starts_with("rl.rollout.n: 8\n"));
    // Keys are in groups, and the list says what `published` means.
    assert!(text.starts_with("# ") && text.lines().take(2).any(|line| line.contains("(published)")), "{text}");
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    let order = ["\n\n# Model and prompts\n\nmodel: ", "\ntrain_batch_size: ", "\n\n# Optimizer\n\nweight_decay: "];
    assert!(order.iter().map(|part| place(part)).is_sorted(), "{text}");
}

#[test]
fn doctor_names_processor_instruction_set_memory_and_folders() {
    let text = stdout(&["doctor"]);
    for part in
        ["omr ", "processor", "kernel variants", "threads", "memory", "device ", "kernel images", "temporary files"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}
