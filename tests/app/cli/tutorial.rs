//! Types the commands of docs/user/tutorial.md, with fewer training steps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Returns the commands in the page's `sh` blocks, except the build.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let joined: Vec<String> = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let lines = joined.iter().flat_map(|block| block.lines()).map(|line| line.trim().to_owned());
    lines.filter(|line| !line.starts_with("cargo ") && !line.starts_with("export ")).collect()
}

#[test]
#[ignore = "trains a model in about half a minute"]
fn every_command_of_the_tutorial_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/user/tutorial.md")).unwrap();
    let commands = commands(&page);
    let used = |word: &str| commands.iter().filter(|command| command.contains(word)).count();
    for word in ["shapes.py", "omr data inspect", "omr init", "omr rl", "omr report", "omr generate", "omr chat"] {
        assert_eq!(used(word), 1, "{word}: {commands:#?}");
    }
    assert_eq!((used("omr sft"), used("omr eval")), (2, 2), "{commands:#?}");
    let dir = tempfile::tempdir().unwrap();
    for name in ["docs", "configs"] {
        symlink(root.join(name), dir.path().join(name)).unwrap();
    }
    // The first word `omr` of a command runs the program under test. Training makes fewer steps.
    let short = r#"omr() {
        case "$1" in
            sft) set -- "$@" max_steps=30 eval_steps=15 ;;
            rl) set -- "$@" total_training_steps=2 ;;
        esac
        "$OMR" "$@"
    }"#;
    for command in &commands {
        let script = format!("set -euo pipefail\n{short}\n{command}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(dir.path()).env("OMR", env!("CARGO_BIN_EXE_omr"));
        let output = bash.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    let runs = dir.path().join("runs/shapes");
    for file in ["look/inspect.html", "base/model.safetensors", "sft/model/MANIFEST", "rl/model/MANIFEST"] {
        assert!(runs.join(file).is_file(), "{file}");
    }
    let summary = fs::read_to_string(runs.join("rl-eval/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["tasks"]["shapes"]["n"], 200, "{summary:#}");
}
