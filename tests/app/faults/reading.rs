//! Tests reading of rows and images: a system error is not blamed on a row, a changed image is refused, and no
//! content of a row is ignored silently.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use omr_base::answers::{Key, Store};
use omr_base::client::Completion;
use omr_base::config::{DatasetConfig, Mode, RlConfig, SftConfig};
use omr_base::error::is_of_file;
use omr_base::observe::Silent;
use omr_data::reward::Scorer;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Encoder, Form, ImageSource, Row, read, sft_sample, text_of, write};
use omr_model_tests::models::encoder;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use omr_train_tests::training::tiny::{base_model, device, run_sft, sft_config, training};
use serde_json::{Value, json};

use crate::cli::training::{failure, run};

fn jsonl(path: &Path, rows: impl IntoIterator<Item = Value>) {
    fs::write(path, rows.into_iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

fn with_images(image: &str) -> Value {
    json!({"conversations": [{"from": "human", "value": "what is it"}, {"from": "gpt", "value": "one"}], "image": image})
}

/// Writes an image of noise, which is many times larger than the sampled parts at its ends.
fn noise(path: &Path) {
    let byte = |x: u32, y: u32| {
        let mixed = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
        (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519).to_be_bytes()[1]
    };
    let pixels = image::RgbImage::from_fn(84, 84, |x, y| image::Rgb([0, 1, 2].map(|c| byte(x, 84 * c + y))));
    pixels.save_with_format(path, image::ImageFormat::Png).unwrap();
}

#[test]
fn an_error_of_the_system_ends_the_run_and_is_never_a_bad_row() {
    let of_file = |number| is_of_file(&std::io::Error::from_raw_os_error(number));
    // ENOENT, ENOTDIR, EISDIR, ENAMETOOLONG and ELOOP are errors of the row's file. EIO, ENOMEM, EACCES, ENFILE, EMFILE
    // and ESTALE are errors of the system.
    assert!([2, 20, 21, 36, 40].into_iter().all(of_file) && ![5, 12, 13, 23, 24, 116].into_iter().any(of_file));

    let dir = tempfile::tempdir().unwrap();
    let (rows, images, out) = (dir.path().join("rows.jsonl"), dir.path().join("images"), dir.path().join("run"));
    jsonl(&rows, [with_images("mem")]);
    fs::create_dir(dir.path().join("whole")).unwrap();
    noise(&dir.path().join("whole/mem"));
    // A regular file that the system cannot read: an unmapped part of the process memory.
    symlink("/proc/self", &images).unwrap();
    let entry = DatasetConfig { data_folder: Some(images.clone()), ..read::entry(&rows) };
    let training = training(|t| t.max_bad_rows = 1.0);
    let config = SftConfig { datasets: vec![entry], max_steps: Some(1), training, ..sft_config(dir.path()) };
    let error = SftJob::new(&out, config.clone()).err().unwrap();
    let text = error.to_string();
    assert!(error.exit_code() == 1 && text.contains("rows.jsonl row 1") && text.contains("/mem"), "{text}");
    assert!(!out.exists(), "nothing of it is kept");
    let [yaml, stage] = ["format.yaml", "stage"].map(|name| dir.path().join(name).display().to_string());
    let entry = format!("{{path: {}, data_folder: {}}}", rows.display(), images.display());
    fs::write(&yaml, format!("datasets: [{entry}]\nmax_bad_rows: 1\n")).unwrap();
    for command in ["format", "inspect"] {
        failure(&["data", command, &yaml, "--out", &stage], 1, &["rows.jsonl row 1", "mem: "]);
    }
    // Repeats the run with readable images.
    fs::remove_file(&images).unwrap();
    symlink(dir.path().join("whole"), &images).unwrap();
    let job = SftJob::new(&out, config).unwrap();
    assert!(job.common.data.rejected.rejected.is_empty() && job.samples.get(0).unwrap().is_ok());
}

#[test]
fn a_image_that_changed_with_its_size_and_time_kept_is_refused_after_a_kill_and_a_touched_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, image) = (dir.path().join("rows.jsonl"), dir.path().join("a.png"));
    jsonl(&rows, [with_images("a.png"), with_images("a.png")]);
    noise(&image);
    let config = SftConfig { datasets: vec![read::entry(&rows)], max_steps: Some(1), ..sft_config(dir.path()) };
    let out = dir.path().join("run");
    run_sft(&out, &config, 1, &[]);
    let whole = fs::read(&image).unwrap();
    let modified = fs::metadata(&image).unwrap().modified().unwrap();
    let change = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&image, bytes).unwrap();
        fs::File::options().write(true).open(&image).unwrap().set_modified(modified).unwrap();
    };
    let more = SftConfig { max_steps: Some(2), ..config };
    let resumed = || SftJob::new(&out, more.clone()).unwrap().run(&mut device(1), &Silent);
    for at in [whole.len() - 2000, whole.len() / 2] {
        change(at);
        let error = resumed().unwrap_err();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("image a.png: found different content"), "at {at}: {text}");
    }
    fs::write(&image, &whole).unwrap();
    resumed().unwrap();
}

/// Embedded images have no file of their own, so the size and the time of the row file say nothing about them.
#[test]
fn an_embedded_image_that_changed_is_refused_after_a_kill_also_in_validation_rows() {
    let dir = tempfile::tempdir().unwrap();
    noise(&dir.path().join("a.png"));
    let bytes = fs::read(dir.path().join("a.png")).unwrap();
    let row = |i: usize| Row {
        images: vec![ImageSource::Bytes { bytes: bytes.clone().into(), path: Some(format!("{i}.png")) }],
        id: i.to_string(),
        ..read::read(&read::entry(dir.path().join("one.jsonl"))).unwrap().remove(0)
    };
    jsonl(&dir.path().join("one.jsonl"), [with_images("a.png")]);
    let [train, val] = ["train.parquet", "val.parquet"].map(|name| dir.path().join(name));
    [&train, &val].into_iter().for_each(|path| write::write(path, &[row(0), row(1)], Form::Sft).unwrap());
    let mut config = SftConfig { datasets: vec![read::entry(&train)], max_steps: Some(1), ..sft_config(dir.path()) };
    config.validation.val_files = vec![read::entry(&val)];
    config.eval_steps = Some(1);
    let out = dir.path().join("run");
    run_sft(&out, &config, 1, &[]);
    let more = SftConfig { max_steps: Some(2), ..config };
    let resumed = || SftJob::new(&out, more.clone()).and_then(|job| job.run(&mut device(1), &Silent).map(drop));
    for (path, named) in [(&train, ".png: found different content"), (&val, "val.parquet")] {
        let (whole, modified) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
        let put = |content: &[u8]| {
            fs::write(path, content).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        };
        let mut changed = whole.clone();
        let inner = &bytes[bytes.len() / 2..][..64];
        let at = whole.windows(64).position(|part| part == inner).expect("noise is not compressed");
        changed[at] ^= 1;
        put(&changed);
        let error = resumed().unwrap_err();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains(named), "{text}");
        put(&whole);
    }
    resumed().unwrap();
}

#[test]
fn an_answer_that_changed_in_its_file_is_refused_by_name_and_older_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let [path, part] = ["answers.sqlite", "part.sqlite"].map(|name| dir.path().join(name));
    let answer = Completion {
        text: "<answer>5</answer>".to_owned(),
        finish_reason: "stop".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 2,
    };
    let key = Key::new("model", b"question", "greedy");
    Store::open(&part).unwrap().put(&key, "sums row 7 rollout 0", &answer).unwrap();
    let change = |path: &Path, sql: &str| rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    // A file with the old layout without hashes receives hashes, and its answers are merged.
    change(&part, "ALTER TABLE answers DROP COLUMN blake3; PRAGMA user_version = 1");
    Store::open(&path).unwrap().merge(&part).unwrap();
    assert_eq!(Store::open(&path).unwrap().get(&key).unwrap(), Some(answer));
    change(&path, "UPDATE answers SET text = replace(text, '5', '6')");
    let error = Store::open(&path).unwrap().get(&key).unwrap_err();
    let text = error.to_string();
    assert!(error.exit_code() == 2 && text.contains("answers.sqlite: the answer to sums row 7 rollout 0"), "{text}");
    assert!(text.contains("delete the file"), "{text}");
}

#[test]
fn images_that_a_task_file_misnames_are_an_error_and_unread_ones_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    jsonl(&dir.path().join("rows.jsonl"), [json!({"question": "q", "image": "a.png", "hue": 1, "answer": "5"})]);
    jsonl(&dir.path().join("said.jsonl"), [json!({"task": "own", "index": 0, "responses": ["<answer>5</answer>"]})]);
    noise(&dir.path().join("a.png"));
    let (task, printed) = (at("own.yaml"), at("said.jsonl"));
    let eval = |images: &str, out: &str| {
        fs::write(&task, format!("data: rows.jsonl\n{images}")).unwrap();
        run(&["eval", "--task-file", &task, "--responses", &printed, "--out", &at(out)])
    };
    let (code, _, text) = eval("images: [picture]", "misnamed");
    assert!(code == 2 && text.contains("own.yaml: images: found `picture`") && text.contains("hue"), "{text}");
    let (code, _, text) = eval("", "unread");
    assert!(code == 2 && text.contains("own.yaml: images: found nothing, and rows with the column `image`"), "{text}");
    fs::write(&task, "data: {path: rows.jsonl, columns: {images: ''}}\n").unwrap();
    let (code, _, text) = run(&["eval", "--task-file", &task, "--responses", &printed, "--out", &at("blind")]);
    assert!(code == 0 && text.contains("100.0 %") && text.contains("; images read: 0"), "{text}");
    let (code, _, text) = eval("images: [image]", "read");
    assert!(code == 0 && text.contains("; images read: 1") && text.contains("columns not used: hue"), "{text}");
    assert!(!text.contains("images are not read"), "{text}");
}

#[test]
fn an_imagefolders_images_are_read_and_a_job_says_what_it_read_and_what_not() {
    let dir = tempfile::tempdir().unwrap();
    noise(&dir.path().join("a.png"));
    let messages = [("user", "<image>what is it"), ("assistant", "one")].map(|(r, c)| json!({"role": r, "content": c}));
    let row = json!({"file_name": "a.png", "messages": messages, "split": "train"});
    let metadata = dir.path().join("metadata.jsonl");
    jsonl(&metadata, [row.clone(), row.clone()]);
    let config = SftConfig { datasets: vec![read::entry(&metadata)], ..sft_config(dir.path()) };
    let job = SftJob::new(&dir.path().join("run"), config.clone()).unwrap();
    let targets = job.common.index.shape(0).targets;
    let line = format!(
        "read 2 rows: 2 images, 4 turns, {} target tokens; form: messages; columns used: file_name, messages; columns not used: split",
        2 * targets
    );
    job.common.data.keep(&omr_base::observe::Silent).unwrap();
    let warm = SftJob::new(&dir.path().join("run"), config).unwrap();
    assert!(
        warm.common.data.warm
            && warm.common.data.notes() == job.common.data.notes()
            && job.common.data.notes()[0] == line,
        "{line}"
    );
    // Four rows per update, but only two rows exist.
    // With a different file name, the column does not name an image.
    assert!(job.common.data.notes()[1].contains("train_batch_size is 4, but the number of samples is 2"));
    let rows = dir.path().join("rows.jsonl");
    jsonl(&rows, [json!({"question": "q", "answer": "5", "file_name": "scan-7.pdf"})]);
    assert!(read::read(&read::entry(&rows)).unwrap()[0].images.is_empty());
    let [rows, page] = [rows.display().to_string(), dir.path().join("page").display().to_string()];
    let (code, text, _) = run(&["data", "inspect", &rows, "--out", &page]);
    assert!(
        code == 0 && text.contains("read 1 rows: 0 images, 2 turns") && text.contains("columns not used: file_name"),
        "{text}"
    );
}

#[test]
fn a_system_column_is_the_system_turn_and_masked_turns_are_no_targets() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let Encoder { chat, processor, .. } = encoder(dir.path(), EncodingPurpose::Train);
    let (path, copy) = (dir.path().join("rows.jsonl"), dir.path().join("copy.parquet"));
    let row = |mask: Value, system: &str| {
        let mut first = json!({"from": "gpt", "value": "one"});
        first.as_object_mut().unwrap().extend(mask.as_object().unwrap().clone());
        let asked = json!({"from": "human", "value": "what is it"});
        json!({"system": system, "conversations": [asked.clone(), first, asked, {"from": "gpt", "value": "two"}]})
    };
    let of = |rows: &[Value]| {
        jsonl(&path, rows.to_vec());
        read::read(&read::entry(&path))
    };
    let targets = |row: &Row| {
        let sample = sft_sample(row, &chat, processor.as_ref()).unwrap();
        sample.loss_mask.iter().filter(|&&target| target).count()
    };
    let masks = [
        json!({}),
        json!({"loss": 1, "weight": 1.0}),
        json!({"loss": 0}),
        json!({"loss": false}),
        json!({"weight": 0}),
    ];
    let rows = of(&masks.map(|mask| row(mask, "be brief"))).unwrap();
    assert!(rows.iter().all(|row| row.messages.len() == 5 && row.messages[0].role == "system"));
    assert_eq!(text_of(&rows[0].messages[0]), "be brief");
    let whole = targets(&rows[0]);
    assert_eq!(rows.iter().map(|row| targets(row) == whole).collect::<Vec<_>>(), [true, true, false, false, false]);
    // Rows that are written as the output of a stage and read again keep their masks.
    write::write(&copy, &rows, Form::Sft).unwrap();
    let back = read::read(&read::entry(&copy)).unwrap();
    assert!(back.iter().zip(&rows).all(|(back, row)| back.messages == row.messages));
    assert_eq!(of(&[row(json!({}), "")]).unwrap()[0].messages.len(), 4);
    let refused = |row: Value, part: &str| {
        let error = of(&[row]).unwrap_err().to_string();
        assert!(error.contains("rows.jsonl row 1") && error.contains(part), "{error}");
    };
    refused(row(json!({"weight": 0.5}), ""), "weight 0.5");
    refused(row(json!({"loss": true, "weight": 0}), ""), "the same value as `loss`");
    refused(row(json!({"from": "system"}), "be brief"), "a column `system` and a system message");
    let mut asked = row(json!({}), "");
    asked["conversations"][0]["weight"] = json!(1);
    refused(asked, "only turns of the assistant");
    let mut none = row(json!({"loss": 0}), "");
    none["conversations"][3]["loss"] = json!(0);
    assert!(sft_sample(&of(&[none]).unwrap()[0], &chat, processor.as_ref()).is_err());
}

#[test]
fn rows_without_an_answer_are_rejected_in_sft_form_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let [rows, out] = ["rows.jsonl", "out"].map(|name| dir.path().join(name));
    let answered = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "5"}]);
    let labelled = json!({"prompt": "q", "answer": "5"});
    jsonl(&rows, [labelled, json!({"messages": answered}), json!({"question": "q", "answer": "5"})]);
    for (stage, more) in [("format", ""), ("mix", "name: rows\n")] {
        let yaml = dir.path().join("stage.yaml");
        fs::write(&yaml, format!("datasets: [{}]\nform: sft\n{more}", rows.display())).unwrap();
        let out = out.join(stage);
        let (code, _, text) = run(&["data", stage, yaml.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        assert!(code == 0 && text.contains("3 rows in, 2 kept; 1 no_answer"), "{text}");
        let rejected = fs::read_to_string(out.join("rejected.jsonl")).unwrap();
        assert!(
            rejected.contains("row 1: found a label, and no answer") && rejected.contains("form: rl"),
            "{rejected}"
        );
        // The answer of a question is the turn that SFT trains on.
        let kept = read::read(&read::entry(out.join("rows.parquet"))).unwrap();
        assert!(kept.len() == 2 && kept.iter().all(|row| text_of(&row.messages[1]) == "5"));
    }
}

#[test]
fn a_group_of_one_and_a_batch_larger_than_the_rows_say_what_they_mean() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let rows = dir.path().join("rows.jsonl");
    jsonl(&rows, (0..3).map(|i| json!({"question": "q", "answer": i})));
    let mut config = RlConfig {
        model: Some(dir.path().to_owned()),
        train_files: vec![read::entry(&rows)],
        train_batch_size: 8,
        ppo_mini_batch_size: 8,
        ..RlConfig::default()
    };
    config.rollout.n = 1;
    let job = RlJob::new(&dir.path().join("run"), config, Arc::new(Scorer::rules(Mode::Strict))).unwrap();
    let notes = job.common.data.notes().join("\n");
    assert!(notes.contains("rollout.n is 1: "), "{notes}");
    assert!(notes.contains("train_batch_size is 8, but the number of samples is 3"), "{notes}");
}
