//! Reads and writes the settings of images in a model directory: `preprocessor_config.json` and the
//! `processor_config.json` of transformers 5.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Backend, PatchGrid, Processor, warn_once};
use omr_base::config::{Image16Bit, ImageAlpha, ImageConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;

/// Upper bound of `min_pixels` and `max_pixels`, so that areas and coordinates stay well within 32 bits.
const MAX_PIXELS: u64 = 1 << 30;

/// Names of the minimum and the maximum number of pixels: as fields of their own, and in `size`.
const EDGES: [[&str; 2]; 2] = [["min_pixels", "shortest_edge"], ["max_pixels", "longest_edge"]];

/// The other fields that are used, or refused if pixels would differ.
const READ: &str = "size patch_size merge_size temporal_patch_size image_mean image_std rescale_factor resample do_resize \
    do_rescale do_normalize do_convert_rgb do_center_crop do_pad use_fast image_alpha image_16_bit image_processor_type";

/// Fields that processors of transformers 4.49 to 5.24 write and that leave the pixels of an image as they are.
const HARMLESS: &str = "processor_class feature_extractor_type _processor_class _valid_processor_keys model_input_names \
    default_to_square crop_size pad_size data_format input_data_format device return_tensors disable_grouping \
    image_seq_length fps do_sample_frames return_metadata";

impl Processor {
    /// Loads the settings of a model directory (see [`Processor::file`]). Returns an error if the sizes of patches
    /// differ from those of the model, `grid`.
    pub fn load(dir: &Path, grid: PatchGrid) -> Result<Processor> {
        let file = Processor::file(dir)?.unwrap_or_else(|| dir.join("preprocessor_config.json"));
        let config: Value = files::json::read(&file)?;
        let place = file.display().to_string();
        let (images, place) = match config.get("image_processor") {
            Some(images) => (images, format!("{place}: image_processor")),
            None => (&config, place),
        };
        let processor = Processor::from_json(images, &place)?;
        let unread = unread(images);
        if !unread.is_empty() {
            warn_once(format!("{place}: fields that are not read: {}", unread.join(", ")));
        }
        for (key, found, expected) in [
            ("patch_size", processor.patch_size, grid.patch_size),
            ("merge_size", processor.merge_size, grid.merge_size),
            ("temporal_patch_size", processor.temporal_patch_size, grid.temporal_patch_size),
        ] {
            if found as usize != expected {
                let expected = format!("{expected}, as in config.json");
                return Err(Error::input(format!("{place}: {key}"), found.to_string(), expected));
            }
        }
        Ok(processor)
    }

    /// Returns the file with the settings in a model directory: `preprocessor_config.json`, or the
    /// `processor_config.json` of transformers 5, which contains the settings of images and videos. If the directory
    /// contains an adapter without these files, returns that of its base.
    pub fn file(dir: &Path) -> Result<Option<PathBuf>> {
        let nested =
            |file: &Path| files::json::read::<Value>(file).is_ok_and(|config| config.get("image_processor").is_some());
        let in_dir = |dir: &Path| {
            let (alone, nesting) = (dir.join("preprocessor_config.json"), dir.join("processor_config.json"));
            // Older versions write a `processor_config.json` without image settings.
            if alone.exists() { Some(alone) } else { Some(nesting).filter(|file| nested(file)) }
        };
        match in_dir(dir) {
            Some(file) => Ok(Some(file)),
            None => Ok(base_model::of(dir)?.and_then(|base| in_dir(&base))),
        }
    }

    /// Reads the settings. A missing setting has the value of the released models. `place` names the file in errors.
    pub fn from_json(config: &Value, place: &str) -> Result<Processor> {
        let Some(map) = config.as_object() else {
            return Err(Error::input(place, "a value that is not an object", "an object"));
        };
        let get = |key: &str| map.get(key).filter(|v| !v.is_null());
        let wrong = |key: &str, value: &Value, expected: &str| {
            Error::input(format!("{place}: {key}"), value.to_string(), expected)
        };
        for key in ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"] {
            if let Some(value) = get(key).filter(|v| **v != Value::Bool(true)) {
                return Err(wrong(key, value, "true"));
            }
        }
        if let Some(value) = get("resample").filter(|v| v.as_u64() != Some(3)) {
            return Err(wrong("resample", value, "3 (bicubic)"));
        }
        // Pixels are neither cut off nor added.
        for key in ["do_center_crop", "do_pad"] {
            if let Some(value) = get(key).filter(|v| **v != Value::Bool(false)) {
                return Err(wrong(key, value, "false"));
            }
        }
        let edges = get("size").and_then(Value::as_object).into_iter().flatten().filter(|(_, value)| !value.is_null());
        if let Some((edge, value)) = edges.clone().find(|(edge, _)| !EDGES.concat().contains(&edge.as_str())) {
            return Err(wrong(
                &format!("size.{edge}"),
                value,
                "shortest_edge and longest_edge, or min_pixels and max_pixels",
            ));
        }
        if let Some(value) = get("size").filter(|size| !size.is_object()) {
            return Err(wrong("size", value, "an object with shortest_edge and longest_edge"));
        }
        // The first models of Qwen2-VL and UI-TARS have `min_pixels` and `max_pixels` in `size`.
        let size = |[key, edge]: [&str; 2], default: u64| {
            let of_size = edges.clone().find(|(name, _)| *name == edge || *name == key).map(|(_, value)| value);
            let Some(value) = get(key).or(of_size) else { return Ok(default) };
            let pixels = value.as_u64().filter(|n| (1..=MAX_PIXELS).contains(n));
            pixels.ok_or_else(|| wrong(key, value, &format!("a number of pixels up to {MAX_PIXELS}")))
        };
        let count = |key: &str, default: u32| {
            let Some(value) = get(key) else { return Ok(default) };
            let n = value.as_u64().filter(|n| (1..=256).contains(n));
            n.map(|n| n as u32).ok_or_else(|| wrong(key, value, "a number from 1 to 256"))
        };
        let channels = |key: &str, default: [f32; 3], positive: bool| {
            let Some(value) = get(key) else { return Ok(default) };
            let read: Option<[f32; 3]> = serde_json::from_value(value.clone()).ok();
            let valid = |x: &f32| x.is_finite() && (!positive || *x > 0.0);
            read.filter(|a| a.iter().all(valid)).ok_or_else(|| wrong(key, value, "three numbers, one per channel"))
        };
        let backend = named_backend(config).unwrap_or(Backend::Torchvision);
        let named_alpha = |value: &Value| {
            let alpha = value.as_str().and_then(|name| name.parse::<ImageAlpha>().ok());
            alpha.ok_or_else(|| wrong("image_alpha", value, "white or drop"))
        };
        let alpha = get("image_alpha").map_or(Ok(backend.alpha()), named_alpha)?;
        let named_grey = |value: &Value| {
            let grey = value.as_str().and_then(|name| name.parse::<Image16Bit>().ok());
            grey.ok_or_else(|| wrong("image_16_bit", value, "clip or upper"))
        };
        let factor = |value: &Value| value.as_f64().ok_or_else(|| wrong("rescale_factor", value, "a number"));
        let default = Processor::default();
        let processor = Processor {
            backend,
            alpha,
            grey: get("image_16_bit").map_or(Ok(Image16Bit::Clip), named_grey)?,
            patch_size: count("patch_size", default.patch_size)?,
            merge_size: count("merge_size", default.merge_size)?,
            temporal_patch_size: count("temporal_patch_size", default.temporal_patch_size)?,
            min_pixels: size(EDGES[0], default.min_pixels)?,
            max_pixels: size(EDGES[1], default.max_pixels)?,
            image_mean: channels("image_mean", default.image_mean, false)?,
            image_std: channels("image_std", default.image_std, true)?,
            rescale_factor: get("rescale_factor").map_or(Ok(default.rescale_factor), factor)?,
        };
        if processor.min_pixels > processor.max_pixels {
            let found = format!("{}, above max_pixels {}", processor.min_pixels, processor.max_pixels);
            return Err(Error::input(format!("{place}: min_pixels"), found, "at most max_pixels"));
        }
        Ok(processor)
    }
}

/// Returns the fields with a value that are neither read nor known to leave the pixels as they are.
fn unread(images: &Value) -> Vec<&str> {
    let fields = images.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let is_known = |name: &str| {
        READ.split(' ').chain(HARMLESS.split(' ')).any(|known| known == name) || EDGES.concat().contains(&name)
    };
    fields.map(|(name, _)| name.as_str()).filter(|name| !is_known(name)).collect()
}

/// Returns the library that the settings of a `preprocessor_config.json` name: by `use_fast`, otherwise by the ending of
/// the class.
fn named_backend(images: &Value) -> Option<Backend> {
    let class = images["image_processor_type"].as_str().unwrap_or_default();
    match images["use_fast"].as_bool() {
        Some(true) => Some(Backend::Torchvision),
        Some(false) => Some(Backend::Pil),
        None if class.ends_with("Fast") => Some(Backend::Torchvision),
        None => class.ends_with("Pil").then_some(Backend::Pil),
    }
}

impl Backend {
    /// Returns the treatment of transparent images that the library has by default.
    pub(super) fn alpha(self) -> ImageAlpha {
        match self {
            Backend::Torchvision => ImageAlpha::White,
            Backend::Pil => ImageAlpha::Drop,
        }
    }
}

/// Writes `settings` into the files of image settings in `dir`, and which library makes the pixels. Bounds are written in
/// the form of each file: as `min_pixels` and `max_pixels`, as edges of `size`, or as both. A file that has these
/// settings keeps its bytes.
pub fn write(dir: &Path, settings: &ImageConfig) -> Result<()> {
    for file in ["preprocessor_config.json", "processor_config.json"].map(|name| dir.join(name)) {
        if !file.exists() {
            continue;
        }
        let mut config: Value = files::json::read(&file)?;
        let images = match config.get("image_processor") {
            Some(_) => &mut config["image_processor"],
            None if file.ends_with("preprocessor_config.json") => &mut config,
            None => continue,
        };
        let was = Processor::from_json(images, &file.display().to_string())?;
        let is = was.clone().with(settings)?;
        let before = images.clone();
        let bounds = [
            ("min_pixels", "shortest_edge", was.min_pixels, is.min_pixels),
            ("max_pixels", "longest_edge", was.max_pixels, is.max_pixels),
        ];
        for (key, edge, _, pixels) in bounds.into_iter().filter(|(_, _, was, is)| was != is) {
            let size = images.get_mut("size").and_then(Value::as_object_mut);
            let of_size = size.and_then(|size| size.iter_mut().find(|(name, _)| *name == edge || *name == key));
            let of_size = of_size.map(|(_, bound)| bound);
            let is_in_size = of_size.map(|bound| *bound = pixels.into()).is_some();
            if !is_in_size || images.get(key).is_some_and(|bound| !bound.is_null()) {
                images[key] = pixels.into();
            }
        }
        write_backend(images, &is);
        if *images == before {
            continue;
        }
        files::write(&file, format!("{config:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Writes which library makes the pixels of `processor`, and its treatment of alpha and 16 bits if it is not that of the
/// library.
/// Pillow is written as `use_fast: false`, because transformers 4.57 cannot load a directory with a class `...Pil`.
fn write_backend(images: &mut Value, processor: &Processor) {
    let class = images["image_processor_type"].as_str().unwrap_or("Qwen2VLImageProcessor");
    let class = class.trim_end_matches("Fast").trim_end_matches("Pil").to_owned();
    let is_named = named_backend(images) == Some(processor.backend);
    let Some(images) = images.as_object_mut() else { return };
    if !is_named {
        images.remove("use_fast");
        let class = match processor.backend {
            Backend::Torchvision => class + "Fast",
            Backend::Pil => {
                images.insert("use_fast".to_owned(), false.into());
                class
            }
        };
        images.insert("image_processor_type".to_owned(), class.into());
    }
    images.remove("image_alpha");
    if processor.alpha != processor.backend.alpha() {
        images.insert("image_alpha".to_owned(), processor.alpha.name().into());
    }
    images.remove("image_16_bit");
    if processor.grey != Image16Bit::Clip {
        images.insert("image_16_bit".to_owned(), processor.grey.name().into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use omr_base::config::ImageBackend;

    const GRID: PatchGrid = PatchGrid { patch_size: 14, temporal_patch_size: 2, merge_size: 2 };

    fn bare() -> Processor {
        Processor { backend: Backend::Torchvision, alpha: ImageAlpha::White, ..Processor::default() }
    }

    fn bounds([image_min_pixels, image_max_pixels]: [Option<usize>; 2]) -> ImageConfig {
        ImageConfig { image_min_pixels, image_max_pixels, ..ImageConfig::default() }
    }

    #[test]
    fn settings_are_read_by_either_name() {
        let processor = Processor { min_pixels: 784, max_pixels: 28 * 28 * 9, ..bare() };
        let bounds = json!({"min_pixels": 784, "max_pixels": 7056});
        assert_eq!(Processor::from_json(&bounds, "here").unwrap(), processor);
        let size = json!({"size": {"shortest_edge": 784, "longest_edge": 7056}});
        assert_eq!(Processor::from_json(&size, "here").unwrap(), processor);
        let of_size = json!({"size": {"min_pixels": 784, "max_pixels": 7056, "height": null}});
        assert_eq!(Processor::from_json(&of_size, "here").unwrap(), processor);
        assert_eq!(Processor::from_json(&json!({}), "here").unwrap(), bare());
    }

    #[test]
    fn fields_of_size_that_are_not_read_are_refused_and_unknown_fields_are_named() {
        let error =
            Processor::from_json(&json!({"size": {"height": 56, "width": 56}}), "here").unwrap_err().to_string();
        assert!(error.starts_with("here: size.height: found 56"), "{error}");
        // As transformers 5.24 writes it.
        let written = json!({"crop_size": null, "data_format": "channels_first", "default_to_square": false, "do_pad": null,
            "do_resize": true, "image_processor_type": "Qwen2VLImageProcessor", "size": {"longest_edge": 1, "shortest_edge": 1}});
        assert!(unread(&written).is_empty());
        assert_eq!(unread(&json!({"patch_size": 14, "tiles": 4, "crops": null})), ["tiles"]);
    }

    #[test]
    fn bounds_are_written_in_the_form_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let [alone, nesting] = ["preprocessor_config.json", "processor_config.json"].map(path);
        let both = json!({"max_pixels": 9000, "size": {"longest_edge": 9000, "shortest_edge": 784}, "min_pixels": 784});
        for (was, is) in [
            (json!({}), json!({"min_pixels": 800, "max_pixels": 9999})),
            (json!({"size": both["size"]}), json!({"size": {"longest_edge": 9999, "shortest_edge": 800}})),
            (
                json!({"min_pixels": null, "size": both["size"], "resample": 3}),
                json!({"min_pixels": null, "size": {"longest_edge": 9999, "shortest_edge": 800}, "resample": 3}),
            ),
            (
                both.clone(),
                json!({"max_pixels": 9999, "size": {"longest_edge": 9999, "shortest_edge": 800}, "min_pixels": 800}),
            ),
        ] {
            let [was, is] = [was, is].map(|mut images| {
                images["image_processor_type"] = "ImagesPil".into();
                images
            });
            std::fs::write(&alone, was.to_string()).unwrap();
            std::fs::write(&nesting, json!({"image_processor": was, "video_processor": {"fps": 2}}).to_string())
                .unwrap();
            write(dir.path(), &bounds([Some(800), Some(9999)])).unwrap();
            assert_eq!(files::json::read::<Value>(&alone).unwrap(), is);
            let nested = json!({"image_processor": is, "video_processor": {"fps": 2}});
            assert_eq!(files::json::read::<Value>(&nesting).unwrap(), nested);
        }
        // A file that has the settings keeps its bytes, and so does one without image settings.
        let mut both = both;
        both["image_processor_type"] = "ImagesFast".into();
        for (file, text) in [(&alone, both.to_string()), (&nesting, "{\"processor_class\":  \"P\"}".to_owned())] {
            std::fs::write(file, &text).unwrap();
            [[None, None], [Some(784), None], [None, Some(9000)], [Some(784), Some(9000)]]
                .into_iter()
                .for_each(|pixels| write(dir.path(), &bounds(pixels)).unwrap());
            assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        }
    }

    #[test]
    fn the_class_or_use_fast_names_the_library() {
        for (file, expected) in [
            (json!({"image_processor_type": "Qwen2VLImageProcessor"}), Backend::Torchvision),
            (json!({"image_processor_type": "Qwen2VLImageProcessorFast"}), Backend::Torchvision),
            (json!({"image_processor_type": "Qwen2VLImageProcessorPil"}), Backend::Pil),
            (json!({"image_processor_type": "Qwen2VLImageProcessor", "use_fast": true}), Backend::Torchvision),
            (json!({"image_processor_type": "Qwen2VLImageProcessor", "use_fast": false}), Backend::Pil),
            (json!({"use_fast": null}), Backend::Torchvision),
        ] {
            assert_eq!(Processor::from_json(&file, "here").unwrap().backend, expected, "{file}");
        }
    }

    #[test]
    fn a_written_directory_names_the_library_that_made_its_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("preprocessor_config.json");
        let (class, of) = ("image_processor_type", |ending: &str| format!("Qwen2VLImageProcessor{ending}"));
        let pil = json!({class: of(""), "use_fast": false});
        let pil_on_white = json!({class: of("Pil"), "image_alpha": "white"});
        for (was, backend, alpha, is) in [
            (json!({}), ImageBackend::Auto, None, json!({class: of("Fast")})),
            (json!({class: of("")}), ImageBackend::Auto, None, json!({class: of("Fast")})),
            (json!({class: of("Fast")}), ImageBackend::Pil, None, pil.clone()),
            (json!({class: of(""), "use_fast": true}), ImageBackend::Pil, None, pil.clone()),
            (json!({class: of("Pil")}), ImageBackend::Auto, None, json!({class: of("Pil")})),
            (json!({class: of("Pil")}), ImageBackend::Auto, Some(ImageAlpha::White), pil_on_white.clone()),
            (pil_on_white, ImageBackend::Torchvision, None, json!({class: of("Fast")})),
            (pil, ImageBackend::Torchvision, None, json!({class: of("Fast")})),
        ] {
            std::fs::write(&path, was.to_string()).unwrap();
            let images = ImageConfig { image_backend: backend, image_alpha: alpha, ..ImageConfig::default() };
            let expected = Processor::load(dir.path(), GRID).unwrap().with(&images).unwrap();
            write(dir.path(), &images).unwrap();
            assert_eq!(files::json::read::<Value>(&path).unwrap(), is, "{was}");
            assert_eq!(Processor::load(dir.path(), GRID).unwrap(), expected, "{was}");
        }
    }

    #[test]
    fn settings_nested_as_transformers_5_saves_them_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let processor = Processor { min_pixels: 784, image_mean: [0.5, 0.25, 0.125], ..bare() };
        let nested = dir.path().join("processor_config.json");
        std::fs::write(&nested, json!({"processor_class": "Qwen2_5_VLProcessor"}).to_string()).unwrap();
        let error = Processor::load(dir.path(), GRID).unwrap_err();
        assert!(
            Processor::file(dir.path()).unwrap().is_none() && error.to_string().contains("preprocessor_config"),
            "{error}"
        );
        let settings = json!({"min_pixels": 784, "image_mean": [0.5, 0.25, 0.125]});
        let mut file = json!({"image_processor": settings, "video_processor": {}});
        std::fs::write(&nested, file.to_string()).unwrap();
        assert_eq!(Processor::load(dir.path(), GRID).unwrap(), processor);
        file["image_processor"]["patch_size"] = json!("14");
        std::fs::write(&nested, file.to_string()).unwrap();
        let error = Processor::load(dir.path(), GRID).unwrap_err().to_string();
        assert!(error.contains("processor_config.json: image_processor: patch_size"), "{error}");
        file["image_processor"]["patch_size"] = json!(16);
        std::fs::write(&nested, file.to_string()).unwrap();
        let error = Processor::load(dir.path(), GRID).unwrap_err().to_string();
        assert!(error.ends_with("image_processor: patch_size: found 16, expected 14, as in config.json"), "{error}");
        let alone = Processor { min_pixels: 3136, ..processor };
        std::fs::write(
            dir.path().join("preprocessor_config.json"),
            r#"{"min_pixels": 3136, "image_mean": [0.5, 0.25, 0.125]}"#,
        )
        .unwrap();
        assert_eq!(Processor::load(dir.path(), GRID).unwrap(), alone);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (key, value) in [
            ("patch_size", json!(0)),
            ("merge_size", json!("2")),
            ("min_pixels", json!(-1)),
            ("max_pixels", json!(1u64 << 40)),
            ("image_std", json!([1.0, 0.0, 1.0])),
            ("image_mean", json!([1.0])),
            ("do_resize", json!(false)),
            ("resample", json!(2)),
            ("rescale_factor", json!("x")),
            ("image_alpha", json!("black")),
            ("size", json!(56)),
            ("do_center_crop", json!(true)),
        ] {
            let error = Processor::from_json(&json!({key: value}), "here").unwrap_err().to_string();
            assert!(error.starts_with(&format!("here: {key}: found {value}")), "{error}");
        }
        let error = Processor::from_json(&json!({"min_pixels": 8, "max_pixels": 4}), "here").unwrap_err();
        assert!(error.to_string().contains("above max_pixels 4"), "{error}");
    }
}
