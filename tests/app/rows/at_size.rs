//! Tests data sets of realistic size, made from a few hundred images that many rows link to. The host memory of a run
//! must not grow with the number of rows. `bench/tools/data-at-size` runs the large tests.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use omr_base::config::{DatasetConfig, ImageConfig, RlConfig, SftConfig, TrainingConfig, to_yaml};
use omr_data::image::Rgb;
use omr_data::rows::read;
use omr_train_tests::training::tiny::{Outcome, rl_config, sft_config};
use serde_json::json;

/// Writes `images` JPEG files of 0.3 megapixels up to `most` pixels.
fn images(dir: &Path, images: usize, most: f64) {
    fs::create_dir_all(dir).unwrap();
    for k in 0..images {
        let pixels = 0.3e6 * (most / 0.3e6).powf(k as f64 / images as f64);
        let width = (pixels * [1.0, 1.5, 0.7][k % 3]).sqrt() as u32;
        let height = (pixels / f64::from(width)) as u32;
        // Large shapes and some noise make the file as large as a photograph of a page.
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ k as u32) >> 27;
            image::Rgb([((x / 97 + y / 61) % 2 * 200 + noise) as u8, (x * 255 / width) as u8, (y * 255 / height) as u8])
        });
        let jpeg = omr_data::image::jpeg(&Rgb { width, height, data: image.into_raw() }, 75).unwrap();
        fs::write(dir.join(format!("{k}.jpg")), jpeg).unwrap();
    }
}

/// Writes `count` rows of both forms, each with one of `images` images and about 200 characters of text.
fn rows(dir: &Path, count: usize, images: usize) {
    let (mut sft, mut rl) = (String::new(), String::new());
    for i in 0..count {
        let url = format!("images/{}.jpg", i.wrapping_mul(7919) % images);
        let question = format!("<image>Which digit is number {i}? Say what it looks like, and then the answer.");
        let answer =
            format!("<think>It looks like {}, as far as I can see.</think><answer>{}</answer>", i % 10, i % 10);
        let user = json!({"role": "user", "content": question});
        let row =
            json!({"id": i.to_string(), "messages": [user, {"role": "assistant", "content": answer}], "images": [url]});
        sft.push_str(&format!("{row}\n"));
        let row = json!({"id": i.to_string(), "prompt": [user], "images": [url], "answer": (i % 10).to_string()});
        rl.push_str(&format!("{row}\n"));
    }
    fs::write(dir.join("sft.jsonl"), sft).unwrap();
    fs::write(dir.join("rl.jsonl"), rl).unwrap();
}

/// Resources of a command: peak memory in bytes, CPU seconds, wall-clock seconds.
struct Took {
    memory: usize,
    cpu: f64,
    wall: f64,
}

fn run(args: &[String]) -> Took {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_omr")).args(args).spawn().unwrap();
    let proc = Path::new("/proc").join(child.id().to_string());
    let (mut memory, mut ticks) = (0usize, 0usize);
    loop {
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let most =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = most.unwrap_or(memory);
        // In the file `stat`, the process name ends at the last closing bracket. After it come the state, ten numbers,
        // and the user and system times.
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let times: Vec<usize> = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
        ticks = ticks.max(times.iter().sum());
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{args:?}");
            return Took { memory: memory * 1024, cpu: ticks as f64 / 100.0, wall: begun.elapsed().as_secs_f64() };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the configs of both jobs for images of at most `most` pixels. The rows are set by the caller.
fn configs(dir: &Path, most: f64, steps: u64, shuffle: bool) -> (SftConfig, RlConfig) {
    let (sft, rl) = (sft_config(dir), rl_config(dir));
    let images = ImageConfig { image_max_pixels: Some(most as usize), ..ImageConfig::default() };
    let sft = SftConfig {
        shuffle,
        max_steps: Some(steps),
        train_batch_size: None,
        packing_length: 8192,
        micro_batch_tokens: 8192.into(),
        training: TrainingConfig { images: images.clone(), ..sft.training.clone() },
        ..sft
    };
    let rl = RlConfig {
        shuffle,
        max_prompt_length: 8192,
        micro_batch_tokens: 2 * 8192,
        total_training_steps: Some(steps),
        training: TrainingConfig { images, ..rl.training.clone() },
        ..rl
    };
    (sft, rl)
}

/// Writes `config` into `dir`, and returns the arguments that run `command` with it in `out`.
fn arguments(dir: &Path, command: &str, config: &str, out: &Path) -> Vec<String> {
    let file = dir.join(format!("{command}.yaml"));
    fs::write(&file, config).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    ["--quiet", "--threads", "2", command, &path(&file), "--out", &path(out)].map(str::to_owned).to_vec()
}

/// Runs both jobs on `counts` rows, shuffled or in order, with the same images, first cold and then warm. Returns the
/// peak memory of each cold run.
fn at(counts: &[usize], files: usize, most: f64, steps: u64, shuffle: bool) -> Vec<[usize; 2]> {
    let dir = tempfile::tempdir().unwrap();
    images(&dir.path().join("images"), files, most);
    let (sft, rl) = configs(dir.path(), most, steps, shuffle);
    let mut memory = Vec::new();
    for &count in counts {
        rows(dir.path(), count, files);
        let sft = SftConfig { datasets: vec![read::entry(dir.path().join("sft.jsonl"))], ..sft.clone() };
        let rl = RlConfig { train_files: vec![read::entry(dir.path().join("rl.jsonl"))], ..rl.clone() };
        let configs = [("sft", to_yaml(&sft).unwrap()), ("rl", to_yaml(&rl).unwrap())];
        memory.push(configs.map(|(command, yaml)| {
            let out = dir.path().join(format!("{command}-{count}"));
            let args = arguments(dir.path(), command, &yaml, &out);
            let cold = run(&args);
            fs::remove_dir_all(out.join("model")).unwrap();
            fs::remove_file(out.join("summary.json")).unwrap();
            // All steps are done, so this only measures the start with the stored index.
            let warm = run(&args);
            println!(
                "{command}, {count} rows, {steps} steps: {} MiB, {:.1} s of CPU, {:.1} s; started again warm: {} MiB, {:.1} s of \
                 CPU, {:.1} s",
                cold.memory >> 20, cold.cpu, cold.wall, warm.memory >> 20, warm.cpu, warm.wall
            );
            cold.memory
        }));
    }
    memory
}

/// Bytes of four images of 0.3 to 0.5 megapixels as patches of the vision tower: each frame twice, three colors, four
/// bytes.
const BATCH_BYTES: usize = 4 * 500_000 * 2 * 3 * 4;

#[test]
fn memory_does_not_grow_with_the_rows() {
    // Without shuffling, every batch of four rows contains each of the four images, independent of the number of
    // rows. If a run with more rows needs more memory, the rows need it. A loader thread may finish a batch earlier or
    // later, which changes the memory by at most the images of one batch.
    let memory = at(&[100, 400], 4, 0.6e6, 2, false);
    for (command, [few, many]) in ["sft", "rl"].into_iter().zip([0, 1].map(|k| [memory[0][k], memory[1][k]])) {
        assert!(many < few + BATCH_BYTES, "{command}: {few} and {many} bytes");
    }
}

#[test]
#[ignore = "by hand: bench/tools/data-at-size"]
fn rows_20000() {
    let memory = at(&[2000, 20_000], 200, 4e6, 20, true);
    assert!(memory[1].iter().all(|&bytes| bytes < 2 << 30), "{memory:?}");
}

#[test]
#[ignore = "by hand, an hour: bench/tools/data-at-size --all"]
fn rows_200000() {
    // The rows are not shuffled, so that both sizes read the same images. Other images would need different amounts
    // of memory.
    let memory = at(&[20_000, 200_000], 400, 4e6, 20, false);
    for (few, many) in memory[0].iter().zip(memory[1]) {
        assert!(many < 2 << 30 && many as f64 <= 1.05 * *few as f64, "{memory:?}");
    }
}

/// Writes `count` SFT rows of random words, every tenth of them with one of `images` images. Every hundredth row repeats
/// the question of the row before it.
fn random_rows(dir: &Path, count: usize, images: usize) {
    const SYLLABLES: [&str; 16] =
        ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "za"];
    let mut state = 1u64;
    let mut words = |count: usize| {
        let mut text = String::new();
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (0..3).for_each(|k| text.push_str(SYLLABLES[(state >> (40 + 4 * k)) as usize % 16]));
            text.push(' ');
        }
        text
    };
    let mut file = std::io::BufWriter::new(fs::File::create(dir.join("sft.jsonl")).unwrap());
    let mut question = String::new();
    for i in 0..count {
        if i % 100 != 99 {
            question = words(15);
        }
        let urls: Vec<String> = (i % 10 == 0).then(|| format!("images/{}.jpg", i / 10 % images)).into_iter().collect();
        let user = json!({"role": "user", "content": "<image>".repeat(urls.len()) + &question});
        let reply = format!("<think>{}</think><answer>{}</answer>", words(20), i % 10);
        let row =
            json!({"id": i.to_string(), "messages": [user, {"role": "assistant", "content": reply}], "images": urls});
        writeln!(file, "{row}").unwrap();
    }
}

/// Passes as many rows as the published SFT set has through `data dedup` and `data mix` and trains on them for 20 steps.
#[test]
#[ignore = "by hand: bench/tools/data-at-size --published"]
fn rows_874000() {
    let (dir, count) = (tempfile::tempdir().unwrap(), 874_000);
    images(&dir.path().join("images"), 300, 0.4e6);
    random_rows(dir.path(), count, 300);
    let stage = |command: &[&str], config: String, out: &str| {
        let file = dir.path().join(format!("{out}.yaml"));
        fs::write(&file, config).unwrap();
        let paths = [file, dir.path().join(out)].map(|path| path.to_str().unwrap().to_owned());
        let mut args = ["--quiet", "--threads", "2"].map(str::to_owned).to_vec();
        args.extend(command.iter().map(|word| (*word).to_owned()));
        args.extend([paths[0].clone(), "--out".to_owned(), paths[1].clone()]);
        let took = run(&args);
        println!("{out}, {count} rows: {} MiB, {:.1} s of CPU, {:.1} s", took.memory >> 20, took.cpu, took.wall);
        took.memory
    };
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (sft, _) = configs(dir.path(), 0.4e6, 20, true);
    let train = |rows: String| {
        let rows = DatasetConfig { data_folder: Some(dir.path().to_owned()), ..read::entry(rows) };
        to_yaml(&SftConfig { datasets: vec![rows], ..sft.clone() }).unwrap()
    };
    let deduped = json!({"path": path("dedup/*.parquet"), "data_folder": dir.path()});
    let memory = [
        stage(&["data", "dedup"], json!({"datasets": [path("sft.jsonl")], "images": "path"}).to_string(), "dedup"),
        stage(&["data", "mix"], json!({"datasets": [deduped], "images": "path"}).to_string(), "mix"),
        stage(&["sft"], train(path("mix/*.parquet")), "20 steps of SFT"),
    ];
    assert!(memory.iter().all(|&bytes| bytes < 4 << 30), "{memory:?}");
}

/// Runs `args` until it is done, and kills it each time two more steps are recorded. Returns the number of kills.
fn killed(args: &[String], out: &Path) -> usize {
    let mut kills = 0;
    loop {
        let mut child = Command::new(env!("CARGO_BIN_EXE_omr")).args(args).spawn().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{args:?}");
                return kills;
            }
            let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
            if kills < 10 && metrics.lines().count() > 2 * kills {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
#[ignore = "by hand, an hour: bench/tools/data-at-size --all"]
fn killed_ten_times_and_with_more_workers_the_bits_are_the_same() {
    let (dir, count, files) = (tempfile::tempdir().unwrap(), 200_000, 400);
    images(&dir.path().join("images"), files, 1e6);
    rows(dir.path(), count, files);
    let (sft, rl) = configs(dir.path(), 1e6, 20, true);
    let yaml = |command: &str, workers: usize| match command {
        "sft" => to_yaml(&SftConfig {
            datasets: vec![read::entry(dir.path().join("sft.jsonl"))],
            save_steps: Some(1),
            training: TrainingConfig { dataloader_num_workers: workers, ..sft.training.clone() },
            ..sft.clone()
        }),
        _ => to_yaml(&RlConfig {
            train_files: vec![read::entry(dir.path().join("rl.jsonl"))],
            save_freq: Some(1),
            training: TrainingConfig { dataloader_num_workers: workers, ..rl.training.clone() },
            ..rl.clone()
        }),
    };
    for command in ["sft", "rl"] {
        let outs = [1, 2].map(|workers| dir.path().join(format!("{command}-{workers}")));
        run(&arguments(dir.path(), command, &yaml(command, 1).unwrap(), &outs[0]));
        let kills = killed(&arguments(dir.path(), command, &yaml(command, 2).unwrap(), &outs[1]), &outs[1]);
        assert_eq!(kills, 10);
        let [whole, killed] = outs.map(|out| Outcome::of(&out));
        assert!(whole == killed, "{command}");
        println!(
            "{command}, {count} rows, 20 steps: one worker, and two killed {kills} times: the same {} files",
            whole.files.len()
        );
    }
}

/// Breaks one row in `every`. The kinds alternate: errors in the row, errors in the image's header, and errors that
/// only decoding finds.
fn break_rows(dir: &Path, name: &str, every: usize, kinds: &[&str]) -> usize {
    let small = fs::read(dir.join("images/0.jpg")).unwrap();
    fs::write(dir.join("images/header.jpg"), &small[..20]).unwrap();
    // A valid header before invalid data.
    let mut inside = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(600, 500).write_to(&mut inside, image::ImageFormat::Png).unwrap();
    let mut inside = inside.into_inner();
    let data = inside.windows(4).position(|w| w == b"IDAT").unwrap() + 8;
    inside[data] ^= 0xff;
    fs::write(dir.join("images/inside.png"), inside).unwrap();
    let path = dir.join(name);
    let text = fs::read_to_string(&path).unwrap();
    let mut broken = 0;
    let lines: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, line)| {
            if i % every != every / 2 {
                return line.to_owned();
            }
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let url = row["images"][0].as_str().unwrap().to_owned();
            broken += 1;
            match kinds[broken % kinds.len()] {
                "half" => line[..line.len() / 2].to_owned(),
                "column" => line.replace("\"messages\"", "\"text\"").replace("\"prompt\"", "\"text\""),
                "count" => line.replace("<image>", "<image><image>"),
                file => line.replace(&url, &format!("images/{file}.{}", if file == "inside" { "png" } else { "jpg" })),
            }
        })
        .collect();
    fs::write(path, lines.join("\n")).unwrap();
    broken
}

#[test]
#[ignore = "by hand: bench/tools/data-at-size --all"]
fn broken_rows_are_counted_and_end_a_run_where_they_pass_the_share() {
    let (dir, count, files) = (tempfile::tempdir().unwrap(), 20_000, 50);
    images(&dir.path().join("images"), files, 0.35e6);
    let (sft, rl) = configs(dir.path(), 0.35e6, 20, true);
    let all = ["half", "column", "count", "missing", "header"];
    // Bad rows: one in 200, one in 50, and one in 50 only inside its image.
    for (name, every, kinds) in [("few", 200, &all[..]), ("many", 50, &all[..]), ("inside", 50, &["inside"][..])] {
        rows(dir.path(), count, files);
        let broken = ["sft.jsonl", "rl.jsonl"].map(|file| break_rows(dir.path(), file, every, kinds));
        let steps = if name == "inside" { 4000 } else { 20 };
        let sft = SftConfig {
            datasets: vec![read::entry(dir.path().join("sft.jsonl"))],
            max_steps: Some(steps),
            packing_length: 2048,
            ..sft.clone()
        };
        let rl = RlConfig {
            train_files: vec![read::entry(dir.path().join("rl.jsonl"))],
            total_training_steps: Some(steps),
            train_batch_size: 32,
            ppo_mini_batch_size: 32,
            ..rl.clone()
        };
        for (command, yaml) in [("sft", to_yaml(&sft).unwrap()), ("rl", to_yaml(&rl).unwrap())] {
            let out = dir.path().join(format!("{command}-{name}"));
            let done = Command::new(env!("CARGO_BIN_EXE_omr"))
                .args(arguments(dir.path(), command, &yaml, &out))
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&done.stderr);
            let named = fs::read_to_string(out.join("rejected.jsonl")).unwrap_or_default().lines().count();
            let steps = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count();
            println!(
                "{command}, {count} rows, {name}: {:?} after {steps} steps, {named} rows named; {printed}",
                done.status.code()
            );
            match name {
                "few" => assert_eq!((done.status.code(), named, steps), (Some(0), broken[0], 20), "{printed}"),
                "many" => {
                    assert_eq!((done.status.code(), steps), (Some(2), 0), "{printed}");
                    assert!(printed.contains(&format!("{} bad rows of {count}", broken[0])), "{printed}");
                }
                // The run stops at the first bad row beyond the allowed share. The group with this row is reported
                // completely.
                _ => {
                    assert_eq!(done.status.code(), Some(2), "{printed}");
                    assert!((201..=240).contains(&named) && steps > 0, "{named} rows named: {printed}");
                }
            }
        }
    }
}
