//! Data sets at their real size, made of a few hundred pictures that many rows link to: what a run takes of the host's
//! memory does not grow with its rows. `tools/data-at-size` runs the large ones.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use omr::config::{RlConfig, SftConfig, to_yaml};
use omr::data::read;
use serde_json::json;

use crate::train::tiny::{rl_config, sft_config};

/// Writes `pictures` JPEG files of 0.3 to 4 megapixels, or of up to `most`.
fn pictures(dir: &Path, pictures: usize, most: f64) {
    fs::create_dir_all(dir).unwrap();
    for k in 0..pictures {
        let pixels = 0.3e6 * (most / 0.3e6).powf(k as f64 / pictures as f64);
        let width = (pixels * [1.0, 1.5, 0.7][k % 3]).sqrt() as u32;
        let height = (pixels / f64::from(width)) as u32;
        // Large shapes and some noise: as large on disk as a photograph of a page.
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ k as u32) >> 27;
            image::Rgb([((x / 97 + y / 61) % 2 * 200 + noise) as u8, (x * 255 / width) as u8, (y * 255 / height) as u8])
        });
        picture.save_with_format(dir.join(format!("{k}.jpg")), image::ImageFormat::Jpeg).unwrap();
    }
}

/// Writes `count` rows of both forms, each with one of `pictures` pictures and about 200 characters of text.
fn rows(dir: &Path, count: usize, pictures: usize) {
    let (mut sft, mut rl) = (String::new(), String::new());
    for i in 0..count {
        let url = format!("pictures/{}.jpg", i.wrapping_mul(7919) % pictures);
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

/// What a command took: bytes of memory at most, seconds of CPU, seconds.
struct Took {
    memory: usize,
    cpu: f64,
    wall: f64,
}

fn run(args: &[&str]) -> Took {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_omr")).args(args).spawn().unwrap();
    let proc = Path::new("/proc").join(child.id().to_string());
    let (mut memory, mut ticks) = (0usize, 0usize);
    loop {
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let most =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = most.unwrap_or(memory);
        // Behind the name, which ends with the last bracket: state and eleven numbers, then time in and out of the kernel.
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

/// Runs both jobs on `counts` rows, shuffled or in order, in the same folders of pictures, cold and again warm; the memory
/// of each.
fn at(counts: &[usize], files: usize, most: f64, steps: u64, shuffle: bool) -> Vec<[usize; 2]> {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("pictures"), files, most);
    let (sft, rl) = (sft_config(dir.path()), rl_config(dir.path()));
    let pixels = Some(most as usize);
    let sft = SftConfig {
        shuffle,
        image_max_pixels: pixels,
        max_steps: Some(steps),
        train_batch_size: None,
        packing_length: 8192,
        micro_batch_tokens: 8192,
        ..sft
    };
    let rl = RlConfig {
        shuffle,
        image_max_pixels: pixels,
        max_prompt_length: 8192,
        micro_batch_tokens: 2 * 8192,
        total_training_steps: Some(steps),
        ..rl
    };
    let mut memory = Vec::new();
    for &count in counts {
        rows(dir.path(), count, files);
        let sft = SftConfig { datasets: vec![read::entry(dir.path().join("sft.jsonl"))], ..sft.clone() };
        let rl = RlConfig { train_files: vec![read::entry(dir.path().join("rl.jsonl"))], ..rl.clone() };
        let configs = [("sft", to_yaml(&sft).unwrap()), ("rl", to_yaml(&rl).unwrap())];
        memory.push(configs.map(|(command, yaml)| {
            let (config, out) = (dir.path().join("config.yaml"), dir.path().join(format!("{command}-{count}")));
            fs::write(&config, yaml).unwrap();
            let arg = |path: &Path| path.to_str().unwrap().to_owned();
            let args = ["--quiet", "--threads", "2", command, &arg(&config), "--out", &arg(&out)];
            let cold = run(&args);
            fs::remove_dir_all(out.join("model")).unwrap();
            fs::remove_file(out.join("summary.json")).unwrap();
            // All steps are done: what is left is to start, from the index that was kept.
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

/// Four pictures of 0.3 to 0.5 megapixels, as the towers' patches: a frame twice, three colors, four bytes.
const BATCH_BYTES: usize = 4 * 500_000 * 2 * 3 * 4;

#[test]
fn memory_does_not_grow_with_the_rows() {
    // In order, every batch of four has each of the four pictures, however many rows there are: what a run then takes more
    // is for its rows. A loader's threads make a batch a little sooner or later: that is one batch's pictures, no more.
    let memory = at(&[100, 400], 4, 0.6e6, 2, false);
    for (command, [few, many]) in ["sft", "rl"].into_iter().zip([0, 1].map(|k| [memory[0][k], memory[1][k]])) {
        assert!(many < few + BATCH_BYTES, "{command}: {few} and {many} bytes");
    }
}

#[test]
#[ignore = "by hand: tools/data-at-size"]
fn rows_20000() {
    let memory = at(&[2000, 20_000], 200, 4e6, 20, true);
    assert!(memory[1].iter().all(|&bytes| bytes < 2 << 30), "{memory:?}");
}

#[test]
#[ignore = "by hand, an hour: tools/data-at-size --all"]
fn rows_200000() {
    let memory = at(&[20_000, 200_000], 400, 4e6, 20, true);
    for (few, many) in memory[0].iter().zip(memory[1]) {
        assert!(many < 2 << 30 && many as f64 <= 1.05 * *few as f64, "{memory:?}");
    }
}
