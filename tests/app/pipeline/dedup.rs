//! Tests deduplication with duplicates that are planted among generated images and questions. Every planted row is
//! counted.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine as _;
use image::{DynamicImage, GenericImageView, ImageFormat, Rgb, RgbImage};
use omr_base::config::{DedupConfig, Mode, StageConfig};
use omr_base::philox::{Purpose, Random};
use omr_train_tests::training::tiny;
use serde_json::{Value, json};

use super::{files, in_parts, lines, reads, refused, rows, run, write_lines};

/// Returns an image of a few discs on grey.
pub fn image(seed: u64) -> DynamicImage {
    let mut random = Random::new(seed, Purpose::Test, 1);
    let discs: Vec<[f64; 5]> = (0..5)
        .map(|_| {
            let mut u = || random.uniform_f64();
            [u(), u(), 0.08 + 0.25 * u(), 220.0 * u() - 110.0, 0.5 + u()]
        })
        .collect();
    let (width, height) = (72, 56);
    let at = |x: u32, y: u32| {
        let (x, y) = ((f64::from(x) + 0.5) / f64::from(width), (f64::from(y) + 0.5) / f64::from(height));
        let inside = |d: &&[f64; 5]| ((x - d[0]) / d[2]).powi(2) + ((y - d[1]) / (d[2] * d[4])).powi(2) < 1.0;
        let light = 128.0 + discs.iter().filter(inside).map(|d| d[3]).sum::<f64>();
        Rgb([light as u8, (light * 0.8) as u8, 255 - light as u8])
    };
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, at))
}

/// Returns the image with up to `share` of each side cut off.
fn cropped(image: &DynamicImage, share: f64, random: &mut Random) -> DynamicImage {
    let (width, height) = image.dimensions();
    // The image is enlarged first, so that a cut can be less than one pixel.
    let large = image.resize_exact(width * 8, height * 8, image::imageops::FilterType::Triangle);
    let (width, height) = large.dimensions();
    let mut cut = |length: u32| (f64::from(length) * share * random.uniform_f64()) as u32;
    let (left, right, top, bottom) = (cut(width), cut(width), cut(height), cut(height));
    large.crop_imm(left, top, width - left - right, height - top - bottom)
}

pub fn encoded(image: &DynamicImage, format: ImageFormat) -> String {
    let mut bytes = Cursor::new(Vec::new());
    image.to_rgb8().write_to(&mut bytes, format).unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes.into_inner())
}

/// Kinds of planted duplicates.
const KINDS: [&str; 5] = ["crop", "encoding", "space", "number", "both"];

/// Returns the text of question `i`. Every fourth question has no image. Every third question has one of forty texts
/// if it has an image. All other questions have a text of their own.
fn question(i: usize) -> String {
    match i % 3 {
        0 if i % 4 != 3 => format!("How many discs of kind {} are there?", i / 3 % 40),
        _ => format!(
            "Question about part {i}: what is the sum of the first {} disc areas, in units of {}?",
            i % 7,
            i % 11
        ),
    }
}

fn row(id: String, question: &str, image: Option<String>) -> Value {
    let images: Vec<Value> = image.into_iter().map(|bytes| json!({"bytes": bytes})).collect();
    json!({"id": id, "problem": question, "answer": "1", "images": images})
}

fn original(i: usize) -> Value {
    let image = (i % 4 != 3).then(|| encoded(&image(i as u64), ImageFormat::Png));
    row(format!("o{i}"), &question(i), image)
}

/// Returns a duplicate of row `i`, changed as `kind` requires. `share` is the size of a crop.
fn double(i: usize, kind: &str, share: f64) -> Value {
    let mut random = Random::new(i as u64, Purpose::Test, 2);
    let source = image(i as u64);
    let asked = question(i);
    let asked = match kind {
        "space" => format!("  {} \n", asked.replace(' ', "  ").replace('?', " ?")),
        "number" => format!("{}. {asked}", i % 90 + 1),
        "both" => format!("({}) {}", i % 9 + 1, asked.to_uppercase()),
        _ => asked,
    };
    let shown = match kind {
        "crop" => encoded(&cropped(&source, share, &mut random), ImageFormat::Png),
        "encoding" | "both" => {
            let (width, height) = source.dimensions();
            let image = omr_data::image::Rgb { width, height, data: source.to_rgb8().into_raw() };
            base64::engine::general_purpose::STANDARD.encode(omr_data::image::jpeg(&image, 75).unwrap())
        }
        _ => encoded(&source, ImageFormat::Png),
    };
    row(format!("d{i}-{kind}"), &asked, (i % 4 != 3).then_some(shown))
}

/// A set of `count` rows with planted duplicates: one tenth of the rows are duplicates of other rows, and one hundredth
/// are from a benchmark. The fields are the two files and the ids of the planted rows.
struct Planted {
    rows: PathBuf,
    benchmark: PathBuf,
    doubles: HashSet<String>,
    of_benchmark: HashSet<String>,
}

fn planted(dir: &Path, count: usize) -> Planted {
    let (tenth, hundredth) = (count / 10, count / 100);
    let originals = count - tenth - hundredth;
    let mut all: Vec<Value> = (0..originals).map(original).collect();
    let (mut doubles, mut of_benchmark) = (HashSet::new(), HashSet::new());
    for k in 0..tenth {
        let one = double(k * (originals / tenth), KINDS[k % KINDS.len()], 0.03);
        doubles.insert(one["id"].as_str().unwrap().to_owned());
        all.push(one);
    }
    // The benchmark's images occur in no other row.
    let benchmark: Vec<Value> = (0..hundredth).map(|k| original(originals + k)).collect();
    for k in 0..hundredth {
        let one = double(originals + k, KINDS[1 + k % 4], 0.0);
        of_benchmark.insert(one["id"].as_str().unwrap().to_owned());
        all.push(one);
    }
    let planted =
        Planted { rows: dir.join("rows.jsonl"), benchmark: dir.join("benchmark.jsonl"), doubles, of_benchmark };
    write_lines(&planted.rows, &all);
    write_lines(&planted.benchmark, &benchmark);
    planted
}

fn config(planted: &Planted) -> DedupConfig {
    DedupConfig {
        stage: reads(std::slice::from_ref(&planted.rows)),
        against: vec![omr_data::rows::read::entry(&planted.benchmark)],
        ..DedupConfig::default()
    }
}

/// Returns precision and recall for the planted duplicates. Each of them comes after its original.
fn measured(out: &Path, planted: &Planted) -> (f64, f64) {
    let named = lines(&out.join("rejected.jsonl"));
    let ids = |reason: &str| -> HashSet<String> {
        named.iter().filter(|l| l["reason"] == reason).map(|l| l["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("benchmark"), planted.of_benchmark, "every planted row of the benchmark, and no other");
    let found = ids("duplicate");
    let right = found.intersection(&planted.doubles).count() as f64;
    (right / found.len() as f64, right / planted.doubles.len() as f64)
}

#[test]
fn planted_doubles_are_found_and_little_else() {
    let dir = tempfile::tempdir().unwrap();
    let planted = planted(dir.path(), 1500);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let (summary, _) = run(&config(&planted), &whole, None).unwrap();
    let (precision, recall) = measured(&whole, &planted);
    assert!(precision >= 0.99 && recall >= 0.95, "precision {precision}, recall {recall}");
    assert_eq!(summary.kept, rows(&whole.join("rows.parquet")).len());
    let page = std::fs::read_to_string(whole.join("dedup.html")).unwrap();
    assert!(page.contains("data:image/jpeg;base64,") && page.contains("duplicate") && page.contains("kept"));
    assert_eq!(in_parts(&config(&planted), &parts, 3), summary);
    assert_eq!(files(&whole), files(&parts));
}

#[test]
fn a_benchmark_with_unreadable_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let planted = planted(dir.path(), 30);
    let unread = json!({"question": "What?", "answer": "A", "options": ["x", "y"]});
    write_lines(&planted.benchmark, &[json!({"question": "Why?", "answer": "A"}), unread]);
    let message = refused(run(&config(&planted), &dir.path().join("out"), None));
    assert!(message.contains("benchmark.jsonl: found 1 of 2 rows that cannot be read"), "{message}");
}

#[test]
fn compat_keeps_the_row_of_the_last_set_and_looks_in_no_set() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| dir.path().join(format!("{name}.jsonl")));
    write_lines(&paths[0], &[original(0), original(1), original(0), original(2)]);
    write_lines(&paths[1], &[original(2), original(5), original(5)]);
    let ids = |name: &str, config: &DedupConfig| -> [Vec<String>; 2] {
        let out = dir.path().join(name);
        run(config, &out, None).unwrap();
        ["a", "b"].map(|set| rows(&out.join(format!("{set}.parquet"))).into_iter().map(|row| row.id).collect())
    };
    let stage = StageConfig { ..reads(&paths) };
    let strict = DedupConfig { stage: stage.clone(), ..DedupConfig::default() };
    assert_eq!(ids("strict", &strict), [vec!["o0", "o1", "o2"], vec!["o5"]]);
    let across = DedupConfig { within: false, ..strict.clone() };
    assert_eq!(ids("across", &across), [vec!["o0", "o1", "o0", "o2"], vec!["o5", "o5"]]);
    let compat = DedupConfig { mode: Mode::Compat, ..strict };
    assert_eq!(ids("compat", &compat), [vec!["o0", "o1", "o0"], vec!["o2", "o5", "o5"]]);
}

#[test]
#[ignore = "bench/peers/dedup.py has it make its rows"]
fn planted_files() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: see bench/peers/dedup.py"));
    let dir = PathBuf::from(variable("OMR_PLANTED"));
    let planted = planted(&dir, variable("OMR_ROWS").parse().unwrap());
    let ids = json!({"doubles": planted.doubles, "benchmark": planted.of_benchmark});
    std::fs::write(dir.join("planted.json"), ids.to_string()).unwrap();
}

#[test]
#[ignore = "by hand: bench/tools/data-at-size --dedup"]
fn at_size() {
    let dir = tempfile::tempdir().unwrap();
    let planted = planted(dir.path(), 100_000);
    let begun = Instant::now();
    run(&config(&planted), &dir.path().join("out"), None).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let (precision, recall) = measured(&dir.path().join("out"), &planted);
    println!("100000 rows: precision {precision:.4}, recall {recall:.4}, {seconds:.0} s");
    // Crops of up to one tenth of each side are only reported.
    let wide: Vec<Value> =
        (0..1000).filter(|i| i % 4 != 3).flat_map(|i| [original(i), double(i, "crop", 0.1)]).collect();
    let path = dir.path().join("wide.jsonl");
    write_lines(&path, &wide);
    let model = dir.path().join("model");
    tiny::tuned_model(&model);
    for (name, model) in [("hash", None), ("tower", Some(model))] {
        let config = DedupConfig { stage: reads(std::slice::from_ref(&path)), model, ..DedupConfig::default() };
        run(&config, &dir.path().join(name), None).unwrap();
        let found = lines(&dir.path().join(name).join("rejected.jsonl"));
        let right = found.iter().filter(|l| l["id"].as_str().unwrap().starts_with('d')).count();
        let (wrong, all) = (found.len() - right, wide.len() / 2);
        println!("crops of up to 10 % a side by {name}: {right} of {all} found, {wrong} others");
    }
    assert!(precision >= 0.99 && recall >= 0.95);
}
