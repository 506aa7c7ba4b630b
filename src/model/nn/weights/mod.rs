//! Reads weights from memory-mapped safetensors files, from one file or from shards, with the tensor names of the released
//! checkpoints or of newer transformers versions.

pub mod layout;
pub mod linear_layer;
pub mod outgoing;
pub mod params;
pub mod part;
pub mod quantize;
pub(crate) mod reading;
pub(crate) mod stored_codes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use self::layout::ParamLayout;
use self::params::Piece;
use self::stored_codes::{FileTensor, SCALE, STATE, StoredCodes, matrix_of};
use crate::nn::config::{Family, Measured, SizeCheck};
use crate::nn::family::names::released_name;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::{Observer, Silent};
use omr_runtime::device::{Device, MappedFile};
use omr_runtime::tensor::DType;

/// Name of the single weight file.
pub(super) const SINGLE: &str = "model.safetensors";

pub use omr_base::hub::base_model::ADAPTER;

/// Name of the index that lists the shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a model directory, memory-mapped.
pub struct WeightFiles {
    pub(super) dir: PathBuf,
    pub(super) files: Vec<Shard>,
    pub(super) tensors: BTreeMap<String, Stored>,
    /// The `__metadata__` entries of the headers.
    notes: BTreeMap<String, String>,
    /// A remark about the index.
    remark: Option<String>,
}

pub(super) struct Shard {
    /// File name without its directory.
    pub(super) name: String,
    pub(super) map: MappedFile,
}

pub(super) struct Stored {
    pub(super) file: usize,
    pub(super) dtype: Dtype,
    shape: Vec<usize>,
    pub(super) bytes: std::ops::Range<usize>,
}

/// Returns true if a model directory contains weights, an adapter, or an index that names them.
pub fn exist_in(dir: &Path) -> bool {
    [SINGLE, INDEX, ADAPTER].iter().any(|name| dir.join(name).exists())
}

impl WeightFiles {
    /// Opens the weights in `dir`: `model.safetensors`, or the shards that its index names. Errors on a missing,
    /// truncated or broken file.
    pub fn open(dir: &Path) -> Result<WeightFiles> {
        if dir.join(SINGLE).exists() {
            return WeightFiles::open_files(dir, &[dir.join(SINGLE)]);
        }
        let index = dir.join(INDEX);
        if !index.exists() {
            let expected = format!("{SINGLE} or {INDEX}");
            if dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists() {
                let hint = "convert them: AutoModel.from_pretrained(DIR).save_pretrained(NEW) in transformers";
                return Err(Error::input_hint(dir, "weights as pytorch_model.bin", expected, hint));
            }
            return Err(Error::input(dir, "no weights", expected));
        }
        let value: Value = files::json::read(&index)?;
        let map = value["weight_map"].as_object().ok_or_else(|| Error::format(&index, "no object at /weight_map"))?;
        let wrong = |name, file| format!("/weight_map gives {file} for {name}, expected the name of a file");
        let named = |(name, file)| Value::as_str(file).ok_or_else(|| Error::format(&index, wrong(name, file)));
        let names: BTreeSet<&str> = map.iter().map(named).collect::<Result<_>>()?;
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some((**name).as_ref())) {
            let what = format!("/weight_map contains {name:?}, which is not a plain file name");
            return Err(Error::format(&index, what));
        }
        let missing: Vec<&str> = names.iter().copied().filter(|name| !dir.join(name).exists()).collect();
        if !missing.is_empty() {
            let what = format!("{} of the {} files in its weight_map are missing: ", missing.len(), names.len());
            return Err(Error::format(&index, what + &missing.join(", ")));
        }
        let mut weights = WeightFiles::empty(dir);
        names.iter().try_for_each(|name| weights.add(&dir.join(name), map))?;
        let lost: Vec<String> =
            map.keys().filter(|key| !weights.tensors.contains_key(&released_name(key))).cloned().collect();
        if !lost.is_empty() {
            let what = format!("{} tensors are missing from the files that weight_map gives for them: ", lost.len());
            return Err(Error::format(&index, what + &first_few(&lost)));
        }
        // Nobody else reads it, and programs that merge models write wrong ones.
        let (declared, have) = (value["metadata"]["total_size"].as_u64(), weights.bytes());
        let what = |declared| format!("{INDEX}: total_size is {declared}, but the files contain {have} bytes");
        weights.remark = declared.filter(|&declared| declared != have).map(what);
        Ok(weights)
    }

    fn empty(dir: &Path) -> WeightFiles {
        let (tensors, notes) = (BTreeMap::new(), BTreeMap::new());
        WeightFiles { dir: dir.to_owned(), files: Vec::new(), tensors, notes, remark: None }
    }

    /// Returns the number of bytes of all tensors.
    fn bytes(&self) -> u64 {
        self.tensors.values().map(|stored| stored.bytes.len() as u64).sum()
    }

    /// Compares sizes from the file `config` with the headers of the weights in `dir`. Does nothing if weights are missing,
    /// because loading them reports that as an error.
    pub fn check_sizes(dir: &Path, config: &Path, sizes: &[SizeCheck]) -> Result<()> {
        let opened = WeightFiles::open(dir);
        // A pointer of Git LFS can be planned. All bytes of other files may be hashed before they are loaded.
        let is_there = dir.join(SINGLE).metadata().is_ok_and(|file| file.len() > 1024);
        let Ok(weights) = opened else { return if is_there { opened.map(drop) } else { Ok(()) } };
        let layers = |stack: &str| {
            let number = |name: &str| name.strip_prefix(stack)?.split('.').next()?.parse::<usize>().ok();
            weights.names().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
        };
        let wrong = |SizeCheck { key, declared, of }: &SizeCheck| {
            let have = match of {
                Measured::Layers(stack) => layers(stack),
                Measured::Side(name, side) => *weights.shape(name)?.get(*side)?,
            };
            (have != *declared).then(|| format!("{key} is {declared}, but the weights have {have}"))
        };
        let faults: Vec<String> = sizes.iter().filter_map(wrong).collect();
        if faults.is_empty() { Ok(()) } else { Err(Error::format(config, faults.join("; "))) }
    }

    /// Returns the shape of the tensor `name`, or that of the matrix whose codes it contains.
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let state = self.tensors.get(&format!("{name}{STATE}"));
        let of_codes = state.and_then(|state| stored_codes::shape(self.view(state).bytes));
        of_codes.or_else(|| Some(self.tensors.get(name)?.shape.clone()))
    }

    /// Returns true if the files have any matrix as codes.
    pub fn has_any_codes(&self) -> bool {
        self.names().any(|name| matrix_of(name).is_some())
    }

    /// Returns true if the files have the matrix `piece` as codes, in any shape.
    fn has_codes(&self, piece: &Piece) -> bool {
        [SCALE, STATE].iter().any(|end| self.tensors.contains_key(&format!("{}{end}", piece.name)))
    }

    /// Returns the codes of the matrix `piece`, or `None` if it is not quantised in the files. Errors name the tensor that
    /// does not fit.
    pub(super) fn codes(&self, piece: &Piece) -> Result<Option<StoredCodes<'_>>> {
        let find = |end: &str| {
            let stored = self.tensors.get(&format!("{}{end}", piece.name))?;
            Some(FileTensor { dtype: stored.dtype, shape: &stored.shape, bytes: self.view(stored).bytes })
        };
        let codes = StoredCodes::read(&piece.name, [piece.shape[0], piece.row_len()], &find);
        codes.map_err(|what| Error::format(&self.dir, what))
    }

    /// Opens safetensors files with arbitrary tensors.
    pub fn open_files(dir: &Path, files: &[PathBuf]) -> Result<WeightFiles> {
        let mut weights = WeightFiles::empty(dir);
        files.iter().try_for_each(|path| weights.add(path, &Map::new()))?;
        Ok(weights)
    }

    /// Adds a file. If a tensor is in several files, the one counts that `weight_map` names for it.
    fn add(&mut self, path: &Path, weight_map: &Map<String, Value>) -> Result<()> {
        let map = MappedFile::open(path)?;
        if map.starts_with(b"version https://git-lfs") {
            let (found, expected) = ("a pointer of Git LFS", "the weights themselves (git lfs pull fetches them)");
            return Err(Error::input(path.display().to_string(), found, expected));
        }
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::format(path, format!("an incomplete or damaged safetensors file: {e}")))?;
        let start = header + 8;
        // Of several tensors with one name, the library returns the last one.
        let text = String::from_utf8_lossy(&map[8..start]);
        if text.matches("\"data_offsets\"").count() > metadata.tensors().len() {
            let mut names = metadata.tensors().into_keys();
            let name = names.find(|name| text.matches(&format!("{name:?}")).count() > 1).unwrap_or_default();
            return Err(Error::format(path, format!("the name {name:?} stands twice in its header")));
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (name, info) in metadata.tensors() {
            let earlier = self.tensors.get(&released_name(&name)).map(|stored| self.files.get(stored.file));
            match (earlier, weight_map.get(&name).and_then(Value::as_str)) {
                (Some(Some(earlier)), Some(named)) if named == earlier.name => continue,
                (None, _) => {}
                (Some(Some(_)), Some(named)) if named == file => {}
                _ => return Err(Error::format(path, format!("{name} is stored twice"))),
            }
            let (from, to) = info.data_offsets;
            let stored = Stored {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: start + from..start + to,
            };
            self.tensors.insert(released_name(&name), stored);
        }
        self.notes.extend(metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        self.files.push(Shard { name: file, map });
        Ok(())
    }

    /// Returns the released names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns the metadata value that the files' headers have under `key`.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// Returns the type of a model that represents all weights exactly: bf16 if every weight is bf16 or a code, otherwise
    /// f32.
    pub fn dtype(&self) -> DType {
        let is_code = |name: &str, stored: &Stored| {
            stored.dtype == Dtype::I8 || stored.dtype == Dtype::U8 || matrix_of(name).is_some()
        };
        let is_bf16 = |(name, stored): (&String, &Stored)| stored.dtype == Dtype::BF16 || is_code(name, stored);
        if self.tensors.iter().all(is_bf16) { DType::Bf16 } else { DType::F32 }
    }

    /// Returns the tensor `name` of any type. Errors if it is absent or if its shape is not `shape`.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>> {
        let stored = self.tensors.get(name).ok_or_else(|| Error::format(&self.dir, format!("no tensor {name}")))?;
        if stored.shape != shape {
            return Err(Error::format(&self.dir, self.wrong_shape(name, stored, shape)));
        }
        Ok(self.view(stored))
    }

    fn wrong_shape(&self, name: &str, stored: &Stored, shape: &[usize]) -> String {
        format!("{name} in {} has shape {:?}, expected {shape:?}", self.files[stored.file].name, stored.shape)
    }

    fn view(&self, stored: &Stored) -> StoredTensor<'_> {
        StoredTensor { dtype: stored.dtype, bytes: &self.files[stored.file].map[stored.bytes.clone()] }
    }

    /// Copies every weight of `layout` to the device and reports the progress to `observer`, if this takes some seconds.
    /// Errors if tensors are missing, unknown, or have another shape or type; the error names the first few of them.
    pub fn load(&self, dev: &mut Device, layout: &ParamLayout, family: &Family, observer: &dyn Observer) -> Result<()> {
        self.check(layout, Some(family))?;
        self.remark.iter().for_each(|remark| observer.note(remark));
        self.fill(dev, layout, observer)
    }

    /// Does the same as [`WeightFiles::load`] for a layout that is only part of the model. Other tensors in the files
    /// are ignored.
    pub fn load_part(&self, dev: &mut Device, layout: &ParamLayout) -> Result<()> {
        self.check(layout, None)?;
        self.fill(dev, layout, &Silent)
    }

    /// Errors unless the files have the tensors of `layout` and no others, except those that `family` ignores. Without a
    /// family, other tensors are ignored.
    pub(super) fn check(&self, layout: &ParamLayout, family: Option<&Family>) -> Result<()> {
        let (mut missing, mut shapes, mut types) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        for (_, _, piece) in layout.pieces() {
            known.insert(piece.name.as_str());
            match self.tensors.get(&piece.name) {
                None => missing.push(piece.name.clone()),
                Some(_) if self.has_codes(piece) => drop(self.codes(piece)?),
                Some(s) if s.shape != piece.shape => shapes.push(self.wrong_shape(&piece.name, s, &piece.shape)),
                Some(s) if !is_float(s.dtype) => types.push(format!("{} is {:?}", piece.name, s.dtype)),
                Some(_) => {}
            }
        }
        // Older files also contain the second name of a tied table.
        let is_tied = |name: &str| name == "lm_head.weight" && !known.contains(name);
        let is_ignored = |name: &str| {
            family.is_none_or(|family| is_tied(name) || family.ignores.iter().any(|end| name.ends_with(end)))
        };
        let table = known.iter().find(|name| name.ends_with("embed_tokens.weight")).copied().unwrap_or_default();
        let [head, table] = ["lm_head.weight", table].map(|name| self.tensors.get(name).map(|s| self.view(s).bytes));
        let differs = || head.zip(table).is_some_and(|(head, table)| head != table);
        if family.is_some() && is_tied("lm_head.weight") && differs() {
            let fault = "lm_head.weight differs from the token table, but tie_word_embeddings is true in config.json";
            return Err(Error::format(&self.dir, fault));
        }
        let is_known = |name: &str| known.contains(name) || matrix_of(name).is_some_and(|name| known.contains(name));
        let extra = self.names().filter(|name| !is_known(name) && !is_ignored(name)).map(str::to_owned).collect();
        let faults: [(&str, Vec<String>); 4] = [
            ("missing", missing),
            ("unknown", extra),
            ("with a shape that differs from config.json", shapes),
            ("with a type other than F32, BF16 or F16", types),
        ];
        let faults = faults.into_iter().filter(|(_, names)| !names.is_empty());
        let fault = |(what, names): (_, Vec<String>)| format!("{} tensors {what}: {}", names.len(), first_few(&names));
        let faults: Vec<String> = faults.map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(Error::format(&self.dir, faults.join("; "))) }
    }
}

fn first_few(names: &[String]) -> String {
    let more = if names.len() > 3 { ", ..." } else { "" };
    let shown = names.iter().take(3).map(|name| name.chars().take(200).collect()).collect::<Vec<String>>();
    format!("{}{more}", shown.join(", "))
}

pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// The elements of a stored tensor.
#[derive(Clone, Copy)]
pub struct StoredTensor<'a> {
    pub(super) dtype: Dtype,
    pub(super) bytes: &'a [u8],
}

impl StoredTensor<'_> {
    /// Copies row `r` to `out` as f32, where each row has `out.len()` elements. Exact for floats of at most 32 bits and
    /// for integers below 2^24. Other types give zeros; callers check the type before.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        self.range(r * out.len(), out);
    }

    /// Does the same as [`StoredTensor::row`] for the elements starting at `first`.
    pub fn range(&self, first: usize, out: &mut [f32]) {
        let size = self.dtype.bitsize() / 8;
        let bytes = &self.bytes[first * size..][..out.len() * size];
        let pairs = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let words = || bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match self.dtype {
            Dtype::BF16 => copy(out, pairs().map(|bits| bf16::from_bits(bits).to_f32())),
            Dtype::F16 => copy(out, pairs().map(|bits| f16::from_bits(bits).to_f32())),
            Dtype::F32 => copy(out, words().map(f32::from_bits)),
            Dtype::I16 => copy(out, pairs().map(|bits| f32::from(bits as i16))),
            Dtype::U32 => copy(out, words().map(|word| word as f32)),
            Dtype::U8 => copy(out, bytes.iter().map(|byte| f32::from(*byte))),
            _ => out.fill(0.0),
        }
    }
}

fn copy(out: &mut [f32], values: impl Iterator<Item = f32>) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::outgoing;
    use super::outgoing::{OutFile, create_weights, fill_files, shards};
    use super::part::Part;
    use super::*;
    use crate::nn::family::qwen2_5_vl::FAMILY;
    use omr_runtime::device::{Isa, Plan};

    fn small(dtype: DType) -> (Device, ParamLayout) {
        let mut dev = Device::cpu(&Plan::uniform(1 << 22), 1, Isa::detect()).unwrap();
        let mut layout = ParamLayout::new(dtype);
        layout.within(Part::Head).gate_up(&mut dev, "model.layers.0.mlp", 40, 9, false).unwrap();
        layout.within(Part::Head).norm(&mut dev, "visual.merger.ln_q", 5).unwrap();
        layout.within(Part::Head).linear(&mut dev, "lm_head", [33, 9], [33, 9], false).unwrap();
        (dev, layout)
    }

    fn fill(dev: &mut Device, layout: &ParamLayout) {
        for (i, param) in layout.params.iter().enumerate() {
            let row = |piece: usize, r: usize, out: &mut [f32]| {
                out.iter_mut().enumerate().for_each(|(k, x)| *x = (i * 7 + piece * 3 + r + k) as f32 / 8.0);
            };
            param.fill_in_dtype(dev, param.tensor, row).unwrap();
        }
    }

    fn whole(layout: &ParamLayout) -> Vec<std::ops::Range<usize>> {
        layout.lens().into_iter().map(|len| 0..len).collect()
    }

    fn save(dev: &mut Device, layout: &ParamLayout, dir: &Path, dtype: DType) {
        let files = outgoing::weights(&Arc::new(layout.clone()), dtype, &whole(layout));
        write(dev, files, dir);
    }

    fn write(dev: &mut Device, files: Vec<OutFile>, dir: &Path) {
        create_weights(dir, &files).unwrap();
        fill_files(dir, files, dev).unwrap();
    }

    fn bytes(dev: &mut Device, layout: &ParamLayout) -> Vec<u8> {
        layout.params.iter().flat_map(|p| dev.read_bytes(p.tensor).unwrap()).collect()
    }

    #[test]
    fn saved_and_loaded_in_one_file_and_in_shards() {
        for dtype in [DType::F32, DType::Bf16] {
            let dir = tempfile::tempdir().unwrap();
            let (mut dev, layout) = small(dtype);
            fill(&mut dev, &layout);
            for max_bytes in [usize::MAX, 1500, usize::MAX] {
                let files = shards(&Arc::new(layout.clone()), dtype, &whole(&layout), max_bytes);
                write(&mut dev, files, dir.path());
                assert_eq!(dir.path().join(INDEX).exists(), max_bytes == 1500);
                let (mut fresh, copy) = small(dtype);
                WeightFiles::open(dir.path()).unwrap().load(&mut fresh, &copy, &FAMILY, &Silent).unwrap();
                assert_eq!(bytes(&mut dev, &layout), bytes(&mut fresh, &copy));
            }
        }
    }

    #[test]
    fn faults_name_the_file_and_the_tensors() {
        let dir = tempfile::tempdir().unwrap();
        let (mut dev, layout) = small(DType::F32);
        save(&mut dev, &layout, dir.path(), DType::F32);
        let mut other = ParamLayout::new(DType::F32);
        other.within(Part::Head).norm(&mut dev, "visual.merger.ln_q", 6).unwrap();
        other.within(Part::Head).norm(&mut dev, "model.norm", 5).unwrap();
        let text =
            WeightFiles::open(dir.path()).unwrap().load(&mut dev, &other, &FAMILY, &Silent).unwrap_err().to_string();
        assert!(text.contains("1 tensors missing: model.norm.weight"), "{text}");
        assert!(text.contains("2 tensors unknown: model.layers.0.mlp.gate_proj.weight"), "{text}");
        assert!(text.contains("visual.merger.ln_q.weight in model.safetensors has shape [5], expected [6]"), "{text}");

        let path = dir.path().join(SINGLE);
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 4, 40, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = WeightFiles::open(dir.path()).err().unwrap();
            assert!(error.to_string().contains(SINGLE), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(WeightFiles::open(dir.path()).err().unwrap().exit_code(), 2);
    }

    #[test]
    fn damaged_headers_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let (mut dev, layout) = small(DType::F32);
        save(&mut dev, &layout, dir.path(), DType::F32);
        let path = dir.path().join(SINGLE);
        let whole = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for at in 0..header {
            for flip in [0x01, 0x04, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                std::fs::write(&path, &damaged).unwrap();
                // A changed name or type is an error as well. Nothing may panic, and changed padding has no effect.
                if let Err(error) =
                    WeightFiles::open(dir.path()).and_then(|w| w.load(&mut dev, &layout, &FAMILY, &Silent))
                {
                    assert_eq!(error.exit_code(), 2, "{error}");
                }
            }
        }
    }

    #[test]
    fn a_name_that_a_header_has_twice_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let tensor = |[from, to]: [u8; 2]| format!(r#""w":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{to}]}}"#);
        let other = r#","v":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"#;
        for (ranges, between) in [([[0, 4], [4, 8]], ","), ([[4, 8], [0, 4]], ","), ([[0, 4], [0, 4]], other)] {
            let header = format!("{{{}}}", ranges.map(tensor).join(between));
            std::fs::write(&path, [&header.len().to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()).unwrap();
            let error = WeightFiles::open_files(dir.path(), std::slice::from_ref(&path)).err().unwrap().to_string();
            assert!(error.contains("x.safetensors"), "{error}");
            assert!(between == "," || error.contains("the name \"w\" stands twice in its header"), "{error}");
        }
    }

    #[test]
    fn newer_names_are_read() {
        assert_eq!(released_name("model.language_model.layers.0.x"), "model.layers.0.x");
        assert_eq!(released_name("model.visual.blocks.0.x"), "visual.blocks.0.x");
        assert_eq!(released_name("model.layers.0.x"), "model.layers.0.x");
        assert_eq!(released_name("lm_head.weight"), "lm_head.weight");
    }
}
