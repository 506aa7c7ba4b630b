//! Image embeddings from a model's vision tower: the mean of the tower's output rows, normalized to length 1, in f16.
//! They are stored in a file next to the hashes. Each embedding is stored once, under a hash of the image's content, so
//! a resumed run computes only the missing ones.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};

use omr_base::config::Dtype;
use omr_base::error::{Error, Result};
use omr_base::identity;
use omr_data::image::{Backend, Grid, ImageInput, Processor, Rgb, resize};
use omr_model::nn::vision::CHUNK_PATCHES;
use omr_model::nn::{MediaConfig, Mode, ModelConfig, ParamLayout, Tape, VisionTower};
use omr_runtime::device::{Device, MappedFile, Plan, Region, Target};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::{DType, Elem};

/// Approximate number of pixels to which every image is resized for the tower. The original resolution then has no
/// influence, and every image takes about the same time.
const PIXELS: f64 = 448.0 * 448.0;
/// Maximum number of merged patches per side of an image (each becomes one row of the tower's output). Longer images
/// are squeezed.
const LONGEST: f64 = 64.0;
/// Number of bytes of a key. A key is a truncated hash of the model, the device and the pixels.
const KEY: usize = 16;

type Key = [u8; KEY];

/// Vision settings of a model directory.
pub struct Tower {
    dir: PathBuf,
    config: MediaConfig,
    processor: Processor,
}

impl Tower {
    /// Reads the settings. Returns an error if the directory does not exist or the model has no vision tower.
    pub fn of(dir: &Path) -> Result<Tower> {
        let config = ModelConfig::load(&dir.join("config.json"))?.media;
        let config = config.ok_or_else(|| Error::input(dir, "a text model", "a model with a vision tower"))?;
        let processor = Processor::load(dir, config.grid)?;
        Ok(Tower { dir: dir.to_owned(), config, processor })
    }

    /// Returns the number of elements of an embedding.
    pub fn width(&self) -> usize {
        self.config.tower.row_width()
    }

    /// Returns the number of rows that the tower outputs for an image.
    fn rows(&self, image: &ImageInput) -> usize {
        image.tokens(self.config.grid.merge_size as u32)
    }

    /// Resizes an image for the tower.
    fn image(&self, image: &Rgb) -> ImageInput {
        let (merge, patch) = (self.config.grid.merge_size as u32, self.config.grid.patch_size as u32);
        let ratio = f64::from(image.width) / f64::from(image.height);
        let row = f64::from(merge * patch);
        let side = |ratio: f64| ((PIXELS * ratio).sqrt() / row).round().clamp(1.0, LONGEST) as u32 * merge;
        let [h, w] = [side(1.0 / ratio), side(ratio)];
        ImageInput::image([h, w], resize(image, w * patch, h * patch, Backend::Pil).data)
    }

    /// Returns the bytes that each memory region needs, measured on a counting device.
    fn plan(&self, target: Target) -> Result<Plan> {
        let mut dev = Device::count_for(target);
        let dtype = DType::of(Dtype::Auto, dev.kind());
        let vision = VisionTower::new(&mut dev, &mut ParamLayout::new(dtype), &self.config)?;
        // For the same number of patches, images of one merged patch each have the most attention windows, so they are
        // the worst case.
        let merge = self.config.grid.merge_size;
        let smallest = Grid::image(merge as u16, merge as u16);
        let smallest = Arc::new(ImageInput::blank(smallest, self.config.grid.patch_size));
        self.encode(&mut dev, &vision, &vec![smallest; CHUNK_PATCHES / (merge * merge)])?;
        Ok(dev.high_water())
    }

    /// Returns the tower's output rows for some images, in f32, one image after another.
    fn encode(&self, dev: &mut Device, vision: &VisionTower, images: &[Arc<ImageInput>]) -> Result<Vec<f32>> {
        let rows = images.iter().map(|image| self.rows(image)).sum();
        let dtype = DType::of(Dtype::Auto, dev.kind());
        dev.scope(Region::Workspace, |dev| {
            let out = dev.alloc(Region::Workspace, dtype, &[rows, self.width()])?;
            let mut tape = Tape::new(dev, Mode::Infer);
            let done = vision.forward(&mut tape, dev, images, out);
            tape.finish(dev);
            done.and_then(|_| match dtype {
                DType::Bf16 => Ok(dev.read::<bf16>(out)?.into_iter().map(Elem::to_f32).collect()),
                _ => dev.read::<f32>(out),
            })
        })
    }

    /// Loads the tower and opens the file of embeddings at `path`. Cuts off an incomplete record that a killed run
    /// left.
    pub fn start(&self, machine: &Machine, path: PathBuf) -> Result<Embedder<'_>> {
        let mut dev = (machine.device)(&self.plan(machine.target)?)?;
        let dtype = DType::of(Dtype::Auto, dev.kind());
        let mut vision = VisionTower::load(&mut dev, &self.dir, &self.config, dtype)?;
        vision.processor = self.processor.clone();
        let who = format!("{} {dtype:?} {}", identity::of(&self.dir)?, dev.kind().name());
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(Error::io(&path))?;
        let record = KEY + 2 * self.width();
        let map = MappedFile::open(&path)?;
        let key = |(place, record): (usize, &[u8])| Some((*record.first_chunk()?, place as u32));
        let places: HashMap<Key, u32> = map.chunks_exact(record).enumerate().filter_map(key).collect();
        let count = map.len() / record;
        drop(map);
        file.set_len((count * record) as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Error::io(&path))?;
        let count = count as u32;
        Ok(Embedder { dev, vision, kept: Embedded { tower: self, who, places }, count, path, file })
    }
}

/// Stored embeddings, with everything needed to look them up.
pub struct Embedded<'a> {
    tower: &'a Tower,
    who: String,
    places: HashMap<Key, u32>,
}

/// Lookup of an image: its key, and the resized image if no embedding is stored.
pub type Lookup = (Key, Option<Arc<ImageInput>>);

impl Embedded<'_> {
    /// Looks up the embedding of an image.
    pub fn seen(&self, image: &Rgb) -> Lookup {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.who.as_bytes()).update(&image.width.to_le_bytes()).update(&image.data);
        let key = hasher.finalize().as_bytes()[..KEY].try_into().unwrap_or_default();
        (key, (!self.places.contains_key(&key)).then(|| Arc::new(self.tower.image(image))))
    }
}

/// The loaded vision tower, which computes missing embeddings.
pub struct Embedder<'a> {
    dev: Device,
    vision: VisionTower,
    /// Stored embeddings.
    pub kept: Embedded<'a>,
    count: u32,
    path: PathBuf,
    file: File,
}

impl Embedder<'_> {
    /// Returns the positions of the embeddings of some images in the file, and computes the missing ones.
    pub fn places(&mut self, seen: &[&Lookup]) -> Result<Vec<u32>> {
        let (mut group, mut patches): (Vec<(Key, Arc<ImageInput>)>, usize) = (Vec::new(), 0);
        for (key, image) in seen {
            let Some(image) = image.as_ref().filter(|_| group.iter().all(|(other, _)| other != key)) else { continue };
            let size = image.grid_thw.iter().map(|&n| n as usize).product::<usize>();
            if patches + size > CHUNK_PATCHES {
                self.make(&std::mem::take(&mut group))?;
                patches = 0;
            }
            if !self.kept.places.contains_key(key) {
                patches += size;
                group.push((*key, image.clone()));
            }
        }
        self.make(&group)?;
        let lost = || Error::Failed("an image was not embedded".to_owned());
        seen.iter().map(|(key, _)| self.kept.places.get(key).copied().ok_or_else(lost)).collect()
    }

    fn make(&mut self, group: &[(Key, Arc<ImageInput>)]) -> Result<()> {
        let images: Vec<Arc<ImageInput>> = group.iter().map(|(_, image)| image.clone()).collect();
        if images.is_empty() {
            return Ok(());
        }
        let (tower, width) = (self.kept.tower, self.kept.tower.width());
        let rows = tower.encode(&mut self.dev, &self.vision, &images)?;
        let mut rest = &rows[..];
        let mut bytes = Vec::with_capacity(group.len() * (KEY + 2 * width));
        for (key, image) in group {
            let (own, after) = rest.split_at(tower.rows(image) * width);
            rest = after;
            bytes.extend(key);
            let mean = mean(own, width).ok_or_else(|| {
                Error::format(&tower.dir, "a vision tower whose output for an image is zero or not finite")
            })?;
            bytes.extend(mean.into_iter().flat_map(f16::to_le_bytes));
        }
        self.file.write_all(&bytes).map_err(Error::io(&self.path))?;
        for (key, _) in group {
            self.kept.places.insert(*key, self.count);
            self.count += 1;
        }
        Ok(())
    }
}

/// Returns the mean of rows of `width`, normalized to length 1, or `None` if it is zero or not finite.
fn mean(rows: &[f32], width: usize) -> Option<Vec<f16>> {
    let mut sums = vec![0f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    (length.is_finite() && length > 0.0).then(|| sums.iter().map(|sum| f16::from_f64(sum / length)).collect())
}

/// Position of an embedding.
#[derive(Clone, Copy)]
pub struct EmbeddingPlace {
    /// Number of the file.
    pub file: u32,
    /// Number of the embedding in the file.
    pub place: u32,
}

/// Files of embeddings opened for reading, one for each file of hashes.
pub struct Embeddings {
    files: Vec<(PathBuf, MappedFile)>,
    width: usize,
}

impl Embeddings {
    /// Opens the files `paths`, whose embeddings have `width` elements.
    pub fn open(paths: &[PathBuf], width: usize) -> Result<Embeddings> {
        let files = paths.iter().map(|path| Ok((path.clone(), MappedFile::open(path)?))).collect::<Result<_>>()?;
        Ok(Embeddings { files, width })
    }

    /// Returns an error if the file has no embedding at this position.
    pub fn check(&self, EmbeddingPlace { file, place }: EmbeddingPlace) -> Result<()> {
        let (path, map) = &self.files[file as usize];
        if map.len() / (KEY + 2 * self.width) > place as usize {
            return Ok(());
        }
        Err(Error::format(path, format!("no image {place}; delete this file and the hash files next to it")))
    }

    /// Reads an embedding and normalizes it again, because rounding to f16 changed its length. The rounding also turns
    /// each embedding by an angle of at most 2^-11. A cosine near 0.99 is therefore accurate to 0.00014.
    pub fn read(&self, EmbeddingPlace { file, place }: EmbeddingPlace) -> Vec<f32> {
        let start = place as usize * (KEY + 2 * self.width) + KEY;
        let bytes = self.files[file as usize].1[start..start + 2 * self.width].chunks_exact(2);
        let mut out: Vec<f32> = bytes.map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect();
        let squares: f64 = out.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        out.iter_mut().for_each(|x| *x *= (1.0 / squares.sqrt()) as f32);
        out
    }
}
