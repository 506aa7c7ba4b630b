//! Tests what happens if an input of a run changes between a kill and the next start. Either the run stops with an
//! error that names the input, or its result is bitwise identical. No change may alter a result silently.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use Change::*;
use omr_base::config::{DatasetConfig, InputKind, LrSchedulerType, RlConfig, SftConfig};
use omr_base::error::{Error, Result};
use omr_base::identity::Manifest;
use omr_base::observe::Observer;
use omr_data::image::{JPEG_DECODER, Limits, decode, jpeg};
use omr_data::reward::Scorer;
use omr_data::rows::{ImageSource, read};
use omr_train::eval::validation;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use serde_json::{Value, json};

use crate::training::damaged::forget_versions;
use crate::training::tiny::{Notes, Outcome, base_model, device, rl_config, rows, sft_config, training};

/// A task whose rows are stored in a file.
const TASK: &str = "logicvista_thinking";

type GoOn = fn(&Path, &dyn Observer) -> Result<()>;
/// The text that an error must contain (empty if the result must be bitwise identical), and the changed files of the
/// run with their changes.
type Case<'a> = (&'a str, &'a [(&'a str, Change)]);

/// A run in the folder `work` that was killed. `kept` is a copy of this folder, and each case starts from the copy.
pub struct Killed {
    work: PathBuf,
    kept: PathBuf,
    resume: GoOn,
    of: &'static str,
}

impl Killed {
    pub fn new(work: &Path, name: &str, resume: GoOn, of: &'static str) -> Killed {
        let kept = work.with_extension(name);
        fs::rename(work, &kept).unwrap();
        Killed { work: work.to_owned(), kept, resume, of }
    }

    /// Continues the run after `change`. Returns its outcome or error, and its notes.
    fn after(&self, change: impl FnOnce(&Path)) -> (Result<Outcome>, String) {
        let _ = fs::remove_dir_all(&self.work);
        copy(&self.kept, &self.work);
        change(&self.work);
        let notes = Notes::default();
        let done = (self.resume)(&self.work, &notes);
        (done.map(|()| Outcome::of(&self.work.join(self.of))), notes.0.into_inner().unwrap().join("\n"))
    }

    /// Panics unless every case gives an error with the expected text, or, if that text is empty, ends like the
    /// unchanged run. Returns the number of cases.
    pub fn cases(&self, cases: &[Case]) -> usize {
        let want = self.after(|_| {}).0.unwrap();
        for (named, changes) in cases {
            let done = self.after(|dir| changes.iter().for_each(|(file, change)| change.make(&dir.join(file)))).0;
            let text = done.as_ref().err().map(Error::to_string).unwrap_or_default();
            assert_eq!(done.is_err(), !named.is_empty(), "{named}: {text}");
            match done {
                Err(error) => assert!(error.exit_code() == 2 && text.contains(named), "{named}: {text}"),
                Ok(outcome) => want.assert_same(&outcome, "the same bits"),
            }
        }
        let refused = cases.iter().filter(|case| !case.0.is_empty()).count();
        let (name, same) = (self.kept.extension().unwrap().display(), cases.len() - refused);
        println!("{name}: {} inputs changed, {refused} refused by name, {same} the same bits, 0 silent", cases.len());
        cases.len()
    }
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Copies a folder with the modification times of its files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
            let modified = path.metadata().unwrap().modified().unwrap();
            File::options().append(true).open(&to).unwrap().set_modified(modified).unwrap();
        }
    }
}

/// A change of a file.
pub enum Change {
    Removed,
    /// One flipped bit in the middle of the file.
    Flipped,
    /// A new modification time.
    Touched,
    Lines(fn(&mut Vec<String>)),
    By(fn(&Path)),
}

impl Change {
    pub fn make(&self, path: &Path) {
        match self {
            Removed => remove(path),
            Touched => File::options().append(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
            By(change) => change(path),
            Flipped => {
                let mut bytes = fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes).unwrap();
            }
            Lines(change) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                let mut lines = text.lines().map(str::to_owned).collect();
                change(&mut lines);
                fs::write(path, lines.join("\n") + "\n").unwrap();
            }
        }
    }
}

pub const LONGER: Change = Lines(|lines| lines.push(" ".to_owned()));
const SWAPPED: Change = Lines(|lines| lines.swap(0, 1));
const REWORDED: Change = Lines(|lines| {
    lines[1] = lines[1].replace("\"num_rows\":4", "\"num_rows\":5").replace("It looks", "it looks");
});
const OTHER: Change = By(|images| {
    for i in 0..11 {
        fs::copy(images.join("4.png"), images.join(format!("{}.png", (i + 5) % 12))).unwrap();
    }
});

/// Changes the name of the writing program in a parquet file. The rows of the file stay the same.
const RENAMED: Change = By(|path| {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(8).rposition(|part| part == b"parquet-").unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
});

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// Writes rows with images in files, `rows.jsonl`, and rows for validation, `val.jsonl`.
fn images(dir: &Path, answered: bool) -> (Vec<DatasetConfig>, Vec<DatasetConfig>) {
    let (all, folder) = (dir.join("rows.jsonl"), dir.join("images"));
    if !dir.join("val.jsonl").exists() {
        fs::create_dir_all(&folder).unwrap();
        let mut text = String::new();
        for (i, row) in rows().iter().enumerate() {
            let ImageSource::Bytes { bytes, .. } = &row.images[0] else { panic!("an image") };
            fs::write(folder.join(format!("{i}.png")), bytes).unwrap();
            let question = row.question();
            let line = match answered {
                true => json!({"id": row.id, "messages": [
                    {"role": "user", "content": [
                        {"type": "image_url", "image_url": {"url": format!("{i}.png")}}, {"type": "text", "text": question}]},
                    {"role": "assistant", "content": omr_data::rows::text_of(row.messages.last().unwrap())}]}),
                false => json!({"id": row.id, "problem": format!("<image>{question}"), "answer": row.ground_truth,
                    "images": [format!("{i}.png")]}),
            };
            text += &format!("{line}\n");
        }
        fs::write(&all, &text).unwrap();
        fs::write(dir.join("val.jsonl"), &text).unwrap();
    }
    let entry = |name| DatasetConfig { data_folder: Some(folder.clone()), ..read::entry(dir.join(name)) };
    (vec![entry("rows.jsonl")], vec![entry("val.jsonl")])
}

fn sft(dir: &Path) -> SftConfig {
    let (datasets, val_files) = images(dir, true);
    let generation = dir.join("base/generation_config.json");
    let mut config = SftConfig { datasets, max_steps: Some(4), save_steps: Some(2), ..sft_config(dir) };
    let validation = &mut config.validation;
    (validation.val_files, validation.val_tasks, validation.val_max_samples) =
        (val_files, vec![TASK.to_owned()], Some(1));
    (validation.val_data_dir, validation.val_before_train) = (Some(dir.join("tasks")), false);
    let task = dir.join("tasks").join(TASK);
    if !task.exists() {
        fs::create_dir_all(&task).unwrap();
        fs::copy(omr_base_tests::golden::dir().join("eval").join(TASK).join("data.parquet"), task.join("data.parquet"))
            .unwrap();
    }
    // With a constant schedule, the learning rate of a step does not depend on the total number of steps.
    config.optimizer.lr_scheduler_type = LrSchedulerType::Constant;
    if !generation.exists() && !dir.join("out").exists() {
        fs::write(generation, "{}\n").unwrap();
    }
    config
}

fn run_sft(dir: &Path, config: SftConfig, observer: &dyn Observer) -> Result<()> {
    let mut job = SftJob::new(&dir.join("out"), config)?;
    let mut of_tasks = job.config.clone();
    of_tasks.validation.val_files.clear();
    job.common.validation = validation::sft(&of_tasks, &job.common, None)?;
    job.run(&mut device(1), observer)
}

fn sft_goes_on(dir: &Path, observer: &dyn Observer) -> Result<()> {
    run_sft(dir, SftConfig { max_steps: Some(6), ..sft(dir) }, observer)
}

fn killed_sft(folder: &Path) -> Killed {
    let work = folder.join("work");
    fs::create_dir(&work).unwrap();
    run_sft(&work, sft(&work), &Notes::default()).unwrap();
    Killed::new(&work, "sft", sft_goes_on, "out")
}

#[test]
fn an_input_of_sft_that_changed_is_refused_by_name() {
    let folder = folder();
    let (log, index, record) = ("out/metrics.jsonl", "out/index", "out/inputs.json");
    let (template, last) = ("base/chat_template.jinja", "out/checkpoints/global_step_4");
    let (manifest, weights) = (format!("{last}/MANIFEST"), format!("{last}/model.safetensors"));
    let count = killed_sft(folder.path()).cases(&[
        ("base: chat_template.jinja", &[(template, LONGER)]),
        ("base: tokenizer.json", &[("base/tokenizer.json", LONGER)]),
        ("base: tokenizer_config.json", &[("base/tokenizer_config.json", LONGER)]),
        ("base: config.json", &[("base/config.json", LONGER)]),
        ("base: preprocessor_config.json", &[("base/preprocessor_config.json", LONGER)]),
        ("base: generation_config.json", &[("base/generation_config.json", LONGER)]),
        ("generation_config.json (missing)", &[("base/generation_config.json", Removed)]),
        ("extra.json (new)", &[("base/extra.json", LONGER)]),
        ("base: model.safetensors", &[("base/model.safetensors", Flipped)]),
        ("chat_template.jinja", &[(template, LONGER), (record, Removed)]),
        ("rows.jsonl", &[("rows.jsonl", REWORDED)]),
        ("rows rows.jsonl", &[("rows.jsonl", REWORDED), (index, Removed)]),
        ("rows.jsonl", &[("rows.jsonl", Lines(|l| drop(l.remove(1))))]),
        ("rows rows.jsonl", &[("rows.jsonl", SWAPPED), (index, Removed)]),
        ("rows.jsonl", &[("rows.jsonl", Removed)]),
        (".png", &[("images", OTHER)]),
        ("pictures", &[("images", OTHER), (index, Removed)]),
        ("work/images", &[("images", Removed)]),
        ("val val.jsonl", &[("val.jsonl", Lines(|l| drop(l.remove(1))))]),
        ("val logicvista_thinking 0 data.parquet", &[("tasks/logicvista_thinking/data.parquet", RENAMED)]),
        ("metrics.jsonl: no line of step 4", &[(log, Lines(Vec::clear))]),
        ("metrics.jsonl: step 3 where step 2", &[(log, Lines(|l| drop(l.remove(1))))]),
        ("metrics.jsonl: step 2 where step 3", &[(log, Lines(|l| l.insert(2, l[1].clone())))]),
        ("lines of steps 1 to 4", &[(log, REWORDED)]),
        ("metrics.jsonl: no line of step 4", &[(log, Lines(|l| drop(l.pop())))]),
        ("", &[(log, Lines(|l| l.push("{\"step\":5,\"loss\":1.0}".to_owned())))]),
        ("", &[(record, Removed)]),
        ("", &[(index, Removed)]),
        ("", &[("rows.jsonl", Touched)]),
        ("", &[(&manifest, Removed)]),
        ("", &[(&weights, Flipped)]),
    ]);
    assert!(count >= 31);
}

/// Changes the recorded JPEG decoder to that of a version which recorded none, or to another one.
const NO_DECODER: Change = By(|record| decoder(record, None));
const OTHER_DECODER: Change = By(|record| decoder(record, Some("mozjpeg-sys 2.0.0")));

fn decoder(record: &Path, decoder: Option<&str>) {
    let mut inputs: serde_json::Map<String, Value> = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(inputs.remove("decoder"), Some(JPEG_DECODER.into()));
    inputs.extend(decoder.map(|decoder| ("decoder".to_owned(), decoder.into())));
    fs::write(record, json!(inputs).to_string()).unwrap();
}

#[test]
fn a_run_with_jpegs_of_another_decoder_is_refused_by_name() {
    let folder = folder();
    let (work, record) = (folder.path().join("work"), "out/inputs.json");
    fs::create_dir(&work).unwrap();
    let config = sft(&work);
    // A format is recognised by the bytes, so the names may stay.
    for i in 0..12 {
        let path = work.join(format!("images/{i}.png"));
        let image = decode(&fs::read(&path).unwrap(), &Limits::default(), "").unwrap();
        fs::write(path, jpeg(&image, 90).unwrap()).unwrap();
    }
    run_sft(&work, config, &Notes::default()).unwrap();
    let killed = Killed::new(&work, "jpegs", sft_goes_on, "out");
    killed.cases(&[
        (&format!("decoder of JPEG files (zune-jpeg then, {JPEG_DECODER} now)"), &[(record, NO_DECODER)]),
        (&format!("decoder of JPEG files (mozjpeg-sys 2.0.0 then, {JPEG_DECODER} now)"), &[(record, OTHER_DECODER)]),
        ("", &[("out/index", Removed)]),
    ]);
    killed.after(|dir| NO_DECODER.make(&dir.join(record))).0.err().unwrap();
    let training = training(|t| t.accept_changed = vec![InputKind::Decoder]);
    let accepted = SftConfig { max_steps: Some(6), training, ..sft(&work) };
    let notes = Notes::default();
    run_sft(&work, accepted, &notes).unwrap();
    assert!(notes.0.into_inner().unwrap().join("\n").contains("accept_changed: decoder of JPEG files"));
}

#[test]
fn an_accepted_change_goes_on_and_is_not_refused_again() {
    let folder = folder();
    let killed = killed_sft(folder.path());
    let (refused, _) = killed.after(|dir| LONGER.make(&dir.join("base/generation_config.json")));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("accept_changed=[model]") && text.contains("at step 4"), "{text}");
    let work = &killed.work;
    REWORDED.make(&work.join("out/metrics.jsonl"));
    let notes = Notes::default();
    let training = training(|t| t.accept_changed = vec![InputKind::Model, InputKind::Log]);
    let mut config = SftConfig { max_steps: Some(5), training, ..sft(work) };
    run_sft(work, config.clone(), &notes).unwrap();
    let printed = notes.0.into_inner().unwrap().join("\n");
    for part in
        ["accept_changed: model ", "generation_config.json is not what it was at step 4", "metrics.jsonl: lines"]
    {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // The run also continues from the checkpoint before the last one.
    remove(&work.join("out/checkpoints/global_step_5"));
    config.training.accept_changed.clear();
    run_sft(work, config, &Notes::default()).unwrap();
}

#[test]
fn a_folder_of_an_older_version_goes_on_with_one_warning_and_of_a_newer_one_with_a_line() {
    let folder = folder();
    let killed = killed_sft(folder.path());
    let checkpoints = |d: &Path| [2, 4].map(|step| d.join(format!("out/checkpoints/global_step_{step}")));
    let (done, printed) = killed.after(|d| {
        remove(&d.join("out/inputs.json"));
        for checkpoint in checkpoints(d) {
            forget_versions(&checkpoint);
            Manifest::write(&checkpoint).unwrap();
        }
    });
    done.unwrap();
    assert_eq!(printed.matches("did not record its inputs").count(), 1, "{printed}");
    let (done, printed) = killed.after(|d| {
        for checkpoint in checkpoints(d) {
            let path = checkpoint.join("trainer/state.json");
            let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            state["versions"]["omr"] = "9.9.9".into();
            fs::write(path, state.to_string()).unwrap();
            Manifest::write(&checkpoint).unwrap();
        }
    });
    done.unwrap();
    assert!(printed.contains("written by omr 9.9.9"), "{printed}");
}

fn rl(dir: &Path) -> RlConfig {
    let (train_files, _) = images(dir, false);
    let model = dir.join("stage/model");
    if !model.exists() {
        // A model that a finished stage has written: its folder has a record, and the model has a manifest.
        base_model(&model);
        fs::write(model.join("generation_config.json"), "{}\n").unwrap();
        fs::write(dir.join("stage/inputs.json"), "{}\n").unwrap();
        Manifest::write(&model).unwrap();
    }
    fs::create_dir_all(dir.join("tuned")).unwrap();
    let config = RlConfig { model: Some(model), train_files, use_kl_loss: true, save_freq: Some(1), ..rl_config(dir) };
    RlConfig { total_training_steps: Some(2), ..config }
}

fn run_rl(dir: &Path, config: RlConfig, observer: &dyn Observer) -> Result<()> {
    let scorer = Arc::new(Scorer::rules(config.reward.mode));
    RlJob::new(&dir.join("out"), config, scorer).and_then(|job| job.run(&mut device(1), observer))
}

fn rl_goes_on(dir: &Path, observer: &dyn Observer) -> Result<()> {
    run_rl(dir, RlConfig { total_training_steps: Some(3), ..rl(dir) }, observer)
}

pub const HELDOUT: Change = By(|path| assert!(fs::copy(path.with_file_name("heldout.parquet"), path).is_ok()));

/// Observer that requests a stop when a file has the given number of lines.
pub struct StopAt(pub PathBuf, pub usize);

impl Observer for StopAt {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, _: u64, _: &[(&str, f64)]) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stop_requested(&self) -> bool {
        fs::read_to_string(&self.0).unwrap_or_default().lines().count() >= self.1
    }
}

#[test]
fn an_input_of_rl_that_changed_is_refused_by_name() {
    let folder = folder();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    rl(&work);
    let fresh = Killed::new(&work, "rl reading a finished stage", rl_goes_on, "out");
    let of = |name: &str| format!("stage/model/{name}");
    let [weights, template, tokenizer, generation, manifest, special] = [
        "model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "generation_config.json",
        "MANIFEST",
        "extra.json",
    ]
    .map(of);
    let mut count = fresh.cases(&[
        ("model/model.safetensors", &[(&weights, Flipped)]),
        ("generation_config.json (missing)", &[(&generation, Removed)]),
        ("extra.json (new)", &[(&special, LONGER)]),
        ("MANIFEST (missing)", &[(&manifest, Removed)]),
        (
            "rows.jsonl",
            &[
                ("", By(|folder| Manifest::write_of(folder, vec!["rows.jsonl".to_owned()]).unwrap())),
                ("rows.jsonl", SWAPPED),
            ],
        ),
        ("", &[("MANIFEST", LONGER)]),
    ]);
    remove(&work);
    copy(&fresh.kept, &work);
    let stopped = run_rl(
        &work,
        RlConfig { training: training(|t| t.save_on_stop = Some(false)), ..rl(&work) },
        &StopAt(work.join("out/journal/1.jsonl"), 4),
    );
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    count += Killed::new(&work, "rl before a checkpoint", rl_goes_on, "out").cases(&[
        ("chat_template.jinja", &[(&template, LONGER)]),
        ("rows rows.jsonl", &[("rows.jsonl", SWAPPED), ("out/index", Removed)]),
        ("", &[("out/index", Removed)]),
    ]);
    remove(&work);
    copy(&fresh.kept, &work);
    run_rl(&work, rl(&work), &Notes::default()).unwrap();
    count += Killed::new(&work, "rl", rl_goes_on, "out").cases(&[
        ("model: chat_template.jinja", &[(&template, LONGER)]),
        ("model: tokenizer.json", &[(&tokenizer, LONGER)]),
        ("model: generation_config.json", &[(&generation, LONGER)]),
        ("reference", &[(&weights, Flipped)]),
        ("rows rows.jsonl", &[("rows.jsonl", SWAPPED), ("out/index", Removed)]),
        (".png", &[("images", OTHER)]),
        ("metrics.jsonl: step 1 where", &[("out/metrics.jsonl", SWAPPED)]),
        ("", &[(&manifest, Removed)]),
    ]);
    assert!(count >= 17);
}
