//! Adapters (LoRA) of a model's linear layers: parameters beside the weights of the base, which stay as they are. See
//! [`omr_runtime::ops::lora`] for the product.
//!
//! A is one parameter with a piece for each adapted tensor, each padded to [`lora::PART`] rows. B is a compact parameter
//! `[N, rank]` with the weight's pieces. Both have f32 masters as all parameters do. S is derived from B: call
//! [`Adapter::derive`] after each change of B.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::nn::tape::layer::Layer;
use crate::nn::weights::linear_layer::{A, Adapter, B, Linear};
use crate::nn::weights::params::{Param, Piece};
use crate::nn::weights::part::Part;
use crate::nn::{Decoder, Model, ParamLayout, VisionTower};
use omr_base::error::Result;
use omr_base::philox::{Purpose, Random};
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::adamw::master;
use omr_runtime::ops::lora::{self, Rows};
use omr_runtime::ops::matmul::Weight;
use omr_runtime::tensor::{DType, Tensor};

/// The f32 masters of adapters.
pub trait Masters: Sync {
    /// Writes row `r` of the tensor `piece` of A or B to `out`.
    fn row(&self, piece: &Piece, r: usize, out: &mut [f32]);
}

/// Returns true if the linear layer with this name, in this part of the model, gets an adapter.
pub type Takes<'a> = dyn Fn(&str, Part) -> bool + 'a;

/// Returns the factor of the product of B and A: alpha / rank, or alpha / sqrt(rank) with rsLoRA, rounded once.
pub fn scale(rank: usize, alpha: f64, use_rslora: bool) -> f32 {
    let rank = rank as f64;
    (alpha / if use_rslora { rank.sqrt() } else { rank }) as f32
}

/// Masters of new adapters, as PEFT makes them: A uniform in ±sqrt(1 / inputs), B zero. An element depends only on the
/// seed, its tensor and its position in the tensor.
pub struct Fresh {
    seed: u64,
    /// Numbers of the base's tensors, by name of A's tensor.
    numbers: BTreeMap<String, u64>,
}

impl Fresh {
    /// Returns the masters of new adapters of the model with `layout`.
    pub fn new(layout: &ParamLayout, seed: u64) -> Fresh {
        let base = layout.pieces().filter(|(id, _, _)| !layout.params[*id].is_adapter);
        let numbered = base.enumerate().map(|(i, (_, _, piece))| (format!("{}{A}", module(piece)), i as u64));
        Fresh { seed, numbers: numbered.collect() }
    }
}

impl Masters for Fresh {
    fn row(&self, piece: &Piece, r: usize, out: &mut [f32]) {
        let Some(number) = self.numbers.get(&piece.name) else { return out.fill(0.0) };
        let mut random = Random::new(self.seed, Purpose::Adapter, number << 32 | r as u64);
        let bound = (1.0 / out.len() as f32).sqrt();
        out.iter_mut().for_each(|x| *x = bound * (2.0 * random.uniform_f32() - 1.0));
    }
}

/// Returns the released name of the module to which a weight, a bias or a tensor of an adapter belongs.
pub(crate) fn module(piece: &Piece) -> &str {
    [A, B, ".weight", ".bias"].iter().find_map(|end| piece.name.strip_suffix(end)).unwrap_or(&piece.name)
}

impl Model {
    /// Returns the modules of all linear layers of the decoder and the vision tower, with their part of the model.
    pub fn linears(&self) -> Vec<(&str, Part)> {
        let params = self.all_linears().into_iter().map(|linear| &self.layout.params[linear.weight.id]);
        params.flat_map(|param| param.pieces.iter().map(|piece| (module(piece), param.part))).collect()
    }

    fn all_linears(&self) -> Vec<Linear> {
        let (mut decoder, mut vision) = (self.decoder.clone(), self.vision.clone());
        linears_mut(&mut decoder, &mut vision).into_iter().map(|linear| *linear).collect()
    }

    /// Adds adapters to the linear layers of every module for whose name and part `takes` returns true, and freezes all
    /// other parameters. The weights of the adapters are zero until [`Model::set_adapters`]. Call it before gradients and
    /// optimizer are allocated.
    pub fn attach(&mut self, dev: &mut Device, rank: usize, scale: f32, takes: &Takes<'_>) -> Result<()> {
        let tickets = lora::tickets(dev, Region::Weights)?;
        let Model { layout, decoder, vision, .. } = self;
        for linear in linears_mut(decoder, vision) {
            let Param { pieces, part, .. } = &layout.params[linear.weight.id];
            let taken: Vec<Piece> = pieces.iter().filter(|piece| takes(module(piece), *part)).cloned().collect();
            if !taken.is_empty() {
                linear.adapter = Some(new_adapter(dev, layout, linear, &taken, rank, scale, tickets)?);
            }
        }
        layout.params.iter_mut().for_each(|param| param.trains = param.is_adapter);
        if let Some(vision) = vision {
            let adapted = |mut layer: Layer| layer.linears().iter().any(|linear| linear.adapter.is_some());
            vision.trains_merger = vision.mergers.iter().any(|m| m.fc1.adapter.or(m.fc2.adapter).is_some());
            vision.trains_blocks = vision.blocks.iter().copied().any(adapted);
        }
        Ok(())
    }

    /// Returns the model without its adapters, in the same memory.
    pub fn base(&self) -> Model {
        let (mut decoder, mut vision) = (self.decoder.clone(), self.vision.clone());
        linears_mut(&mut decoder, &mut vision).into_iter().for_each(|linear| linear.adapter = None);
        let layout = ParamLayout { adapters: Vec::new(), ..self.layout.clone() };
        Model { config: self.config.clone(), layout, decoder, vision }
    }

    /// Returns rank and scale of the model's adapters for messages, or an empty text if it has none.
    pub fn describe_adapter(&self) -> String {
        let adapter = self.layout.adapters.first();
        adapter.map_or(String::new(), |adapter| format!("rank {}, scale {}", adapter.rows.rank, adapter.scale))
    }

    /// Returns true if the model has exactly the adapters that [`Model::attach`] adds with these arguments.
    pub fn has_adapters(&self, rank: usize, scale: f32, takes: &Takes<'_>) -> bool {
        self.all_linears().into_iter().all(|linear| {
            let Param { pieces, part, .. } = &self.layout.params[linear.weight.id];
            let wanted: Vec<&str> = pieces.iter().map(module).filter(|module| takes(module, *part)).collect();
            let Some(adapter) = linear.adapter else { return wanted.is_empty() };
            let found = self.layout.params[adapter.a.id].pieces.iter().map(module);
            adapter.rows.rank == rank && adapter.scale == scale && found.eq(wanted)
        })
    }

    /// Sets the weights of all adapters.
    pub fn set_adapters(&mut self, dev: &mut Device, masters: &dyn Masters) -> Result<()> {
        let layout = &self.layout;
        for adapter in &layout.adapters {
            for id in [adapter.a.id, adapter.b.id] {
                let param = &layout.params[id];
                fill(dev, param, param.tensor, masters, |master| match layout.dtype {
                    DType::Bf16 => master::split(master).0.to_f32(),
                    _ => master,
                })?;
            }
            let b = &layout.params[adapter.b.id];
            dev.scope(Region::Workspace, |dev| {
                let scaled = dev.alloc(Region::Workspace, layout.dtype, &[b.tensor.len()])?;
                fill(dev, b, scaled, masters, |master| adapter.scale * master)?;
                lora::spread(dev, scaled, adapter.rows, &adapter.s)
            })?;
        }
        Ok(())
    }
}

/// Returns all linear layers of the decoder and the vision tower.
fn linears_mut<'a>(decoder: &'a mut Decoder, vision: &'a mut Option<VisionTower>) -> Vec<&'a mut Linear> {
    let mut all: Vec<_> = Arc::make_mut(&mut decoder.layers).iter_mut().flat_map(Layer::linears).collect();
    if let Some(vision) = vision {
        all.extend(Arc::make_mut(&mut vision.blocks).iter_mut().flat_map(Layer::linears));
        all.extend(Arc::make_mut(&mut vision.mergers).iter_mut().flat_map(|merger| [&mut merger.fc1, &mut merger.fc2]));
    }
    all
}

/// Fills `tensor`, in the order of `param`, with `of` each master, rounded.
fn fill(
    dev: &mut Device,
    param: &Param,
    tensor: Tensor,
    masters: &dyn Masters,
    of: impl Fn(f32) -> f32 + Sync,
) -> Result<()> {
    let row = |piece: usize, r: usize, out: &mut [f32]| {
        masters.row(&param.pieces[piece], r, out);
        out.iter_mut().for_each(|x| *x = of(*x));
    };
    param.fill_in_dtype(dev, tensor, row)
}

/// Adds the parameters of a new adapter of `linear` for the tensors `taken` of its weight to `layout`, and returns it.
fn new_adapter(
    dev: &mut Device,
    layout: &mut ParamLayout,
    linear: &Linear,
    taken: &[Piece],
    rank: usize,
    scale: f32,
    tickets: Tensor,
) -> Result<Adapter> {
    let Weight { n, k, order, .. } = linear.weight.weight;
    let part = rank.next_multiple_of(lora::PART);
    let wide = part * taken.len();
    let of_a =
        |(i, piece): (usize, &Piece)| Piece::rows(format!("{}{A}", module(piece)), &[rank, piece.row_len()], i * part);
    let mut part_of_model = layout.within(layout.params[linear.weight.id].part);
    let a = part_of_model.matrix(dev, wide, k, taken.iter().enumerate().map(of_a).collect())?;
    let of_b = |piece: &Piece| piece.beside(format!("{}{B}", module(piece)), rank);
    let b = part_of_model.matrix_in(dev, order.dense(), n, rank, taken.iter().map(of_b).collect())?;
    [a.id, b.id].iter().for_each(|&id| layout.params[id].is_adapter = true);
    let data = dev.zeros(Region::Weights, layout.dtype, &[order.len(layout.dtype, n, wide)])?;
    let part_of =
        |n: usize| taken.iter().position(|piece| piece.row_at(n).is_some()).map_or(lora::NO_PART, |i| i as u8);
    let parts: Vec<u8> = (0..n).map(part_of).collect();
    let rows = Rows { parts: dev.upload(Region::Weights, &parts, &[n])?, rank };
    let adapter = Adapter { a, b, s: Weight::new(data, order, n, wide), tickets, rows, scale };
    layout.adapters.push(adapter);
    Ok(adapter)
}
