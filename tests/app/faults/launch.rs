//! Tests how launchers start and stop ranks: repeated signals, ranks that fail before they meet, the limit of open files, and
//! the examples in `configs/cluster`, whose commands run on this machine as the launchers would start them.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use omr_base_tests::wait::until;
use omr_train_tests::training::tiny::Outcome;
use serde_json::Value;

use super::ranks::{OMR, free_port, job, launched, sft};

fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn kill(signals: &str, children: &[Child]) {
    let ids: Vec<String> = children.iter().map(|child| child.id().to_string()).collect();
    for signal in signals.split(' ') {
        assert!(Command::new("kill").arg(format!("-{signal}")).args(&ids).status().unwrap().success());
    }
}

fn until_a_step(out: &Path) {
    until("a step is done", || fs::metadata(out.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0));
}

/// `srun torchrun` and others deliver each signal twice, and batch systems send SIGUSR1 before SIGTERM.
#[test]
fn a_signal_that_comes_again_and_again_is_one_request_and_saves_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out, whole) = job(dir.path(), 30);
    let port = free_port();
    let ranks = ["0", "1"].map(|rank| {
        let mut command = sft(&file, &out);
        launched(command.arg("save_on_stop=true").env("OMR_GRACE_SECONDS", "0"), rank, port)
    });
    until_a_step(&out);
    kill("TERM TERM USR1 USR2 TERM INT INT", &ranks);
    for rank in ranks {
        let (status, printed) = ended(rank);
        assert_eq!(status, Some(130), "{printed}");
    }
    let steps = fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(fs::read_to_string(out.join("latest")).unwrap(), format!("global_step_{steps}\n"));

    // No time at all is too little for another checkpoint, and a day is enough.
    let start = |seconds: &str| {
        let mut command = sft(&file, &out);
        ended(command.arg("save_on_stop=true").env("OMR_GRACE_SECONDS", seconds).spawn().unwrap())
    };
    let (status, printed) = start("soon");
    assert!(status == Some(2) && printed.contains("environment variable OMR_GRACE_SECONDS: found soon"), "{printed}");
    let (status, printed) = start("0");
    let warning = format!("OMR_GRACE_SECONDS=0 leaves 0 s to stop, but the checkpoint of step {steps} took ");
    assert!(status == Some(0) && printed.contains(&warning), "{printed}");
    whole().assert_same(&Outcome::of(&out), "after many signals");
    fs::remove_dir_all(out.join("model")).unwrap();
    assert!(!start("86400").1.contains("OMR_GRACE_SECONDS"));
}

/// A rank whose config is missing cannot meet the others, which wait for it.
#[test]
fn a_rank_without_its_config_ends_the_run_with_its_error() {
    for lost in ["0", "1"] {
        let dir = tempfile::tempdir().unwrap();
        let (file, out, _) = job(dir.path(), 3);
        let (port, missing) = (free_port(), dir.path().join("missing.yaml"));
        let ranks = ["0", "1"].map(|rank| {
            let file = if rank == lost { &missing } else { &file };
            launched(&mut sft(file, &out), rank, port)
        });
        let [first, second] = ranks.map(ended);
        assert_eq!((first.0, second.0), (Some(2), Some(2)), "{first:?} {second:?}");
        assert!(first.1.contains("missing.yaml"), "{first:?}");
        assert!(lost == "0" || first.1.contains("rank 1 ("), "{first:?}");
    }
}

/// Runs `omr` with at most `files` open files, `taken` of which are open at its start.
fn with_files(command: &Command, files: usize, taken: usize) -> Child {
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let open = format!("for i in $(seq {taken}); do exec {{fd}}</dev/null; done; ulimit -n {files}; exec \"$@\"");
    let mut shell = Command::new("bash");
    shell.args(["-c", &open, "bash"]).args(words).stdout(Stdio::null()).stderr(Stdio::piped());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).spawn().unwrap()
}

#[test]
fn too_few_open_files_are_an_error_and_not_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out, _) = job(dir.path(), 3);
    let (status, printed) = ended(with_files(sft(&file, &out).args(["--gpus", "64"]), 300, 0));
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("the limit of open files: found 300, expected at least 448 for 64 ranks"), "{printed}");
    // The limit is large enough, but other files are open. Callers take what is left.
    let (mut command, port) = (sft(&file, &out), free_port());
    command.envs([("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")]);
    command.env("MASTER_PORT", (port - 1).to_string());
    let mut first = with_files(&command, 200, 180);
    let mut callers = Vec::new();
    until("rank 0 has ended", || {
        callers.extend(TcpStream::connect(("127.0.0.1", port)));
        first.try_wait().unwrap().is_some()
    });
    let (status, printed) = ended(first);
    assert!(status == Some(1) && printed.contains("Too many open files"), "{printed}");
}

/// The number of nodes of each example.
const NODES: usize = 2;

/// A folder with the programs that an example calls, and the run of the example.
struct Example {
    dir: tempfile::TempDir,
    out: PathBuf,
    text: String,
}

impl Example {
    /// Reads an example of `configs/cluster`. Two ranks instead of eight run on each node, and on the CPU.
    fn new(name: &str, steps: u64) -> (Example, impl FnOnce() -> Outcome) {
        let dir = tempfile::tempdir().unwrap();
        let (file, out, whole) = job(dir.path(), steps);
        let text = fs::read_to_string(omr_base_tests::root().join("configs/cluster").join(name)).unwrap();
        let (file, shared) = (file.to_str().unwrap(), out.to_str().unwrap());
        let word = format!(" {file} ");
        let edits = [
            ("/shared/sft.yaml", file),
            (" sft.yaml ", word.as_str()),
            ("/shared/sft", shared),
            ("--gpus 8", "--gpus 2"),
            ("--gpus, \"8\"", "--gpus, \"2\""),
            ("gradient_lanes=16", "gradient_lanes=2"),
        ];
        let text = edits.iter().fold(text, |text, (from, to)| text.replace(from, to));
        let example = Example { dir, out, text };
        example.program("omr", &format!("exec {OMR} --threads 1 \"$@\""));
        (example, whole)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes a command that finds the programs of this folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").unwrap());
        command.current_dir(self.dir.path()).env("PATH", path).env("CUDA_VISIBLE_DEVICES", "");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn ended_well(&self, nodes: Vec<Child>, whole: impl FnOnce() -> Outcome, what: &str) {
        let whole = whole();
        let ends: Vec<Output> = nodes.into_iter().map(|node| node.wait_with_output().unwrap()).collect();
        let said: String = ends.iter().map(|end| String::from_utf8_lossy(&end.stderr)).collect();
        assert!(ends.iter().all(|end| end.status.success()), "{said}");
        whole.assert_same(&Outcome::of(&self.out), what);
    }
}

/// Starts the tasks of a step as Slurm's srun does, all on this machine.
const SRUN: &str = r#"
[ "$1" = --kill-on-bad-exit=1 ] || exit 3
shift
export SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=localhost
for task in 0 1 2 3; do
    SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) "$@" &
    pids+=($!)
done
echo "${pids[@]}" > pids.new && mv pids.new pids
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status"#;

#[test]
fn the_example_for_slurm_is_stopped_by_its_signal_requeued_and_ends_with_the_same_model() {
    let (example, whole) = Example::new("slurm.sh", 30);
    let grace = example.text.split_once("--signal=USR1@").unwrap().1.split(' ').next().unwrap();
    assert!(example.text.contains(&format!("export OMR_GRACE_SECONDS={grace}\n")), "the signal and its grace period");
    example.program("srun", SRUN);
    example.program("scontrol", "echo \"$@\" >> scontrol.log");
    fs::write(example.dir.path().join("job.sh"), &example.text).unwrap();
    // The port of a job depends on its number.
    let mut jobs = std::process::id() as u16 % 10_000..20_000;
    let job = jobs.find(|job| TcpListener::bind(("localhost", 10_000 + job)).is_ok()).unwrap().to_string();
    let start = |round: &str| {
        let mut command = example.command("bash");
        command.arg("job.sh").envs([("SLURM_JOB_ID", job.as_str()), ("SLURM_RESTART_COUNT", round)]).spawn().unwrap()
    };
    let first = start("0");
    until_a_step(&example.out);
    let pids = fs::read_to_string(example.dir.path().join("pids")).unwrap();
    assert!(Command::new("kill").arg("-USR1").args(pids.split_whitespace()).status().unwrap().success());
    let (status, printed) = ended(first);
    assert_eq!(status, Some(130), "{printed}");
    let log = || fs::read_to_string(example.dir.path().join("scontrol.log")).unwrap();
    assert_eq!(log(), format!("requeue {job}\n"));
    example.ended_well(vec![start("1")], whole, "the example for Slurm");
    assert_eq!(log(), format!("requeue {job}\n"), "a finished run is not requeued");
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn the_example_for_jobset_ends_with_the_model_of_one_process() {
    let (example, whole) = Example::new("jobset.yaml", 3);
    let (set, port) = (yaml(&example.text), free_port());
    let (name, job) = (set["metadata"]["name"].as_str().unwrap(), &set["spec"]["replicatedJobs"][0]);
    let (nodes, pod) = (&job["template"]["spec"]["completions"], &job["template"]["spec"]["template"]["spec"]);
    let container = &pod["containers"][0];
    let words: Vec<&str> = container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let variable = &container["env"][0];
    assert_eq!(variable["name"], "OMR_GRACE_SECONDS");
    assert_eq!(variable["value"], pod["terminationGracePeriodSeconds"].to_string());
    // The name that JobSet gives to the first pod.
    let master = format!("{name}-{}-0-0.{name}:29500", job["name"].as_str().unwrap());
    let count = nodes.to_string();
    assert!(words.contains(&master.as_str()) && words.windows(2).any(|two| two == ["--nodes", count.as_str()]));
    let here = format!("localhost:{port}");
    let pod = |index: usize| {
        let mut command = example.command(&example.dir.path().join(words[0]).display().to_string());
        command.args(words[1..].iter().map(|word| if *word == master { here.as_str() } else { word }));
        let value = variable["value"].as_str().unwrap();
        command.env("JOB_COMPLETION_INDEX", index.to_string()).env("OMR_GRACE_SECONDS", value).spawn().unwrap()
    };
    assert_eq!(*nodes, NODES);
    // The second pod starts before the first one.
    example.ended_well((0..NODES).rev().map(pod).collect(), whole, "the example for JobSet");
}

#[test]
fn the_example_for_skypilot_ends_with_the_model_of_one_process() {
    let (example, whole) = Example::new("skypilot.yaml", 3);
    let (task, port) = (yaml(&example.text), free_port());
    assert!(task["num_nodes"] == NODES && task["envs"]["MASTER_PORT"] == 29_500);
    let node = |rank: usize| {
        let mut command = example.command("bash");
        command.args(["-c", task["run"].as_str().unwrap()]);
        let variables = [
            ("MASTER_PORT", (port - 1).to_string()),
            ("SKYPILOT_NODE_RANK", rank.to_string()),
            ("SKYPILOT_NUM_NODES", task["num_nodes"].to_string()),
            ("SKYPILOT_NODE_IPS", "127.0.0.1\n127.0.0.1".to_owned()),
        ];
        command.envs(variables).spawn().unwrap()
    };
    example.ended_well((0..NODES).map(node).collect(), whole, "the example for SkyPilot");
}
