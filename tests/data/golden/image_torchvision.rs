//! Compares pixels with the image processors of transformers 5.23 on torchvision (`goldens/image_torchvision`): every byte
//! of the RGB and of the resized image, and every bit of `pixel_values`.

use omr_base::config::{ImageBackend, ImageConfig};
use omr_data::image::{Limits, PatchGrid, Processor, decode_then};
use serde_json::Value;

use super::image::{number, sha256};

#[test]
fn pixels_of_torchvision() {
    let folder = omr_base_tests::golden::dir().join("image_torchvision");
    let cases = omr_base_tests::golden::json(&folder.join("cases.json"))["cases"].as_array().unwrap().clone();
    let (mut resized, mut transparent) = (0, 0);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let patch_size = if case["processor"] == "qwen3_vl" { 16 } else { 14 };
        let settings = ImageConfig {
            image_min_pixels: Some(number(&case["shortest_edge"])),
            image_max_pixels: Some(number(&case["longest_edge"])),
            image_backend: ImageBackend::Torchvision,
            image_alpha: None,
            image_16_bit: None,
        };
        let released = Processor::released(PatchGrid { patch_size, temporal_patch_size: 2, merge_size: 2 });
        let processor = released.with(&settings).unwrap();
        let bytes = std::fs::read(folder.join(case["file"].as_str().unwrap())).unwrap();
        let rgb = decode_then(&bytes, &Limits::default(), processor.alpha, name, |rgb| rgb).unwrap();
        let input = processor.image(&rgb).unwrap();
        assert_eq!(serde_json::json!([input.grid_thw]), case["image_grid_thw"], "{name}");
        let values = crate::patches::patches(&processor, &input);
        let values: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        for (what, found, expected) in [
            ("RGB", &rgb.data, &case["rgb_sha256"]),
            ("resized bytes", &input.pixels, &case["resized_rgb_sha256"]),
            ("pixel_values", &values, &case["pixel_values"]["sha256_f32le"]),
        ] {
            assert_eq!(Value::from(sha256(found)), *expected, "{name}: {what}");
        }
        resized += usize::from(rgb.data != input.pixels);
        transparent += usize::from(!["RGB", "L"].contains(&case["png_mode"].as_str().unwrap()));
    }
    assert!(resized > 20 && transparent > 7, "{resized} {transparent}");
    omr_base_tests::golden::report("image_torchvision", cases.len());
}
