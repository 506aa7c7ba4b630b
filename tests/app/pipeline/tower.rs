//! Tests deduplication with a model's vision tower, which finds more duplicates than the hashes: in one run, in parts,
//! after a stop, and on the emulated GPU.

use std::path::{Path, PathBuf};

use image::{DynamicImage, Rgb, RgbImage};
use omr_app::pipeline;
use omr_base::config::{self, DedupConfig};
use omr_base::error::Error;
use omr_base::observe::Silent;
use omr_runtime::device::emu::{Completion, Emu, Options};
use omr_runtime::device::{Device, Kind, Target};
use omr_runtime::machine::Machine;
use omr_train_tests::training::tiny;
use serde_json::{Value, json};

use super::dedup::{encoded, image};
use super::{Impatient, files, in_parts, lines, observed, reads, refused, rows, run, runtime, write_lines};

/// Returns the image with stripes that are too faint to see, but change most bits of a difference hash of flat areas.
fn shaded(image: &DynamicImage) -> DynamicImage {
    let image = image.to_rgb8();
    let (width, height) = image.dimensions();
    let stripe = |x: u32, y: u32| if (x * 9 / width + y * 8 / height).is_multiple_of(2) { 3 } else { -3 };
    let at = |x, y| Rgb(image.get_pixel(x, y).0.map(|v| (i32::from(v) + stripe(x, y)).clamp(0, 255) as u8));
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, at))
}

fn row(id: String, question: &str, images: &[DynamicImage]) -> Value {
    let bytes = |image| json!({"bytes": encoded(image, image::ImageFormat::Png)});
    let images: Vec<Value> = images.iter().map(bytes).collect();
    json!({"id": id, "problem": question, "answer": "1", "images": images})
}

const ASKED: &str = "How many discs do you see?";

/// Writes `count` images with one question, then a striped version of every fourth image. Adds a row with another
/// question about a striped image, two rows of two images (the first image is the same, the second one is
/// striped), and a row without an image.
fn set_up(dir: &Path, count: u64) -> DedupConfig {
    let model = dir.join("model");
    tiny::base_model(&model);
    let mut all: Vec<Value> = (0..count).map(|i| row(format!("o{i}"), ASKED, &[image(i)])).collect();
    all.extend((0..count).step_by(4).map(|i| row(format!("s{i}"), ASKED, &[shaded(&image(i))])));
    all.push(row("other".into(), "Which disc is the largest of them?", &[shaded(&image(0))]));
    all.push(row("two".into(), ASKED, &[image(1), image(2)]));
    all.push(row("both".into(), ASKED, &[image(1), shaded(&image(2))]));
    all.push(row("first".into(), ASKED, &[image(1), image(3)]));
    all.push(row("none".into(), ASKED, &[]));
    let path = dir.join("rows.jsonl");
    write_lines(&path, &all);
    DedupConfig { stage: reads(&[path]), model: Some(model), ..DedupConfig::default() }
}

fn rejected(dir: &Path) -> Vec<String> {
    lines(&dir.join("rejected.jsonl")).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_tower_finds_what_the_hash_does_not_and_parts_make_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = set_up(dir.path(), 12);
    let [hash, whole, parts] = ["hash", "whole", "parts"].map(|name| dir.path().join(name));
    let (summary, _) = run(&DedupConfig { model: None, ..config.clone() }, &hash, None).unwrap();
    assert!(summary.rejected.is_empty() && !summary.more.contains_key("joined_by_tower"), "{summary:?}");
    let (summary, _) = run(&config, &whole, None).unwrap();
    assert_eq!(rejected(&whole), ["s0", "s4", "s8", "both"]);
    assert_eq!((summary.kept, &summary.more["joined_by_tower"]), (rows(&whole.join("rows.parquet")).len(), &json!(4)));
    assert!(!run(&config, &whole, None).unwrap().1, "a finished stage is not run again");
    assert_eq!(in_parts(&config, &parts, 3), summary);
    assert_eq!(files(&whole), files(&parts));
    assert!(!whole.join("embeddings.bin").exists() && !parts.join("embeddings-0-of-3.bin").exists());
}

#[test]
fn what_was_embedded_is_not_embedded_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = set_up(dir.path(), 40);
    let [whole, stopped] = ["whole", "stopped"].map(|name| dir.path().join(name));
    let (summary, _) = run(&config, &whole, None).unwrap();
    assert!(matches!(observed(&config, &stopped, None, &Impatient::after(1)), Err(Error::Stopped)));
    let path = stopped.join("embeddings.bin");
    let kept = std::fs::read(&path).unwrap();
    // The first 32 rows have a key and f16 values each. The last record is cut in half.
    let record = 16 + 2 * 32;
    assert_eq!(kept.len(), 32 * record);
    std::fs::write(&path, &kept[..kept.len() - record / 2]).unwrap();
    assert_eq!(run(&config, &stopped, None).unwrap().0, summary);
    assert_eq!(files(&whole), files(&stopped));

    let forged = dir.path().join("forged");
    assert!(matches!(observed(&config, &forged, None, &Impatient::after(1)), Err(Error::Stopped)));
    let mut forgery = kept.clone();
    forgery.copy_within(record + 16..2 * record, 16);
    std::fs::write(forged.join("embeddings.bin"), forgery).unwrap();
    run(&config, &forged, None).unwrap();
    // The stored embedding of the first image was changed, so that it differs from the embedding of its striped
    // version. The stage uses the stored value.
    assert_eq!(rejected(&whole)[0], "s0");
    assert_eq!(rejected(&forged), rejected(&whole)[1..]);
}

#[test]
fn images_are_embedded_on_the_emulated_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let config = set_up(dir.path(), 4);
    let device = |plan: &_| {
        let emu = Emu::new(Options { shadow: false, completion: Completion::Eager, ..Options::default() })?;
        emu.compile()?;
        Device::gpu(Box::new(emu), Kind::Emu, plan)
    };
    let runtime = || Ok(runtime().handle().clone());
    let (target, threads, place) = (Target::gpu(Kind::Emu), 1, String::new());
    let means = Machine { target, threads, place, device: &device, runtime: &runtime, observer: &Silent };
    let out = dir.path().join("out");
    pipeline::run(&config, &out, None, &means).unwrap();
    assert_eq!(rejected(&out), ["s0", "both"]);
}

#[test]
fn a_model_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = set_up(dir.path(), 1);
    let out = dir.path().join("out");
    let gone = DedupConfig { model: Some(PathBuf::from("/nowhere")), ..config.clone() };
    assert!(refused(run(&gone, &out, None)).contains("/nowhere/config.json"));
    let model = config.model.clone().unwrap();
    let load = |more: &str| config::load::<DedupConfig>(None, &[more.to_owned()], &|_| None);
    for (key, want) in [("embed_threshold=0.9", "a model directory as `model`"), ("embed_threshold=1.5", "0.01 to 1")] {
        assert!(refused(load(key)).contains(want), "{key}");
    }
    // A language model without a vision tower.
    let path = model.join("config.json");
    let mut text: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    text.as_object_mut().unwrap().remove("vision_config");
    std::fs::write(&path, text.to_string()).unwrap();
    let printed = refused(run(&config, &out, None));
    assert!(printed.contains("vision_config") && printed.contains("the vision tower's settings"), "{printed}");
}
