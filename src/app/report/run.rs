//! Facts at the top of the page of any run: the model, the data, the device and the progress.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::html::separated;

use omr_base::config::{self, Config, RecipeConfig, RlConfig, SftConfig};
use omr_base::files;
use omr_data::reward::judge;
use omr_train::training::metrics::{self, Metrics};
use omr_train::training::slow_rank::SLOW;

/// Models that a recipe evaluates, in the order in which they are shown, with a short description of each.
pub const STAGES: [(&str, &str); 4] = [
    ("base", "before training"),
    ("sft", "trained on the teacher's kept answers"),
    ("control", "SFT continued instead of RL"),
    ("rl", "trained on its own answers"),
];

type Facts = Vec<(String, String)>;

/// Loads the config of the run in `dir`. Returns `None` for runs of other kinds.
pub fn config_of<C: Config>(dir: &Path) -> Option<C> {
    config::load(Some(&dir.join("config.yaml")), &[], &|_| None).ok()
}

/// True if these are the metrics of an RL run.
pub fn is_rl(steps: &[Metrics]) -> bool {
    steps.iter().any(|step| step.contains_key("critic/score/mean"))
}

/// True if `dir` belongs to a run that trains, even if it has made no step yet.
pub fn is_training(dir: &Path) -> bool {
    let is_one = config_of::<RlConfig>(dir).is_some() || config_of::<SftConfig>(dir).is_some();
    files::is_run(dir) && (is_one || config_of::<RecipeConfig>(dir).is_some())
}

/// The main metric of an `omr sft` or `omr rl` run. Single steps are noisy, so tenths of the run are averaged.
pub struct Course {
    /// Name of the metric for readers.
    pub name: &'static str,
    /// Mean of the first tenth of the steps.
    pub first: f64,
    /// Mean of the last tenth of the steps.
    pub last: f64,
    /// Number of steps in a tenth, at least 1.
    pub tenth: usize,
}

/// Describes the progress of an `omr sft` or `omr rl` run by its own metrics.
pub fn headline(steps: &[Metrics]) -> String {
    let Some(Course { name, first, last, tenth }) = course(steps) else { return "No step is finished yet.".to_owned() };
    let count = count(steps);
    match tenth {
        1 => format!("{name} {first:.4} in the first of {count} steps, {last:.4} in the last."),
        _ => format!("{name} {first:.4} in the first {tenth} of {count} steps, {last:.4} in the last {tenth}."),
    }
}

/// Returns the number of steps. The line of step 0 only contains the validation before training.
pub fn count(steps: &[Metrics]) -> usize {
    steps.iter().filter(|step| step.get("step").and_then(Value::as_u64) != Some(0)).count()
}

/// Returns the course of the main metric of a run that has made a step.
pub fn course(steps: &[Metrics]) -> Option<Course> {
    let (key, name) = if is_rl(steps) { ("critic/score/mean", "Mean reward") } else { ("loss", "Loss") };
    course_of(steps, key).map(|course| Course { name, ..course })
}

fn values<'a>(steps: &'a [Metrics], key: &'a str) -> impl Iterator<Item = f64> + 'a {
    steps.iter().filter_map(move |step| step.get(key)?.as_f64())
}

fn course_of(steps: &[Metrics], key: &str) -> Option<Course> {
    let values: Vec<f64> = values(steps, key).collect();
    let tenth = (values.len() / 10).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Some(Course { name: "", first: mean(values.get(..tenth)?), last: mean(&values[values.len() - tenth..]), tenth })
}

/// Returns the kind and the name of the rows whose mean score a metric is, such as `domain/geometry`.
pub fn reward_name(metric: &str) -> Option<&str> {
    metric.strip_prefix("reward/")?.strip_suffix("/mean")
}

/// Returns the reward types and the domains of the rows of a run, as [`reward_name`] does.
pub fn rewarded(all: &[Metrics]) -> BTreeSet<&str> {
    all.iter().flat_map(|step| step.keys().filter_map(|key| reward_name(key))).collect()
}

/// Says what gives the scores of a run's rollouts, as the end of a sentence.
pub fn scored_by(config: &RlConfig) -> String {
    let scorer = &config.reward.scorer;
    let rule = match (&scorer.command[..], scorer.format_weight) {
        ([], 0.0) => "1 for the right answer".to_owned(),
        ([], format) => format!("{} for the right answer, {format} for the format", rounded(1.0 - format)),
        (command, _) => format!("by {}", command.join(" ")),
    };
    let effect = if config.uses_rewards() { "" } else { " It has no effect: only the teacher's log-probs train." };
    format!(": {rule}.{effect}")
}

/// Returns the mean scores of the rollouts of each reward type and each domain, and the shares of the domains.
fn rewards(all: &[Metrics]) -> Facts {
    let fact = |name: &str| {
        let Course { first, last, tenth, .. } = course_of(all, &format!("reward/{name}/mean"))?;
        let count = metrics::sum(all, &format!("reward/{name}/count"));
        let steps = if tenth == 1 { "step".to_owned() } else { format!("{tenth} steps with it") };
        let mean = |of: &str| {
            let values: Vec<f64> = values(all, &format!("train/{name}/{of}")).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let shares = mean("drawn").zip(mean("trained"));
        let shares = shares.map(|(drawn, trained)| {
            format!("; {:.1} % of the prompts drawn, {:.1} % of those trained", 100.0 * drawn, 100.0 * trained)
        });
        let shares = shares.unwrap_or_default();
        let value = format!("score {first:.4} in the first {steps}, {last:.4} in the last; {count} rollouts{shares}");
        Some((format!("Reward {}", name.replacen('/', " ", 1)), value))
    };
    rewarded(all).into_iter().filter_map(fact).collect()
}

/// Returns settings and environment of an `omr sft` or `omr rl` run.
pub fn facts(dir: &Path, summary: &Map<String, Value>, steps: &[Metrics]) -> Facts {
    let (rl, sft) = (config_of::<RlConfig>(dir), config_of::<SftConfig>(dir));
    let mut out = Facts::new();
    let mut add = |label: &str, value: String| out.push((label.to_owned(), value));
    program(dir).into_iter().for_each(|program| add("Program", program));
    started(dir).into_iter().for_each(|(label, value)| add(&label, value));
    if let Some(time) = steps.last().and_then(|step| step.get(metrics::WALL_TIME)?.as_f64()) {
        add("Last step", self::date(Timestamp::from_second(time as i64).ok()));
    }
    let (model, data, total, dtype) = match (&rl, &sft) {
        (Some(c), _) => (c.model.as_deref(), &c.train_files[..], c.total_training_steps, Some(c.dtype)),
        (None, Some(c)) => (c.model.as_deref(), &c.datasets[..], c.max_steps, Some(c.dtype)),
        _ => (None, &[][..], None, None),
    };
    model.into_iter().for_each(|model| add("Model", self::model(model)));
    if !data.is_empty() {
        let names: Vec<String> = data.iter().map(|of| of.path.display().to_string()).collect();
        add("Data", names.join(", "));
    }
    dtype.into_iter().for_each(|dtype| add("Storage", dtype.name().to_owned()));
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    add("Steps", format!("{}{of}, {}", count(steps), time(metrics::sum(steps, "timing_s/step"))));
    let number = |name: &str| steps.last().and_then(|step| step.get(name)?.as_f64());
    if let Some(epochs) = number("epoch").or_else(|| number("training/epoch")) {
        add("Epochs", format!("{epochs:.2}"));
    }
    let tokens = metrics::sum(steps, "num_tokens") + metrics::sum(steps, "perf/total_num_tokens");
    if tokens > 0.0 {
        let seconds = metrics::sum(steps, "timing_s/step").max(f64::MIN_POSITIVE);
        let [tokens, speed] = [tokens, tokens / seconds].map(|count| separated(count.round() as usize, ","));
        add("Tokens", format!("{tokens} computed in training, {speed} per second"));
    }
    if let Some(bytes) = summary.get("peak_memory").and_then(|peak| peak.get("total")?.as_u64()) {
        add("Memory", omr_base::observe::bytes(bytes));
    }
    slow_ranks(steps).into_iter().for_each(|value| add("Slow rank", value));
    validation(steps).into_iter().chain(rewards(steps)).for_each(|(name, value)| add(&name, value));
    if let Some(c) = &rl {
        let (prompts, n, lr) = (c.train_batch_size, c.rollout.n, rounded(c.optimizer.learning_rate));
        add("RL", format!("{}, {prompts} prompts x {n} rollouts, lr {lr}", c.loss_mode.name()));
        add("Clip", format!("{} below, {} above", c.clip_ratio_low, c.clip_ratio_high));
        let [computed, shared] =
            ["perf/total_num_tokens", "perf/num_shared_tokens"].map(|name| metrics::sum(steps, name));
        if shared > 0.0 {
            let share = 100.0 * shared / (computed + shared);
            add("Shared tokens", format!("{share:.0} % of the trained tokens, because responses share their prompt"));
        }
    } else if let Some(c) = &sft {
        add("SFT", format!("lr {}, {}", rounded(c.optimizer.learning_rate), c.optimizer.lr_scheduler_type.name()));
    }
    out.extend(judges(dir).iter().map(|(_, judge)| ("Judge".to_owned(), judge.line())));
    out
}

/// Describes the ranks that were slower than the others for several steps.
fn slow_ranks(steps: &[Metrics]) -> Vec<String> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    let slow = steps.iter().filter_map(|step| step.get(SLOW)?.as_u64());
    slow.for_each(|rank| *counts.entry(rank).or_default() += 1);
    let all = count(steps);
    let line = |(rank, count)| format!("rank {rank}, slower than the others in {count} of {all} steps: see log.txt");
    counts.into_iter().map(line).collect()
}

/// Describes when, where and how the run in `dir` was started. The stages of a recipe are started with the recipe.
pub fn started(dir: &Path) -> Facts {
    let read = |dir: &Path| files::read_to_string(dir.join("starts.jsonl")).ok();
    let text = read(dir).or_else(|| read(dir.parent()?)).unwrap_or_default();
    let starts: Vec<Map<String, Value>> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let Some((first, last)) = starts.first().zip(starts.last()) else { return Facts::new() };
    let of = |start: &Map<String, Value>, key: &str| Some(start.get(key)?.as_str()?.to_owned());
    let time = |start: &Map<String, Value>| date(of(start, "time").and_then(|time| time.parse().ok()));
    let begun = match starts.len() {
        1 => time(first),
        2 => format!("{}, continued once, last at {}", time(first), time(last)),
        n => format!("{}, continued {} times, last at {}", time(first), n - 1, time(last)),
    };
    let mut facts = vec![("Started".to_owned(), begun)];
    for (label, key) in [("Host", "host"), ("Command", "command"), ("Directory", "directory"), ("Commit", "commit")] {
        facts.extend(of(last, key).map(|value| (label.to_owned(), value)));
    }
    facts
}

/// Formats a time for readers.
fn date(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// Returns the first line of a run's config: the version that wrote it, and the device.
fn program(dir: &Path) -> Option<String> {
    let text = files::read_config(dir.join("config.yaml")).ok()?;
    Some(text.lines().next()?.strip_prefix("# ")?.to_owned())
}

/// Describes the model in `dir` and its size.
fn model(dir: &Path) -> String {
    let size = parameters(dir).map_or(String::new(), |n| match n {
        n if n < 10_000_000 => format!(", {:.2} million parameters", n as f64 / 1e6),
        n => format!(", {:.0} million parameters", n as f64 / 1e6),
    });
    format!("{}{size}", dir.display())
}

/// Returns the number of parameters of the model in `dir`, from the headers of its files.
fn parameters(dir: &Path) -> Option<u64> {
    let mut count = 0;
    for path in files::entries(dir).ok()? {
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        for (_, tensor) in header(&path)?.iter().filter(|(name, _)| *name != "__metadata__") {
            let shape = tensor.get("shape")?.as_array()?;
            count += shape.iter().filter_map(Value::as_u64).product::<u64>();
        }
    }
    (count > 0).then_some(count)
}

fn header(path: &Path) -> Option<Map<String, Value>> {
    use std::io::{BufReader, Read};
    let mut file = BufReader::new(files::open(path).ok()?);
    file.read_exact(&mut [0; 8]).ok()?;
    serde_json::Deserializer::from_reader(file).into_iter().next()?.ok()
}

/// Returns the names of the validation metrics, sorted.
pub fn measured_beside(steps: &[Metrics]) -> BTreeSet<&String> {
    let is_one = |name: &&String| name.starts_with("val-core/") && !name.ends_with("/std");
    steps.iter().flat_map(|step| step.keys()).filter(is_one).collect()
}

/// Describes the best and the last value of each validation metric.
fn validation(steps: &[Metrics]) -> Facts {
    let of = |name: &String| {
        let all = steps.iter().filter_map(|step| Some((step.get("step")?.as_u64()?, step.get(name)?.as_f64()?)));
        let all: Vec<(u64, f64)> = all.collect();
        let best = all.iter().copied().reduce(|best, at| if at.1 > best.1 { at } else { best })?;
        let last = all.last()?;
        let label = format!("Validation, {}", name.trim_start_matches("val-core/"));
        Some((label, format!("{:.4} at step {}; best {:.4} at step {}", last.1, last.0, best.1, best.0)))
    };
    measured_beside(steps).into_iter().filter_map(of).collect()
}

/// Returns settings and environment of a recipe.
pub fn facts_of_recipe(dir: &Path, summary: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    out.extend(program(dir).map(|program| ("Program".to_owned(), program)));
    out.extend(started(dir));
    if let Some(device) = summary.get("device").and_then(Value::as_str) {
        out.push(("Device".to_owned(), device.to_owned()));
    }
    if let Some(seconds) = summary.get("seconds").and_then(Value::as_object) {
        let parts = seconds.iter().filter(|(name, _)| *name != "total");
        let parts: Vec<_> = parts.filter_map(|(name, s)| Some(format!("{name} {}", time(s.as_f64()?)))).collect();
        out.push(("Time".to_owned(), parts.join(", ")));
    }
    let judges = judges(dir);
    match judges.is_empty() {
        true => out.push(("Judge".to_owned(), "off: only the rules decide which answers are correct".to_owned())),
        false => out.extend(judges.iter().map(|(stage, judge)| (format!("Judge, {stage}"), judge.line()))),
    }
    let Some(config) = config_of::<RecipeConfig>(dir) else { return out };
    let (sft, rl) = (&config.sft, &config.rl);
    let mut add = |label: &str, value: String| out.push((label.to_owned(), value));
    let base = config.base.model.clone().unwrap_or_else(|| dir.join("base"));
    add("Model", model(&base));
    add("Storage", config.dtype.name().to_owned());
    let steps = |steps: Option<u64>| steps.map_or("all".to_owned(), |n| n.to_string());
    let [sft_rate, rl_rate] = [&sft.optimizer, &rl.optimizer].map(|optimizer| rounded(optimizer.learning_rate));
    let schedule = sft.optimizer.lr_scheduler_type.name();
    add("SFT", format!("{} steps, lr {sft_rate}, {schedule}", steps(sft.max_steps)));
    let (loss, steps) = (rl.loss_mode.name(), steps(rl.total_training_steps));
    let (prompts, n) = (rl.train_batch_size, rl.rollout.n);
    add("RL", format!("{loss}, {steps} steps of {prompts} prompts x {n} rollouts, lr {rl_rate}"));
    add("Clip", format!("{} below, {} above", rl.clip_ratio_low, rl.clip_ratio_high));
    match rl.reward.scorer.command.is_empty() {
        true => add("Reward", format!("{} scorer", rl.reward.mode.name())),
        false => add("Reward", format!("by {}", rl.reward.scorer.command.join(" "))),
    }
    out
}

/// Returns the judges that a run has used with their counts, per stage, from the summaries.
pub fn judges(dir: &Path) -> Vec<(String, judge::Summary)> {
    let mut stages: Vec<(String, PathBuf)> = vec![("run".to_owned(), dir.to_owned())];
    stages.extend(["data", "rl"].map(|stage| (stage.to_owned(), dir.join(stage))));
    for (stage, _) in STAGES {
        let eval = dir.join("eval").join(stage);
        stages.push((format!("tasks of {stage}"), eval.join("tasks")));
        stages.push((format!("evaluation of {stage}"), eval));
    }
    let judge_summary = |dir: &Path| -> Option<judge::Summary> {
        let summary: Value = files::json::read(&dir.join("summary.json")).ok()?;
        serde_json::from_value(summary.get("judge")?.clone()).ok()
    };
    stages.into_iter().filter_map(|(stage, dir)| Some((stage, judge_summary(&dir)?))).collect()
}

/// Rounds a number to six digits. A product of rates has rounding errors in the later digits.
pub fn rounded(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}

/// Formats a duration.
pub fn time(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}
