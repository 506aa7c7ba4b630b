//! Compares sizes, resized bytes and patches with Pillow and with Hugging Face's image processors (`goldens/hf/image`).
//! The tolerances are those of `goldens/hf/README.md`.

use std::path::PathBuf;

use omr_data::image::processor::smart_resize;
use omr_data::image::{Limits, Processor, Rgb, decode};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Tolerance of `pixel_values` for the Pillow path. The order of operations is the same, but numpy may round constants
/// differently.
const TOL_PIL: f32 = 1e-6;
/// Tolerance for torchvision: two byte levels, on less than one value in a hundred.
const TOL_TORCHVISION_LEVELS: f32 = 2.0;
const TORCHVISION_SHARE: f64 = 0.01;

fn folder() -> PathBuf {
    omr_base_tests::golden::dir().join("hf/image")
}

pub fn number<T: TryFrom<u64>>(value: &Value) -> T {
    value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("{value}"))
}

fn image(file: &str) -> Rgb {
    let path = folder().join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    decode(&bytes, &Limits::default(), file).unwrap()
}

fn f32s(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{i}]: {a}, expected {b}");
    }
}

#[test]
fn smart_resize_rows() {
    let goldens = omr_base_tests::golden::json(&folder().join("smart_resize.json"));
    let rows = goldens["rows"].as_array().unwrap();
    for row in rows {
        let n: Vec<u32> = row.as_array().unwrap().iter().map(number).collect();
        let found = smart_resize(n[0], n[1], 28, n[2].into(), n[3].into()).unwrap();
        assert_eq!(found, (n[4], n[5]), "{row}");
    }
    let errors = goldens["error_rows"].as_array().unwrap();
    for row in errors {
        let defaults = Processor::default();
        let found = smart_resize(number(&row[0]), number(&row[1]), 28, defaults.min_pixels, defaults.max_pixels);
        assert!(found.is_err(), "{row}: {found:?}");
    }
    omr_base_tests::golden::report("smart_resize", rows.len() + errors.len());
}

#[test]
fn images() {
    let cases = omr_base_tests::golden::json(&folder().join("image_cases.json"))["cases"].as_array().unwrap().clone();
    let bytes = std::fs::read(folder().join("pixel_golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut probes, mut off) = (0, 0);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let decoded = image(case["file"].as_str().unwrap());
        assert_eq!((decoded.width, decoded.height), (number(&case["width"]), number(&case["height"])), "{name}");

        let processor = Processor {
            min_pixels: number(&case["min_pixels"]),
            max_pixels: number(&case["max_pixels"]),
            ..Processor::default()
        };
        let input = processor.image(&decoded).unwrap();
        assert_eq!(serde_json::json!([input.grid_thw]), case["image_grid_thw"], "{name}");
        assert_eq!(input.tokens(2), number::<usize>(&case["n_llm_tokens"]), "{name}");
        assert_eq!(sha256(&input.pixels), case["resized_rgb_sha256"].as_str().unwrap(), "{name}: resized bytes");
        if let Some(file) = case["resized_png"].as_str() {
            let resized = image(file);
            assert_eq!(
                (resized.height, resized.width),
                (number(&case["resized_height"]), number(&case["resized_width"]))
            );
            assert!(resized.data == input.pixels, "{name}: {file}");
        }

        let rows = crate::patches::patches(&processor, &input);
        let width: usize = number(&case["pixel_values_shape"][1]);
        assert_eq!(rows.len(), width * number::<usize>(&case["pixel_values_shape"][0]), "{name}");
        let (first, last) = (&rows[..width], &rows[rows.len() - width..]);
        assert_close(first, &f32s(&tensors, &format!("{name}.first_patch")), TOL_PIL, name);
        assert_close(last, &f32s(&tensors, &format!("{name}.last_patch")), TOL_PIL, name);
        check_stats(&rows, &case["pil"], name);

        let at = tensors.tensor(&format!("{name}.probe_index")).unwrap();
        let at = at.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize);
        let (at, found): (Vec<usize>, Vec<f32>) = at.map(|i| (i, rows[i])).unzip();
        assert_close(&found, &f32s(&tensors, &format!("{name}.probe_pil")), TOL_PIL, name);
        for ((i, a), b) in at.iter().zip(&found).zip(f32s(&tensors, &format!("{name}.probe_torchvision"))) {
            let channel = i % width / (width / 3);
            let levels = (a - b).abs() * processor.image_std[channel] * 255.0;
            assert!(levels < TOL_TORCHVISION_LEVELS + 0.01, "{name}[{i}]: {a}, torchvision {b}");
            probes += 1;
            off += usize::from(levels > 0.5);
        }
    }
    assert!(off as f64 <= probes as f64 * TORCHVISION_SHARE, "{off} of {probes} differ from torchvision");
    omr_base_tests::golden::report("image", cases.len());
}

/// Compares statistics over all values with the reference, which sums in f64.
fn check_stats(rows: &[f32], stats: &Value, what: &str) {
    let n = rows.len() as f64;
    let sum: f64 = rows.iter().map(|&x| f64::from(x)).sum();
    let squares: f64 = rows.iter().map(|&x| f64::from(x).powi(2)).sum();
    let (min, max) = rows.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &x| (lo.min(x), hi.max(x)));
    let found = [
        ("mean", sum / n),
        ("std", (squares / n - (sum / n).powi(2)).sqrt()),
        ("min", min.into()),
        ("max", max.into()),
        ("l2", squares.sqrt() / n.sqrt()),
    ];
    for (key, value) in found {
        let scale = if key == "l2" { n.sqrt() } else { 1.0 };
        let expected = stats[key].as_f64().unwrap() / scale;
        assert!((value - expected).abs() <= f64::from(TOL_PIL), "{what}: {key} {value}, expected {expected}");
    }
}

/// Returns the SHA-256 of `bytes` as hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
