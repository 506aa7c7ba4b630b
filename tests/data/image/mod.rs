//! Compares image decoding with Pillow, and tests files that must be refused. `make.py` writes both folders.

pub mod jpeg;

use std::path::{Path, PathBuf};

use omr_data::image::processor::smart_resize;
use omr_data::image::{Backend, Limits, Processor, Rgb, decode, resize};
use proptest::prelude::*;

fn files(folder: &str) -> Vec<PathBuf> {
    let dir = omr_base_tests::root().join("tests/data/image").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(path: &Path) -> omr_base::error::Result<Rgb> {
    decode(&std::fs::read(path).unwrap(), &Limits::default(), &path.display().to_string())
}

#[test]
fn decoding_is_pillows() {
    let mut wrong = Vec::new();
    for path in files("pillow").iter().filter(|p| !p.to_str().unwrap().ends_with(".rgb.png")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = read(&path.with_file_name(format!("{name}.rgb.png"))).unwrap();
        let found = match read(path) {
            Ok(found) => found,
            Err(e) => {
                wrong.push(e.to_string());
                continue;
            }
        };
        if found != expected {
            let most = found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max();
            wrong.push(format!("{name}: {} x {}, largest difference {most:?}", found.width, found.height));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_files_are_refused_by_name() {
    for path in files("broken") {
        let error = match read(&path) {
            Ok(image) => panic!("{}: read as {} x {}", path.display(), image.width, image.height),
            Err(error) => error,
        };
        let place = path.display().to_string();
        assert!(error.to_string().starts_with(&place), "{place}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

/// Returns the largest amount of memory that the process has used.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_bomb_is_refused_from_its_header() {
    let path = files("broken").into_iter().find(|p| p.ends_with("huge.png")).unwrap();
    let before = peak_kib();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("60000 x 60000"), "{error}");
    // Other tests run at the same time. The image itself would take 3.6 GB.
    assert!(peak_kib() - before < 1 << 20, "{} KiB", peak_kib() - before);
}

/// Images for [`damaged_files_never_panic`].
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(|| files("pillow").iter().map(|p| std::fs::read(p).unwrap()).collect())
}

proptest! {
    #![proptest_config(omr_base_tests::seed::proptest(500))]

    #[test]
    fn damaged_files_never_panic(
        sample in 0..samples().len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = samples()[sample].clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(len.index(bytes.len()));
        }
        let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
        if let Ok(image) = decode(&bytes, &limits, "damaged") {
            prop_assert_eq!(image.data.len() as u64, u64::from(image.width) * u64::from(image.height) * 3);
        }
    }

    #[test]
    fn sizes_are_multiples_within_bounds(
        height in 1u32..5000,
        width in 1u32..5000,
        merged in 1u32..40,
        min in 1u64..100_000,
        max in 1u64..10_000_000,
    ) {
        let (factor, max) = (2 * merged, min + max);
        match smart_resize(height, width, factor, min, max) {
            Ok((h, w)) => {
                prop_assert!(h > 0 && w > 0 && h % factor == 0 && w % factor == 0);
                let area = u64::from(h) * u64::from(w);
                // Enlarging rounds each side up by less than `factor` pixels. Shrinking does not go below `factor`
                // pixels per side.
                let rounding = u64::from(factor) * u64::from(h + w);
                prop_assert!(area <= max || area <= min + rounding || h.min(w) == factor);
            }
            Err(_) => prop_assert!(height.max(width) > 200 * height.min(width)),
        }
    }

    #[test]
    fn a_flat_image_stays_flat(side in 1u32..40, other in 1u32..40, out in 1u32..60, value in any::<u8>()) {
        let image = Rgb { width: side, height: other, data: vec![value; (side * other * 3) as usize] };
        let resized = resize(&image, out, other, Backend::Pil);
        prop_assert!(resized.data.iter().all(|&v| v == value) && resized.data.len() as u32 == out * other * 3);
    }
}

#[test]
fn the_smallest_images_are_enlarged_and_the_thinnest_refused() {
    let image = |width, height| Rgb { width, height, data: vec![7; (width * height * 3) as usize] };
    let processor = Processor::default();
    assert_eq!(processor.image(&image(1, 1)).unwrap().grid_thw, [1, 4, 4]);
    let error = processor.image(&image(1, 10_000)).unwrap_err().to_string();
    assert!(error.contains("1 x 10000 pixels") && error.contains("200"), "{error}");
}
