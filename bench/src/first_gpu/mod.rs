//! `omr bench first-gpu`: the checks and jobs with which the first user of a GPU finds out whether omr works there. Writes
//! verdicts, figures and versions to a JSON file and to a page beside it.
//!
//! Each case runs in a process of its own with a time limit, because a kernel that does not end cannot be interrupted,
//! and a fault makes the GPU unusable for the process.

mod answers;
mod record;
mod several;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use self::record::{Record, failed, not_run, passed};
use super::options::Options;
use omr_base::error::{Error, Result, words};
use omr_base::files::{self, Output};
use omr_base::hub::{self, local};
use omr_model::nn::ModelConfig;
use omr_runtime::device::{Kind, cuda};
use omr_runtime::machine::Machine;

/// Name of this benchmark in `omr bench`.
pub const NAME: &str = "first-gpu";

/// Time for all cases together, except the last.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Time that a small kernel may take, with the start of its process, before the GPU counts as unusable.
const CANARY: Duration = Duration::from_secs(40);
/// Shapes of the jobs on a GPU, the largest first. Other devices run the last one.
const SHAPES: [&str; 5] = ["7b", "3b", "7b-slice", "22m", "digits"];
const MMA_SYNC: &str = "mma.sync";

/// Cases: the name, the maximum seconds, and the arguments of `omr bench`, or another word. The first process may wait for
/// the driver, which compiles the kernels.
const CASES: [(&str, u64, &str); 15] = [
    ("doctor", 30, "doctor"),
    ("start checks", 180, "start check"),
    ("wgmma = mma.sync", 60, "variants"),
    ("sampler = trainer", 150, "parity"),
    ("ten greedy answers", 240, "answers"),
    ("decode, batch 1", 75, "decode --batch-size 1"),
    ("decode, batch 16", 75, "decode --batch-size 16"),
    ("decode, batch 64", 75, "decode --batch-size 64"),
    ("LoRA SFT step", 120, "train-step --lora-rank 16"),
    ("LoRA RL step", 120, "rl-step --lora-rank 16"),
    ("prefill", 75, "prefill --batch-size 8"),
    ("transfers", 120, "ranks"),
    ("SFT, RL: 1 to 8 GPUs", 300, "several"),
    ("two ranks on one GPU", 120, "two on one"),
    ("20 GSPO steps", 4 * 3600, REAL),
];
/// Case without a part in [`LIMIT`].
const REAL: &str = "real";

/// Standard output of a process, or the reason why it failed.
type Printed = std::result::Result<String, String>;

/// Runs all cases with kernel variant `variant`, the value of `--kernel-variant`, and returns a table. The files are
/// rewritten after each case.
pub fn run(options: &Options, machine: &Machine, variant: &str) -> Result<String> {
    let json = options.json.clone().filter(|file| file.extension().is_some_and(|end| end == "json"));
    let json = json.ok_or_else(|| Error::input("omr bench first-gpu", "no --json F.json", "--json F.json"))?;
    if json.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(Error::input("--json", json.display().to_string(), "a file in a folder that exists"));
    }
    for file in [&json, &json.with_extension("html")] {
        Output::regular(file, options.overwrite, &[])?;
    }
    let model = options.model.as_deref().map(model_dir).transpose()?;
    let real = options.real.as_deref().map(model_dir).transpose()?;
    let data = options.data.as_deref().map(|rows| std::path::absolute(rows).map_err(Error::io(rows))).transpose()?;
    if real.is_some() != data.is_some() {
        return Err(Error::input("omr bench first-gpu", "one of --real and --data", "both, or none"));
    }
    let kind = machine.target.kind;
    let found = if kind == Kind::Cuda { cuda::find()? } else { Vec::new() };
    // Without GPUs, two processes stand for two GPUs.
    let gpus = if kind == Kind::Cuda { found.len() } else { 2 };
    let gpu = found.into_iter().next();
    let capability = gpu.as_ref().map(|gpu| gpu.compute_capability);
    if gpu.is_none() {
        machine.observer.note(&format!("first-gpu runs on {}: its figures say nothing about a GPU", machine.place));
    }
    let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let mut record = Record::new(json, kind, gpu, &CASES.map(|(name, ..)| name))?;
    let mut kit = Kit { machine, kind, gpus, model, seconds: options.seconds, variant: variant.to_owned(), scratch };
    let (start, mut is_lost) = (Instant::now(), false);
    machine.observer.begin(NAME, "cases", CASES.len() as u64, 0);
    for (i, (name, seconds, what)) in CASES.into_iter().enumerate() {
        let left = if what == REAL { Duration::MAX } else { LIMIT.saturating_sub(start.elapsed()) };
        let (begun, limit) = (Instant::now(), Duration::from_secs(seconds).min(left));
        let outcome = match what {
            _ if is_lost => not_run("after the failure above, the GPU does not run a small kernel"),
            _ if limit.as_secs() < 5 => not_run("the 20 minutes of the command are over"),
            // The GPU is not opened, so that this case does not depend on the start check.
            "doctor" => kit.doctor(Kind::Cpu, ["device", kind.name()], limit)?,
            "start check" if kind == Kind::Cpu => not_run("the CPU has no start check"),
            "start check" => kit.doctor(kind, [what, ""], limit)?,
            "variants" if kind == Kind::Cpu || capability.is_some_and(|capability| capability != (9, 0)) => {
                not_run("not on this device: wgmma needs compute capability 9.0")
            }
            "variants" if kit.variant == MMA_SYNC => not_run("the kernel variant is mma.sync"),
            "answers" => kit.answers(limit)?,
            "ranks" => kit.bench(&format!("ranks --gpus {gpus}"), limit)?,
            "several" => kit.same_model(limit)?,
            "two on one" => kit.two_on_one(limit)?,
            REAL => kit.real_steps(real.as_deref(), data.as_deref(), limit)?,
            "decode --batch-size 16" | "decode --batch-size 64" if kind == Kind::Emu => {
                not_run("the emulator is too slow for this batch")
            }
            arguments => kit.bench(arguments, limit)?,
        };
        let line = record.put(i, outcome, begun.elapsed())?;
        machine.observer.note(&format!("{name}: {line}"));
        machine.observer.step(i as u64 + 1, &[]);
        // A lost GPU does not run a small kernel, either.
        is_lost |=
            kind == Kind::Cuda && line.starts_with("failed") && kit.rows(MMA_SYNC, "rms_norm", CANARY)?.1.is_some();
    }
    machine.observer.end();
    record.complete()
}

/// Returns the absolute path of the model directory that `--model` names.
fn model_dir(model: &Path) -> Result<PathBuf> {
    let dir = local::find(model, hub::Kind::Model, "--model", &|name| std::env::var(name).ok())?;
    ModelConfig::load(&dir.join("config.json"))?;
    std::path::absolute(&dir).map_err(Error::io(&dir))
}

/// Values that the cases share.
struct Kit<'a> {
    machine: &'a Machine<'a>,
    kind: Kind,
    /// Number of GPUs, or of processes that stand for them.
    gpus: usize,
    model: Option<PathBuf>,
    /// Minimum time to measure a benchmark, in seconds.
    seconds: f64,
    /// Value of `--kernel-variant` for the next processes.
    variant: String,
    scratch: TempDir,
}

impl Kit<'_> {
    /// Runs `command` for at most `limit`.
    fn process(&self, mut command: Command, limit: Duration) -> Result<Printed> {
        // A pipe that nobody reads would stop the process, so its output goes to files.
        let [out, err] = ["stdout", "stderr"].map(|name| self.scratch.path().join(name));
        let create = |path: &PathBuf| File::create(path).map_err(Error::io(path));
        let spawned = command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return Ok(Err(format!("{}: {}", command.get_program().display(), words(&error)))),
        };
        let (end, mut is_killed, mut status) = (Instant::now() + limit, false, None);
        // A process that is killed while it waits in the driver may not end.
        while status.is_none() && Instant::now() < end + Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
            status = child.try_wait().map_err(Error::io(&out))?;
            if status.is_none() && !is_killed && (Instant::now() > end || self.machine.observer.stop_requested()) {
                is_killed = true;
                let _ = child.kill();
            }
        }
        self.machine.observer.check_stop()?;
        let text = |path: &PathBuf| files::read_to_string(path).unwrap_or_default();
        Ok(match status {
            Some(status) if status.success() => Ok(text(&out)),
            Some(status) if !is_killed => {
                Err(text(&err).lines().last().map_or(status.to_string(), |line| line.replace("error: ", "")))
            }
            _ => Err(format!("has not ended after {:.0} s", limit.as_secs_f64())),
        })
    }

    /// Runs omr on a device of this kind for at most `limit`. If it does not end, the next processes use `mma.sync`.
    fn omr(&mut self, kind: Kind, variant: &str, arguments: &[&str], limit: Duration) -> Result<Printed> {
        let printed = self.process(self.command(kind, variant, arguments)?, limit)?;
        if kind == Kind::Cuda && printed.as_ref().is_err_and(|why| why.starts_with("has not ended")) {
            self.variant = MMA_SYNC.to_owned();
        }
        Ok(printed)
    }

    /// Returns the command that runs omr on a device of this kind.
    fn command(&self, kind: Kind, variant: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().map_err(Error::io("omr"))?);
        command.args(["--device", kind.name(), "--threads", &self.machine.threads.to_string()]);
        if kind.is_gpu() {
            command.args(["--kernel-variant", variant]);
        }
        command.args(arguments);
        Ok(command)
    }

    /// Runs `omr doctor` on a device of this kind. The verdict is that of the finding about `what` that begins with
    /// `begin`.
    fn doctor(&mut self, kind: Kind, [what, begin]: [&str; 2], limit: Duration) -> Result<Value> {
        let printed = self.omr(kind, &self.variant.clone(), &["doctor", "--json"], limit)?;
        let parsed: Value = printed.as_ref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_default());
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let is_it = |finding: &&Value| finding["what"] == what && text(finding, "found").starts_with(begin);
        let found = parsed["findings"].as_array().into_iter().flatten().find(is_it);
        let line = found.map(|finding| format!("{}: {}", text(finding, "found"), text(finding, "remark")));
        if found.is_some_and(|finding| finding["ok"] == true) {
            return Ok(passed(line.unwrap_or_default(), Vec::new()));
        }
        if what != "device" {
            self.variant = MMA_SYNC.to_owned();
        }
        Ok(failed(line.or(printed.err()).unwrap_or_default()))
    }

    /// Runs `omr bench` and returns its rows, and the reason if it failed.
    fn rows(&mut self, variant: &str, arguments: &str, limit: Duration) -> Result<(Vec<Value>, Option<String>)> {
        let (kind, file) = (self.kind, self.scratch.path().join("rows.json"));
        let _ = std::fs::remove_file(&file);
        let (seconds, path) = (self.seconds.to_string(), file.display().to_string());
        let dtype = if kind.is_gpu() { "bf16" } else { "f32" };
        let all = ["bench"].into_iter().chain(arguments.split(' '));
        let all: Vec<&str> = all.chain(["--dtype", dtype, "--seconds", &seconds, "--json", &path]).collect();
        let fault = self.omr(kind, variant, &all, limit)?.err();
        let written: Value =
            serde_json::from_str(&files::read_to_string(&file).unwrap_or_default()).unwrap_or_default();
        let rows = written["rows"].as_array().cloned().unwrap_or_default();
        let skipped = rows.iter().find_map(|row| row["skipped"].as_str()).map(str::to_owned);
        Ok((rows, fault.or(skipped)))
    }

    /// Runs a benchmark with the largest shape that fits.
    fn bench(&mut self, arguments: &str, limit: Duration) -> Result<Value> {
        let begun = Instant::now();
        // The emulated GPU has compute capability 9.0 only if wgmma is requested.
        let variant = if arguments == "variants" { "wgmma" } else { &self.variant }.to_owned();
        let shapes = if self.kind == Kind::Cuda { &SHAPES[..] } else { &SHAPES[4..] };
        for shape in shapes {
            let arguments = format!("{arguments} --model-shape {shape}");
            let (rows, fault) = self.rows(&variant, &arguments, limit.saturating_sub(begun.elapsed()))?;
            if fault.as_ref().is_some_and(|fault| fault.starts_with("takes ")) {
                continue;
            }
            let mut outcome = match fault {
                Some(fault) => failed(fault),
                None => passed(rows.iter().map(figure).collect::<Vec<_>>().join("; "), rows),
            };
            outcome["command"] = format!("omr bench {arguments}").into();
            return Ok(outcome);
        }
        Ok(not_run("no model shape fits into the memory"))
    }

    /// Answers questions, and compares the answers with those of transformers.
    fn answers(&mut self, limit: Duration) -> Result<Value> {
        let (begun, folder) = (Instant::now(), self.scratch.path().to_owned());
        let Some(model) = self.model.as_ref().map(|model| model.display().to_string()) else {
            return Ok(not_run("no --model DIR was given"));
        };
        answers::write(&folder)?;
        let [questions, file] =
            ["questions.jsonl", "answers.jsonl"].map(|name| folder.join(name).display().to_string());
        let arguments =
            ["generate", "--model", &model, "--jsonl", &questions, "--out", &file, "temperature=0", "max_tokens=32"];
        if let Err(reason) = self.omr(self.kind, &self.variant.clone(), &arguments, limit)? {
            return Ok(failed(reason));
        }
        let mut python = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
        python.current_dir(folder).env("HF_HUB_OFFLINE", "1").args(["-c", answers::PROGRAM, &model]);
        python.arg(if self.kind.is_gpu() { "bfloat16" } else { "float32" });
        let compared = self.process(python, limit.saturating_sub(begun.elapsed()))?;
        let compared = compared.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        let alone = |reason| passed(format!("ten answers, not compared with transformers: {reason}"), Vec::new());
        Ok(compared.unwrap_or_else(alone))
    }
}

/// Formats a row of `omr bench`.
fn figure(row: &Value) -> String {
    let shape = row["shape"].as_str().unwrap_or_default();
    if ["parity", "variants"].iter().any(|check| row["name"] == *check) {
        return format!("bitwise equal: {shape}");
    }
    let number = |key: &str, unit| row[key].as_f64().map_or_else(String::new, |value| format!(", {value:.1} {unit}"));
    shape.to_owned()
        + &number("ours_ms", "ms")
        + &number("tokens_per_sec", "tokens/s")
        + &number("predicted_ms", "ms predicted, clock assumed")
}
