use assert_cmd::Command;

pub(crate) fn omr() -> Command {
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
    // What is tested is the same on a machine with a card.
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

fn stdout(args: &[&str]) -> String {
    let output = omr().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_listed_answers_help_and_none_says_not_implemented() {
    let help = stdout(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"config") && names.contains(&"doctor"), "{help}");
    for name in names {
        let help = stdout(&[name, "--help"]);
        assert!(help.contains("Usage: omr") && !help.to_lowercase().contains("not implemented"), "{name}: {help}");
    }
}

#[test]
fn version_is_the_packages() {
    assert_eq!(stdout(&["--version"]).trim(), concat!("omr ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn config_lists_type_default_meaning_and_names_elsewhere() {
    let text = stdout(&["config", "rl"]);
    let key = "clip_ratio_low: 0.0003\n    The ratio is clipped at 1 less this.\n    [a number, 0 or more; \
               verl actor_rollout_ref.actor.clip_ratio_low; published: 3e-4]\n";
    assert!(text.contains(key), "{text}");
    // One rule of which numbers are admitted, not the type's and the key's side by side.
    assert!(stdout(&["config", "sft"]).contains("[a whole number, from 1 to 100000000 or null; "));
    assert!(!text.contains("0 or more, ") && !text.contains("0 or more or null, "), "{text}");
    assert!(stdout(&["config", "--grep", "rollout.n"]).starts_with("rl.rollout.n: 8\n"));
}

#[test]
fn doctor_names_processor_bodies_memory_and_folders() {
    let text = stdout(&["doctor"]);
    for part in
        ["omr ", "processor", "kernel bodies", "threads", "memory", "device ", "kernel images", "temporary files"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("no kernel"), "the CPU has them all: {text}");
    let text = stdout(&["--device", "emu", "doctor"]);
    let listed: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("no kernel")).map(str::trim).collect();
    assert_eq!(listed, omr::ops::CPU_ONLY);
}
