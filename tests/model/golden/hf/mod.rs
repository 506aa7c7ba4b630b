//! Compares the model with tiny Qwen2.5-VL models of Hugging Face transformers: every `model_*` folder in `hf`, and in
//! `mimo`, where our own copy of that of MiMo-VL is packed, with every case in it.

pub mod adamw;
pub mod forward;
pub mod gradients;
pub mod mutations;
pub mod storage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omr_base_tests::golden::{dir, entries, json};
use omr_data::image::{Backend, ImageInput, Processor};
use omr_model::nn::{CheckpointPolicy, Grads, Inputs, LayerPolicy, Mode, Model, ModelConfig, Policy, Tape};
use omr_runtime::device::{Device, Isa, Plan};
use omr_runtime::tensor::{DType, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use crate::models;

/// Returns the model folders.
pub fn models() -> Vec<PathBuf> {
    let all = ["hf", "mimo"].map(|folder| entries(&dir().join(folder), "model_", ""));
    all.into_iter().flatten().filter(|p| p.is_dir()).collect()
}

pub fn device() -> Device {
    Device::cpu(&Plan::uniform(2 << 30), 2, Isa::detect()).unwrap()
}

/// The tensors of one safetensors file.
#[derive(Clone)]
pub struct Tensors {
    path: PathBuf,
    shapes: BTreeMap<String, Vec<usize>>,
    floats: BTreeMap<String, Vec<f32>>,
    ints: BTreeMap<String, Vec<i64>>,
}

impl Tensors {
    fn none(path: PathBuf) -> Tensors {
        Tensors { path, shapes: Default::default(), floats: Default::default(), ints: Default::default() }
    }

    pub fn read(path: &Path) -> Tensors {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut out = Tensors::none(path.into());
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            out.shapes.insert(name.into(), view.shape().to_vec());
            match view.dtype() {
                Dtype::F32 => {
                    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    out.floats.insert(name.into(), values.collect());
                }
                Dtype::I64 => {
                    let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                    out.ints.insert(name.into(), values.collect());
                }
                other => panic!("{}: {name} is {other:?}", path.display()),
            }
        }
        out
    }

    pub fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    pub fn floats(&self, name: &str) -> &[f32] {
        self.floats.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.path.display()))
    }

    pub fn ints(&self, name: &str) -> &[i64] {
        self.ints.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.path.display()))
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.ints(name).iter().map(|&id| u32::try_from(id).unwrap()).collect()
    }
}

/// One model folder.
pub struct Golden {
    pub dir: PathBuf,
    pub index: Value,
    pub config: ModelConfig,
    pub pixels: Tensors,
}

impl Golden {
    pub fn open(dir: PathBuf) -> Golden {
        let index = json(&dir.join("index.json"));
        let config = ModelConfig::load(&dir.join("config.json")).unwrap();
        let pixels = dir.join("pixels.safetensors");
        // A text model has no images.
        let pixels = if pixels.exists() { Tensors::read(&pixels) } else { Tensors::none(pixels) };
        Golden { dir, index, config, pixels }
    }

    pub fn model(&self, dev: &mut Device, dtype: DType) -> Model {
        Model::load(dev, &self.dir, dtype).unwrap()
    }

    pub fn cases(&self) -> Vec<Case> {
        let names = self.index["cases"].as_object().unwrap().keys();
        names.map(|name| self.case(name)).collect()
    }

    pub fn case(&self, name: &str) -> Case {
        let entry = &self.index["cases"][name];
        let file = entry["file"].as_str().map_or_else(|| format!("cases/{name}.safetensors"), str::to_owned);
        let tensors = Tensors::read(&self.dir.join(file));
        let media = entry["media"].as_array().into_iter().flatten();
        let images = media.map(|m| self.image(m.as_str().unwrap())).collect();
        Case { name: name.into(), tensors, images, loss: entry["loss"].as_f64().unwrap() }
    }

    /// Returns every gradient of a case or pack in f32, if they are stored.
    pub fn gradients(&self, name: &str) -> Option<Tensors> {
        let path = self.dir.join(format!("cases/{name}.grads.safetensors"));
        path.exists().then(|| Tensors::read(&path))
    }

    /// Returns an image or video as bytes. Its processed values are in `pixels.safetensors`.
    fn image(&self, name: &str) -> Arc<ImageInput> {
        let listed = self.index["images"].as_array().into_iter().flatten().chain([&self.index["video"]]);
        let entry = listed.clone().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("no image {name}"));
        let grid: [u32; 3] = serde_json::from_value(entry["grid_thw"].clone()).unwrap();
        let video = !entry["frames"].is_null();
        Arc::new(to_bytes(&self.config, self.pixels.floats(name), grid, video))
    }
}

/// Reverses normalisation and patch order. The bytes are exact, because one level is 0.014 in these values.
fn to_bytes(config: &ModelConfig, values: &[f32], grid_thw: [u32; 3], video: bool) -> ImageInput {
    let processor = Processor::default();
    let (side, merge) = (config.grid().patch_size, config.grid().merge_size);
    let [t, h, w] = grid_thw.map(|n| n as usize);
    let depth = config.grid().temporal_patch_size;
    let frames = if video { t * depth } else { 1 };
    let width = w * side;
    let mut pixels = vec![0u8; frames * h * side * width * 3];
    let mut values = values.iter();
    for patch in 0..t * h * w {
        let (ti, in_frame) = (patch / (h * w), patch % (h * w));
        let (block, cell) = (in_frame / (merge * merge), in_frame % (merge * merge));
        let (by, bx) = (block / (w / merge), block % (w / merge));
        let (py, px) = (by * merge + cell / merge, bx * merge + cell % merge);
        for c in 0..3 {
            for frame in ti * depth..(ti + 1) * depth {
                for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                    let value = values.next().unwrap() * processor.image_std[c] + processor.image_mean[c];
                    if frame < frames {
                        let at = ((frame * h * side + py * side + y) * width + px * side + x) * 3 + c;
                        pixels[at] = (value * 255.0).round() as u8;
                    }
                }
            }
        }
    }
    ImageInput { grid_thw, frames: frames as u32, pixels, second_per_grid_ts: 1.0, backend: Backend::Pil }
}

/// One case: tokens, labels, media, and everything that transformers computed from them.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub tensors: Tensors,
    pub images: Vec<Arc<ImageInput>>,
    pub loss: f64,
}

impl Case {
    pub fn input_ids(&self) -> Vec<u32> {
        self.tensors.ids("input_ids")
    }

    /// Returns the inputs: one sequence, or the sequences of a packed row.
    pub fn inputs(&self, config: &ModelConfig) -> Inputs {
        let ids = self.input_ids();
        let Some(bounds) = self.tensors.ints.get("cu_seqlens") else {
            let mut inputs = models::inputs(config, &[(&ids, &self.images)]);
            self.set_recorded_positions(&mut inputs, 0);
            return inputs;
        };
        let sequences: Vec<(&[u32], &[Arc<ImageInput>])> =
            bounds.windows(2).map(|w| (&ids[w[0] as usize..w[1] as usize], &[][..])).collect();
        models::inputs(config, &sequences)
    }

    /// Gives the sequence that begins at row `start` the recorded positions, if it has a video: text after it begins
    /// earlier in transformers 5 than in transformers 4, vLLM, verl and omr.
    pub fn set_recorded_positions(&self, inputs: &mut Inputs, start: usize) {
        if !self.images.iter().any(|image| image.is_video()) {
            return;
        }
        let recorded = self.tensors.ints("position_ids");
        for (axis, values) in inputs.position_ids.iter_mut().zip(recorded.chunks(recorded.len() / 3)) {
            axis[start..].iter_mut().zip(values).for_each(|(position, value)| *position = *value as i32);
        }
    }

    /// Returns pairs (row, id): the token after row `row` is `id`, and it counts for the loss.
    pub fn targets(&self) -> Vec<(u32, u32)> {
        let labels = self.tensors.ints("labels").iter().enumerate().skip(1).filter(|(_, id)| **id >= 0);
        labels.map(|(i, &id)| (i as u32 - 1, id as u32)).collect()
    }
}

/// Returns several cases as one pack: inputs and targets.
pub fn pack(config: &ModelConfig, cases: &[Case]) -> (Inputs, Vec<(u32, u32)>) {
    let ids: Vec<Vec<u32>> = cases.iter().map(Case::input_ids).collect();
    let sequences: Vec<(&[u32], &[Arc<ImageInput>])> =
        ids.iter().zip(cases).map(|(ids, case)| (&ids[..], &case.images[..])).collect();
    let mut targets = Vec::new();
    let mut start = 0;
    for case in cases {
        targets.extend(case.targets().into_iter().map(|(row, id)| (row + start, id)));
        start += case.input_ids().len() as u32;
    }
    let mut inputs = models::inputs(config, &sequences);
    let starts = inputs.cu_seqlens.clone();
    cases.iter().zip(starts).for_each(|(case, start)| case.set_recorded_positions(&mut inputs, start as usize));
    (inputs, targets)
}

/// Named values, logits and log-probs of one forward pass.
pub struct Run {
    pub notes: Vec<(&'static str, usize, Vec<f32>)>,
    pub logits: Vec<f32>,
    pub logprobs: Vec<f32>,
}

/// Runs a forward pass that stores all activations, with the logits of every row and the log-probs of `targets`.
pub fn forward(dev: &mut Device, model: &Model, inputs: &Inputs, targets: &[(u32, u32)]) -> Run {
    let mut tape = Tape::new(dev, Mode::train(LayerPolicy::All));
    let hidden = model.forward(&mut tape, dev, inputs).unwrap();
    let logits = crate::models::logits(model, &mut tape, dev, hidden);
    let lp = logprobs(dev, model, &mut tape, hidden, targets);
    let notes = tape.notes().iter().map(|(name, i, t)| (*name, *i, read(dev, *t))).collect();
    let run = Run { notes, logits: dev.read(logits).unwrap(), logprobs: dev.read(lp.tensor).unwrap() };
    tape.finish(dev);
    run
}

fn logprobs(
    dev: &mut Device,
    model: &Model,
    tape: &mut Tape,
    hidden: omr_model::nn::Var,
    targets: &[(u32, u32)],
) -> omr_model::nn::Var {
    let (rows, ids): (Vec<u32>, Vec<u32>) = targets.iter().copied().unzip();
    let rows = tape.upload(dev, &rows, &[rows.len()]).unwrap();
    let ids = tape.upload(dev, &ids, &[ids.len()]).unwrap();
    let hidden = tape.gather(dev, hidden, rows, None).unwrap();
    tape.linear_logprob(dev, hidden, model.decoder.lm_head, Policy::default(), ids, false).unwrap().0
}

/// Returns the loss (the mean of -log_prob over the targets), and adds its gradients to `grads`.
pub fn loss_and_gradients(
    dev: &mut Device,
    model: &Model,
    inputs: &Inputs,
    targets: &[(u32, u32)],
    keep: impl Into<CheckpointPolicy>,
    grads: &mut Grads,
) -> f64 {
    let mut tape = Tape::new(dev, Mode::train(keep));
    let hidden = model.forward(&mut tape, dev, inputs).unwrap();
    let lp = logprobs(dev, model, &mut tape, hidden, targets);
    let values: Vec<f32> = dev.read(lp.tensor).unwrap();
    let n = targets.len();
    let seed = tape.upload(dev, &vec![-1.0 / n as f32; n], &[n]).unwrap();
    tape.backward(dev, grads, &[(lp, seed)]).unwrap();
    tape.finish(dev);
    mean_loss(&values)
}

pub fn mean_loss(logprobs: &[f32]) -> f64 {
    -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / logprobs.len() as f64
}

/// Returns a tensor of the compute type as f32.
pub fn read(dev: &mut Device, t: Tensor) -> Vec<f32> {
    match t.dtype {
        DType::Bf16 => dev.read::<half::bf16>(t).unwrap().into_iter().map(half::bf16::to_f32).collect(),
        _ => dev.read(t).unwrap(),
    }
}

pub fn max_diff(found: &[f32], want: &[f32]) -> f32 {
    assert_eq!(found.len(), want.len());
    let diff = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    found.iter().zip(want).map(diff).fold(0.0, f32::max)
}

pub fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Largest difference of each kind, for the report and for the error message.
#[derive(Default)]
pub struct Largest(BTreeMap<&'static str, (f64, String)>);

impl Largest {
    pub fn note(&mut self, kind: &'static str, value: f64, place: &str) {
        let value = if value.is_nan() { f64::INFINITY } else { value };
        let entry = self.0.entry(kind).or_default();
        if value > entry.0 || entry.1.is_empty() {
            *entry = (value, place.into());
        }
    }

    pub fn check(&self, tolerances: &[(&str, f64)]) {
        for (kind, (value, place)) in &self.0 {
            println!("  {kind}: {value:.3e} ({place})");
        }
        for (kind, tolerance) in tolerances {
            let (value, place) = self.0.get(kind).unwrap_or_else(|| panic!("nothing measured {kind}"));
            assert!(value <= tolerance, "{kind}: {value:e} at {place}, tolerance {tolerance:e}");
        }
    }
}
