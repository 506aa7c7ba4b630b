//! The image processor of Qwen2.5-VL and Qwen3-VL: reads `preprocessor_config.json`, computes resized sizes and patches.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ImageInput, MediaFormat, PatchGrid, Rgb, resize};
use crate::error::{Error, Result};
use crate::files;
use crate::hub::base_model;

/// Settings of `preprocessor_config.json`, with Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// Side of a patch in pixels.
    pub patch_size: u32,
    /// Number of patches along each side that the model merges into one token.
    pub merge_size: u32,
    /// Number of frames per patch.
    pub temporal_patch_size: u32,
    /// Minimum area after resizing, in pixels.
    pub min_pixels: u64,
    /// Maximum area after resizing, in pixels.
    pub max_pixels: u64,
    /// Mean of each channel, for values from 0 to 1.
    pub image_mean: [f32; 3],
    /// Standard deviation of each channel.
    pub image_std: [f32; 3],
    /// Factor that bytes are multiplied by.
    pub rescale_factor: f64,
}

impl Default for Processor {
    /// Returns the settings of the released Qwen2.5-VL models.
    fn default() -> Processor {
        Processor {
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 16384,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.261_302_6, 0.275_777_1],
            rescale_factor: 1.0 / 255.0,
        }
    }
}

impl Processor {
    /// Returns the settings of the released models with these patches: those of Qwen3-VL if a patch is 16 pixels wide,
    /// otherwise those of Qwen2.5-VL.
    pub fn released(grid: PatchGrid) -> Processor {
        let (default, half) = (Processor::default(), [0.5; 3]);
        match grid.patch_size {
            16 => Processor {
                patch_size: 16,
                min_pixels: 256 * 256,
                max_pixels: 4096 * 4096,
                image_mean: half,
                image_std: half,
                ..default
            },
            _ => default,
        }
    }

    /// Loads the processor of the model in `dir` with other bounds on the pixels (see [`Processor::within`]). Returns
    /// `None` if `media` is `None`: a text model has no processor, and bounds are then an error.
    pub fn of_model(dir: &Path, media: Option<MediaFormat>, pixels: [Option<usize>; 2]) -> Result<Option<Processor>> {
        match media {
            Some(media) => Processor::load(dir, media.grid)?.within(pixels).map(Some),
            None => match pixels.iter().flatten().next() {
                Some(bound) => {
                    let expected = format!("no bound: {} is a text model", dir.display());
                    Err(Error::input("image_min_pixels and image_max_pixels", bound.to_string(), expected))
                }
                None => Ok(None),
            },
        }
    }

    /// Loads the settings of a model directory (see [`Processor::file`]). Returns an error if the sizes of patches
    /// differ from those of the model, `grid`.
    pub fn load(dir: &Path, grid: PatchGrid) -> Result<Processor> {
        let file = Processor::file(dir)?.unwrap_or_else(|| dir.join("preprocessor_config.json"));
        let config = read(&file)?;
        let place = file.display().to_string();
        let (processor, place) = match config.get("image_processor") {
            Some(images) => {
                let place = format!("{place}: image_processor");
                (Processor::from_json(images, &place)?, place)
            }
            None => (Processor::from_json(&config, &place)?, place),
        };
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
        let nested = |file: &Path| {
            let config = files::read(file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            config.is_some_and(|config| config.get("image_processor").is_some())
        };
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

    /// Returns the settings with other bounds on the pixels after resizing: minimum, maximum. `None` keeps the current
    /// bound. Returns an error if the minimum exceeds the maximum.
    pub fn within(mut self, [min, max]: [Option<usize>; 2]) -> Result<Processor> {
        self.min_pixels = min.map_or(self.min_pixels, |p| p as u64);
        self.max_pixels = max.map_or(self.max_pixels, |p| p as u64);
        let Processor { min_pixels, max_pixels, .. } = self;
        if min_pixels <= max_pixels {
            return Ok(self);
        }
        let expected = format!("at most image_max_pixels, which is {max_pixels}");
        let hint = "a bound that is not set is the one in the model's preprocessor_config.json";
        Err(Error::input_hint("image_min_pixels", min_pixels.to_string(), expected, hint))
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
        let size = |key: &str, edge: &str, default: u64| {
            let of_size = get("size").and_then(|s| s.get(edge)).filter(|v| !v.is_null());
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
        let default = Processor::default();
        let processor = Processor {
            patch_size: count("patch_size", default.patch_size)?,
            merge_size: count("merge_size", default.merge_size)?,
            temporal_patch_size: count("temporal_patch_size", default.temporal_patch_size)?,
            min_pixels: size("min_pixels", "shortest_edge", default.min_pixels)?,
            max_pixels: size("max_pixels", "longest_edge", default.max_pixels)?,
            image_mean: channels("image_mean", default.image_mean, false)?,
            image_std: channels("image_std", default.image_std, true)?,
            rescale_factor: match get("rescale_factor") {
                Some(value) => value.as_f64().ok_or_else(|| wrong("rescale_factor", value, "a number"))?,
                None => default.rescale_factor,
            },
        };
        if processor.min_pixels > processor.max_pixels {
            let found = format!("{}, above max_pixels {}", processor.min_pixels, processor.max_pixels);
            return Err(Error::input(format!("{place}: min_pixels"), found, "at most max_pixels"));
        }
        Ok(processor)
    }

    /// Resizes an image to model input.
    pub fn image(&self, image: &Rgb) -> Result<ImageInput> {
        let [h, w] = self.grid(image.width, image.height)?;
        let pixels = resize(image, w * self.patch_size, h * self.patch_size).data;
        Ok(ImageInput::image([h, w], pixels))
    }

    /// Joins the frames of a video, each resized by [`Processor::image`]. The last frame is repeated to a multiple of
    /// `temporal_patch_size`. `fps` is the number of frames per second. Returns an error if there are no frames or
    /// their sizes differ.
    pub fn video(&self, frames: &[ImageInput], fps: f64) -> Result<ImageInput> {
        let Some(([_, h, w], last)) = frames.first().map(|first| first.grid_thw).zip(frames.last()) else {
            return Err(Error::input("video", "no frames", "at least one frame"));
        };
        let side = self.patch_size;
        let other = frames.iter().enumerate().find(|(_, frame)| frame.grid_thw != [1, h, w]);
        if let Some((i, frame)) = other {
            let [_, other_h, other_w] = frame.grid_thw;
            let found = format!("{} x {} pixels", other_w * side, other_h * side);
            let expected = format!("{} x {}, the size of the first frame", w * side, h * side);
            return Err(Error::input(format!("frame {i} of a video"), found, expected));
        }
        let t = u32::try_from(frames.len()).unwrap_or(u32::MAX).div_ceil(self.temporal_patch_size);
        let total = t * self.temporal_patch_size;
        let padding = std::iter::repeat_n(last, total as usize - frames.len());
        let pixels = frames.iter().chain(padding).flat_map(|frame| &frame.pixels).copied().collect();
        let second_per_grid_ts = f64::from(self.temporal_patch_size) / fps;
        Ok(ImageInput { grid_thw: [t, h, w], frames: total, pixels, second_per_grid_ts })
    }

    /// Returns the number of patches along height and width of an image of this size after resizing.
    pub fn grid(&self, width: u32, height: u32) -> Result<[u32; 2]> {
        let factor = self.patch_size * self.merge_size;
        let (height, width) = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)?;
        Ok([height / self.patch_size, width / self.patch_size])
    }
}

fn read(file: &Path) -> Result<Value> {
    let text = files::read(file).map_err(Error::io(file))?;
    serde_json::from_slice(&text).map_err(|e| Error::format(file, e.to_string()))
}

/// Writes other bounds on the pixels after resizing (minimum, maximum) into the files of image settings in `dir`, in the
/// form of each file: as `min_pixels` and `max_pixels`, as edges of `size`, or as both. A file that has these bounds, and
/// every file if both are `None`, keeps its bytes.
pub fn write_bounds(dir: &Path, pixels: [Option<usize>; 2]) -> Result<()> {
    for file in ["preprocessor_config.json", "processor_config.json"].map(|name| dir.join(name)) {
        if pixels == [None, None] || !file.exists() {
            continue;
        }
        let mut config = read(&file)?;
        let images = match config.get("image_processor") {
            Some(_) => &mut config["image_processor"],
            None if file.ends_with("preprocessor_config.json") => &mut config,
            None => continue,
        };
        let was = Processor::from_json(images, &file.display().to_string())?;
        let is = was.clone().within(pixels)?;
        if was == is {
            continue;
        }
        for (key, edge, pixels) in
            [("min_pixels", "shortest_edge", is.min_pixels), ("max_pixels", "longest_edge", is.max_pixels)]
        {
            let of_size = images.get_mut("size").and_then(|size| size.get_mut(edge));
            let is_in_size = of_size.map(|bound| *bound = pixels.into()).is_some();
            if !is_in_size || images.get(key).is_some_and(|bound| !bound.is_null()) {
                images[key] = pixels.into();
            }
        }
        files::write(&file, format!("{config:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Upper bound of `min_pixels` and `max_pixels`, so that areas and coordinates stay well within 32 bits.
const MAX_PIXELS: u64 = 1 << 30;
/// Maximum aspect ratio, in either direction, that the processor accepts.
const MAX_RATIO: f64 = 200.0;

/// Returns the size (height, width) to resize to. Both are multiples of `factor` near the given size, their area is
/// within the bounds, and the aspect ratio is kept as closely as possible. Halves round to even.
pub fn smart_resize(height: u32, width: u32, factor: u32, min_pixels: u64, max_pixels: u64) -> Result<(u32, u32)> {
    let (h, w, f) = (f64::from(height), f64::from(width), f64::from(factor));
    if height == 0 || width == 0 || h.max(w) / h.min(w) > MAX_RATIO {
        let found = format!("{width} x {height} pixels");
        return Err(Error::input("image", found, format!("an aspect ratio of at most {MAX_RATIO}")));
    }
    let fit = |scale: &dyn Fn(f64) -> f64| (scale(h) * f, scale(w) * f);
    let mut size = fit(&|side| (side / f).round_ties_even());
    if size.0 * size.1 > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        size = fit(&|side| (side / beta / f).floor().max(1.0));
    } else if size.0 * size.1 < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        size = fit(&|side| (side * beta / f).ceil());
    }
    Ok((size.0 as u32, size.1 as u32))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRID: PatchGrid = PatchGrid { patch_size: 14, temporal_patch_size: 2, merge_size: 2 };

    fn image(width: u32, height: u32, seed: u32) -> Rgb {
        let data = (0..width * height * 3).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Rgb { width, height, data }
    }

    #[test]
    fn settings_are_read_by_either_name() {
        let processor = Processor { min_pixels: 784, max_pixels: 28 * 28 * 9, ..Processor::default() };
        let bounds = json!({"min_pixels": 784, "max_pixels": 7056});
        assert_eq!(Processor::from_json(&bounds, "here").unwrap(), processor);
        let size = json!({"size": {"shortest_edge": 784, "longest_edge": 7056}});
        assert_eq!(Processor::from_json(&size, "here").unwrap(), processor);
        assert_eq!(Processor::from_json(&json!({}), "here").unwrap(), Processor::default());
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
            std::fs::write(&alone, was.to_string()).unwrap();
            std::fs::write(&nesting, json!({"image_processor": was, "video_processor": {"fps": 2}}).to_string())
                .unwrap();
            write_bounds(dir.path(), [Some(800), Some(9999)]).unwrap();
            assert_eq!(read(&alone).unwrap().to_string(), is.to_string());
            let nested = json!({"image_processor": is, "video_processor": {"fps": 2}});
            assert_eq!(read(&nesting).unwrap().to_string(), nested.to_string());
        }
        // A file that has the bounds keeps its bytes, and so does one without image settings.
        for (file, text) in [(&alone, both.to_string()), (&nesting, "{\"processor_class\":  \"P\"}".to_owned())] {
            std::fs::write(file, &text).unwrap();
            [[None, None], [Some(784), None], [None, Some(9000)], [Some(784), Some(9000)]]
                .into_iter()
                .for_each(|pixels| write_bounds(dir.path(), pixels).unwrap());
            assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        }
    }

    #[test]
    fn settings_nested_as_transformers_5_saves_them_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let processor = Processor { min_pixels: 784, image_mean: [0.5, 0.25, 0.125], ..Processor::default() };
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
        ] {
            let error = Processor::from_json(&json!({key: value}), "here").unwrap_err().to_string();
            assert!(error.starts_with(&format!("here: {key}: found {value}")), "{error}");
        }
        let error = Processor::from_json(&json!({"min_pixels": 8, "max_pixels": 4}), "here").unwrap_err();
        assert!(error.to_string().contains("above max_pixels 4"), "{error}");
    }

    #[test]
    fn a_video_pads_its_last_frame() {
        let processor = Processor { min_pixels: 784, ..Processor::default() };
        let frames: Vec<ImageInput> = (0..3).map(|i| processor.image(&image(56, 28, i)).unwrap()).collect();
        let video = processor.video(&frames, 0.5).unwrap();
        assert_eq!((video.grid_thw, video.frames, video.tokens(2)), ([2, 2, 4], 4, 4));
        assert_eq!(video.second_per_grid_ts, 4.0);
        let frame_len = 56 * 28 * 3;
        assert_eq!(video.pixels[2 * frame_len..3 * frame_len], video.pixels[3 * frame_len..]);

        let odd = [image(56, 28, 0), image(28, 56, 0)].map(|frame| processor.image(&frame).unwrap());
        assert!(processor.video(&odd, 2.0).unwrap_err().to_string().starts_with("frame 1"));
        assert!(processor.video(&[], 2.0).is_err());
    }
}
