//! The vision tower: computes decoder rows from pixels. The merger joins 2 x 2 patches into one row, in input order.
//!
//! - In a windowed tower, patches pass through the blocks in window order. Some blocks attend to whole frames, the others
//!   within windows.
//! - In a tower with DeepStack, all blocks attend to whole frames. The results of some blocks pass through mergers of their
//!   own, whose rows are further columns of the merger's rows.

use std::path::Path;
use std::sync::Arc;

use super::tape::layer::{Layer, Mlp, Norm};
use super::tape::layers::{Attend, Attention, Rope};
use super::weights::layout::{LayoutPart, ParamLayout};
use super::weights::params::{Linear, Matrix, Part, Piece, Vector};
use crate::nn::config::{MediaConfig, TowerConfig, TowerKind};
use crate::nn::family::media::TOWER;
use crate::nn::positions::{self, VisionPositions};
use crate::nn::tape::{Recompute, Tape, Var};
use crate::nn::weights::WeightFiles;
use omr_base::error::{Error, Result};
use omr_data::image::{Backend, ImageInput, Processor};
use omr_runtime::device::Device;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::matmul::PANEL;
use omr_runtime::ops::patch_embed::{Normalize, PatchImage};
use omr_runtime::ops::pos_embed::Taps;
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::{DType, Tensor};

/// Epsilon of the tower's norms. The configuration has no key for it.
const NORM_EPS: f32 = 1e-6;

/// Maximum number of patches that pass through the tower together, which bounds the memory of a recomputed tower. A
/// single image with more patches forms a chunk of its own.
///
/// Forward and data gradients do not depend on this number. Weight gradients are one chain of sums over the patches in
/// ascending order, chunk after chunk. If each chunk ends at a step of the chain (64 patches for the norms, 256 for
/// norms of joined patches, see `docs/dev/design/training.md`), weight gradients do not depend on this number either. Otherwise the number affects their
/// rounding, so no plan changes it.
pub const CHUNK_PATCHES: usize = 8192;

/// The tower's parameters.
#[derive(Clone)]
pub struct VisionTower {
    config: Arc<MediaConfig>,
    /// Settings by which pixels are normalized. Their `backend` is that of the images of each call.
    pub processor: Processor,
    patch_embed: Matrix,
    patch_bias: Option<Vector>,
    /// Table of learned positions.
    pos_embed: Option<Matrix>,
    /// Blocks.
    pub blocks: Arc<[Layer]>,
    /// The merger, and those of blocks.
    pub mergers: Arc<[Merger]>,
    /// Computes order, segments and tables of images.
    pub positions: fn(&MediaConfig, &[[u32; 3]]) -> VisionPositions,
    /// Maximum number of patches of a chunk of images. An image with more patches forms a chunk of its own.
    pub chunk_patches: usize,
    /// False if the patch embedding and the blocks are frozen.
    pub trains_blocks: bool,
    /// False if the merger is frozen.
    pub trains_merger: bool,
}

/// Parameters of a merger.
#[derive(Clone, Copy)]
pub struct Merger {
    /// Norm of each patch, or of the joined patches.
    pub norm: Norm,
    /// Form of GELU between the projections.
    pub gelu: GeluKind,
    pub(super) fc1: Linear,
    pub(super) fc2: Linear,
}

/// The data on the device that one pass over some images reads.
#[derive(Clone)]
struct Chunk {
    num_patches: usize,
    pixels: Tensor,
    images: Arc<[PatchImage]>,
    normalize: Normalize,
    frames: Attend,
    rope: Rope,
    order: Order,
}

/// Data that depends on the kind of the tower.
#[derive(Clone)]
enum Order {
    /// Merge blocks in window order.
    Windows {
        /// Index of the block at each position of the window order.
        index: Tensor,
        /// Position of each block.
        reverse: Tensor,
        attend: Attend,
    },
    /// Patches in input order, with their learned positions.
    Input(Taps),
}

impl VisionTower {
    /// Adds the tower's parameters to `layout`.
    pub fn new(dev: &mut Device, layout: &mut ParamLayout, config: &MediaConfig) -> Result<VisionTower> {
        let (tower, grid) = (&config.tower, config.grid);
        let (c, merged, prefix) = (tower.hidden_size, tower.hidden_size * grid.merge_unit(), TOWER);
        let kernel = [c, 3, grid.temporal_patch_size, grid.patch_size, grid.patch_size];
        let kernel = vec![Piece::rows(format!("{prefix}.patch_embed.proj.weight"), &kernel, 0)];
        let mut part = layout.within(Part::Tower);
        let patch_embed = part.matrix(dev, c, grid.patch_len(), kernel)?;
        let (mut patch_bias, mut pos_embed) = (None, None);
        if let TowerKind::DeepStack { grid_side, .. } = tower.kind {
            let bias = Piece::rows(format!("{prefix}.patch_embed.proj.bias"), &[c], 0);
            patch_bias = Some(part.bias(dev, c, vec![bias])?);
            let n = grid_side * grid_side;
            let table = Piece::rows(format!("{prefix}.pos_embed.weight"), &[n, c], 0);
            pos_embed = Some(part.matrix(dev, n, c, vec![table])?);
        }
        let blocks = (0..tower.depth).map(|i| block(dev, &mut part, tower, &format!("{prefix}.blocks.{i}")));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let mut part = layout.within(Part::Merger);
        let mut merger = |name: &str, [norm, fc1, fc2]: [&str; 3], width: usize| -> Result<Merger> {
            let name = |of: &str| format!("{prefix}.{name}.{of}");
            let (inner, outer) = ([merged; 2], [tower.out_hidden_size, merged]);
            Ok(Merger {
                norm: self::norm(dev, &mut part, tower, &name(norm), width)?,
                gelu: GeluKind::Exact,
                fc1: part.linear(dev, &name(fc1), inner, inner, true)?,
                fc2: part.linear(dev, &name(fc2), outer, outer, true)?,
            })
        };
        const PARTS: [&str; 3] = ["norm", "linear_fc1", "linear_fc2"];
        let mergers = match &tower.kind {
            TowerKind::Windowed { .. } => vec![merger("merger", ["ln_q", "mlp.0", "mlp.2"], c)?],
            TowerKind::DeepStack { deepstack_visual_indexes, .. } => {
                let mut mergers = vec![merger("merger", PARTS, c)?];
                for k in 0..deepstack_visual_indexes.len() {
                    mergers.push(merger(&format!("deepstack_merger_list.{k}"), PARTS, merged)?);
                }
                mergers
            }
        };
        Ok(VisionTower {
            config: Arc::new(config.clone()),
            processor: Processor::released(grid),
            patch_embed,
            patch_bias,
            pos_embed,
            blocks: blocks.into(),
            mergers: mergers.into(),
            positions: positions::vision,
            chunk_patches: CHUNK_PATCHES,
            trains_blocks: true,
            trains_merger: true,
        })
    }

    /// Loads the tower of a model directory without the rest of the model, with its weights as `dtype`. Errors name the
    /// file and the fault.
    pub fn load(dev: &mut Device, dir: &Path, config: &MediaConfig, dtype: DType) -> Result<VisionTower> {
        let mut layout = ParamLayout::new(dtype);
        let tower = VisionTower::new(dev, &mut layout, config)?;
        WeightFiles::open(dir)?.load_part(dev, &layout)?;
        Ok(tower)
    }

    /// Returns true if any part of the tower is trained.
    pub fn trains(&self) -> bool {
        self.trains_blocks || self.trains_merger
    }

    /// Returns the width of the rows that the tower computes.
    pub fn row_width(&self) -> usize {
        self.config.tower.row_width()
    }

    /// Computes the rows of `images`, one image after another, into `out` `[M, row_width]`. Returns `out` as
    /// consecutive values, one for each chunk of images. Errors if an image's pixels do not fit its grid.
    pub fn forward(
        &self,
        tape: &mut Tape,
        dev: &mut Device,
        images: &[Arc<ImageInput>],
        out: Tensor,
    ) -> Result<Vec<Var>> {
        if tape.recording && !self.trains() {
            return tape.unrecorded(dev, |tape, dev| self.forward(tape, dev, images, out));
        }
        let merge = self.config.grid.merge_size;
        for (i, image) in images.iter().enumerate() {
            positions::check_grid(image.grid_thw, merge, i)?;
            self.check_pixels(image, i)?;
            if image.backend != images[0].backend {
                let [found, expected] =
                    [image.backend, images[0].backend].map(|backend| format!("pixels of {backend:?}"));
                return Err(Error::input(format!("image {i}"), found, format!("{expected}, as image 0")));
            }
        }
        let (mut pieces, mut blocks) = (Vec::new(), Vec::new());
        let mut row = 0;
        for images in chunks(images, self.chunk_patches) {
            let rows = images.iter().map(|image| num_patches(image)).sum::<usize>() / self.config.grid.merge_unit();
            let piece = tape.var(out.slice(row, row + rows));
            row += rows;
            let chunk = self.upload(tape, dev, images)?;
            let tower = self.clone();
            blocks.push(move |tape: &mut Tape, dev: &mut Device, _: Recompute| tower.encode(tape, dev, &chunk, piece));
            pieces.push(piece);
        }
        tape.checkpoints(dev, tape.levels().replay_tower, blocks)?;
        pieces.iter().enumerate().for_each(|(i, piece)| tape.note("vision.merged", i, *piece));
        Ok(pieces)
    }

    fn check_pixels(&self, image: &ImageInput, index: usize) -> Result<()> {
        let [t, h, w] = image.grid_thw.map(|n| n as usize);
        let frames = image.frames as usize;
        let side = self.config.grid.patch_size;
        let whole = frames == 1 && t == 1 || frames == t * self.config.grid.temporal_patch_size;
        if whole && image.pixels.len() == frames * h * w * side * side * 3 {
            return Ok(());
        }
        let found = format!("{frames} frames, {} bytes", image.pixels.len());
        Err(Error::input(format!("image {index}"), found, format!("the pixels of grid {:?}", image.grid_thw)))
    }

    fn upload(&self, tape: &Tape, dev: &mut Device, images: &[Arc<ImageInput>]) -> Result<Chunk> {
        let pixels = dev.alloc(tape.region(), DType::U8, &[images.iter().map(|image| image.pixels.len()).sum()])?;
        let mut places = Vec::new();
        let mut offset = 0;
        for image in images {
            dev.write(pixels.slice(offset, offset + image.pixels.len()), &image.pixels)?;
            places.push(PatchImage { offset, frames: image.frames as usize, grid_thw: image.grid_thw });
            offset += image.pixels.len();
        }
        let grids: Vec<[u32; 3]> = images.iter().map(|image| image.grid_thw).collect();
        let p = (self.positions)(&self.config, &grids);
        let order = match self.config.tower.kind {
            TowerKind::Windowed { .. } => {
                let mut reverse = vec![0u32; p.window_index.len()];
                p.window_index.iter().enumerate().for_each(|(at, &block)| reverse[block as usize] = at as u32);
                Order::Windows {
                    index: tape.upload(dev, &p.window_index, &[p.window_index.len()])?,
                    reverse: tape.upload(dev, &reverse, &[reverse.len()])?,
                    attend: Attend::packed(tape, dev, &p.cu_window_seqlens, false)?,
                }
            }
            TowerKind::DeepStack { .. } => {
                let (taps, dims) = (p.taps.as_flattened(), [p.taps.len(), 4]);
                Order::Input(Taps {
                    indices: tape.upload(dev, taps, &dims)?,
                    weights: tape.upload(dev, p.tap_weights.as_flattened(), &dims)?,
                    segments: Segments::upload(dev, tape.region(), taps)?,
                })
            }
        };
        let num_patches = p.pos_hw.len();
        let table = [num_patches, self.config.tower.head_dim() / 2];
        Ok(Chunk {
            num_patches,
            pixels,
            images: places.into(),
            normalize: normalize(&Processor { backend: images[0].backend, ..self.processor.clone() }),
            order,
            frames: Attend::packed(tape, dev, &p.cu_seqlens, false)?,
            rope: Rope { cos: tape.upload(dev, &p.rope.cos, &table)?, sin: tape.upload(dev, &p.rope.sin, &table)? },
        })
    }

    /// Computes the rows of a chunk into `out`.
    fn encode(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk, out: Var) -> Result<()> {
        let mut parts = Vec::new();
        if tape.recording && !self.trains_blocks {
            for (level, x) in self.frozen_blocks(tape, dev, chunk)?.into_iter().enumerate() {
                parts.push(self.merge(tape, dev, level, x)?);
            }
        } else {
            self.blocks(tape, dev, chunk, &mut |tape, dev, level, x| {
                parts.push(self.merge(tape, dev, level, x)?);
                Ok(())
            })?;
        }
        // The mergers of blocks come first.
        parts.rotate_right(1);
        match chunk.order {
            Order::Windows { reverse, .. } => tape.gather_into(dev, parts[0], reverse, None, out),
            Order::Input(_) => tape.join_levels(dev, parts, out),
        }
    }

    /// Joins the patches of each merge block of `x`, and projects them to the decoder's width. `level` is the number of the
    /// block's merger, or the number of these for the merger of the tower.
    fn merge(&self, tape: &mut Tape, dev: &mut Device, level: usize, x: Var) -> Result<Var> {
        let (unit, [n, c]) = (self.config.grid.merge_unit(), [x.tensor.rows(), x.tensor.cols()]);
        let joined = [n / unit, unit * c];
        let x = if 1 + level < self.mergers.len() { x.reshape(&joined) } else { x };
        let Merger { norm, gelu, fc1, fc2 } = self.mergers[(1 + level) % self.mergers.len()];
        let x = norm.forward(tape, dev, x)?.reshape(&joined);
        let x = tape.linear_activated(dev, x, fc1, Some(gelu))?;
        tape.linear(dev, x, fc2, None)
    }

    /// Computes the blocks, and calls `take` with the rows `[N, C]` after each block that has a merger, and after the last
    /// one. Later blocks may overwrite the rows.
    fn blocks(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk, take: &mut Take<'_>) -> Result<()> {
        let (n, c, unit) = (chunk.num_patches, self.config.tower.hidden_size, self.config.grid.merge_unit());
        let Chunk { pixels, images, normalize, .. } = chunk.clone();
        let layer = Linear { weight: self.patch_embed, bias: self.patch_bias, adapter: None };
        let mut x = tape.patch_embed(dev, pixels, images, normalize, layer, n)?;
        let windows = match (&chunk.order, self.pos_embed) {
            (Order::Windows { index, attend, .. }, _) => {
                tape.note("vision.patch_embed", 0, x);
                x = tape.gather(dev, x.reshape(&[n / unit, unit * c]), *index, None)?.reshape(&[n, c]);
                attend
            }
            (Order::Input(taps), Some(table)) => {
                tape.pos_embed(dev, x, table, *taps)?;
                tape.note("vision.after_pos_embed", 0, x);
                &chunk.frames
            }
            (Order::Input(_), None) => &chunk.frames,
        };
        let (levels, depth, mut from) = (tape.levels().vision, self.blocks.len(), 0);
        let ends = self.config.tower.deepstack().iter().map(|block| block + 1).chain([depth]);
        for (level, end) in ends.enumerate() {
            let (blocks, config) = (self.blocks.clone(), self.config.clone());
            let Chunk { frames, rope, .. } = chunk.clone();
            let windows = windows.clone();
            x = tape.layers(dev, "vision.block", x, from..end, move |tape, dev, i, x, out| {
                let full = match &config.tower.kind {
                    TowerKind::Windowed { fullatt_block_indexes, .. } => fullatt_block_indexes.contains(&i),
                    TowerKind::DeepStack { .. } => true,
                };
                let attend = if full { &frames } else { &windows };
                let attention = Attention { rope, heads: blocks[i].heads, attend: attend.clone(), cache: i };
                blocks[i].forward(tape, dev, levels.keep(i), attention, x, out)
            })?;
            take(tape, dev, level, x)?;
            from = end;
        }
        Ok(())
    }

    /// Does the same as [`VisionTower::blocks`] without a record for backward. Returns the rows, and drops their gradients.
    fn frozen_blocks(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk) -> Result<Vec<Var>> {
        let mark = dev.mark(tape.region());
        let shape = [chunk.num_patches, self.config.tower.hidden_size];
        let mut rows = Vec::new();
        for _ in 0..self.mergers.len() {
            let x = tape.alloc(dev, self.patch_embed.weight.data.dtype, &shape)?;
            tape.set_trained(x, false);
            rows.push(x);
        }
        tape.unrecorded(dev, |tape, dev| {
            self.blocks(tape, dev, chunk, &mut |_, dev, level, x| dev.copy(x.tensor, rows[level].tensor))
        })?;
        let dropped = rows.clone();
        tape.record(mark, move |b| {
            for x in dropped {
                b.take(x).into_iter().for_each(|gradient| b.free(gradient));
            }
            Ok(())
        });
        Ok(rows)
    }
}

/// Receives the number of a merger and the rows that it joins.
type Take<'a> = dyn FnMut(&mut Tape, &mut Device, usize, Var) -> Result<()> + 'a;

fn num_patches(image: &ImageInput) -> usize {
    image.grid_thw.iter().map(|&n| n as usize).product()
}

/// Divides images into consecutive chunks of at most `most` patches, with at least one image each.
fn chunks(images: &[Arc<ImageInput>], most: usize) -> Vec<&[Arc<ImageInput>]> {
    let mut out = Vec::new();
    let (mut from, mut patches) = (0, 0);
    for (i, image) in images.iter().enumerate() {
        if i > from && patches + num_patches(image) > most {
            out.push(&images[from..i]);
            (from, patches) = (i, 0);
        }
        patches += num_patches(image);
    }
    if from < images.len() {
        out.push(&images[from..]);
    }
    out
}

fn norm(dev: &mut Device, layout: &mut LayoutPart<'_>, tower: &TowerConfig, name: &str, width: usize) -> Result<Norm> {
    let weight = layout.norm(dev, name, width)?;
    let bias = || layout.bias(dev, width, vec![Piece::rows(format!("{name}.bias"), &[width], 0)]);
    let bias = matches!(tower.kind, TowerKind::DeepStack { .. }).then(bias).transpose()?;
    Ok(Norm { weight, bias, eps: NORM_EPS })
}

fn block(dev: &mut Device, layout: &mut LayoutPart<'_>, tower: &TowerConfig, name: &str) -> Result<Layer> {
    let (c, f) = (tower.hidden_size, tower.intermediate_size);
    let padded = f.next_multiple_of(PANEL);
    let input_layernorm = norm(dev, layout, tower, &format!("{name}.norm1"), c)?;
    let qkv_proj = layout.linear(dev, &format!("{name}.attn.qkv"), [3 * c, c], [3 * c, c], true)?;
    let o_proj = layout.linear(dev, &format!("{name}.attn.proj"), [c, c], [c, c], true)?;
    let heads = Heads { q: tower.num_heads, kv: tower.num_heads, dim: tower.head_dim() };
    let post_attention_layernorm = norm(dev, layout, tower, &format!("{name}.norm2"), c)?;
    let mlp = match tower.kind {
        TowerKind::Windowed { .. } => Mlp {
            gelu: None,
            up_proj: layout.gate_up(dev, &format!("{name}.mlp"), f, c, true)?,
            down_proj: layout.linear(dev, &format!("{name}.mlp.down_proj"), [c, padded], [c, f], true)?,
        },
        TowerKind::DeepStack { .. } => Mlp {
            gelu: Some(GeluKind::Tanh),
            up_proj: layout.linear(dev, &format!("{name}.mlp.linear_fc1"), [padded, c], [f, c], true)?,
            down_proj: layout.linear(dev, &format!("{name}.mlp.linear_fc2"), [c, padded], [c, f], true)?,
        },
    };
    Ok(Layer { input_layernorm, qkv_proj, head_norms: None, o_proj, heads, post_attention_layernorm, mlp })
}

/// Returns how the kernel normalizes bytes and cuts them into patches. torchvision subtracts and divides bytes that are
/// not rescaled, with the mean and the standard deviation of bytes.
pub fn normalize(processor: &Processor) -> Normalize {
    let (scale, rescale) = match processor.backend {
        Backend::Pil => (1.0, processor.rescale_factor),
        Backend::Torchvision => ((1.0 / processor.rescale_factor) as f32, 1.0),
    };
    let scaled = |values: [f32; 3]| values.map(|value| value * scale);
    Normalize {
        mean: scaled(processor.image_mean),
        std: scaled(processor.image_std),
        rescale,
        patch_size: processor.patch_size as usize,
        merge_size: processor.merge_size as usize,
        temporal_patch_size: processor.temporal_patch_size as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_images_in_order() {
        let image = |h: u32, w: u32| Arc::new(ImageInput::image([h, w], vec![]));
        let images = [image(64, 64), image(60, 64), image(2, 2), image(2, 126), image(200, 200), image(2, 2)];
        let found: Vec<usize> = chunks(&images, CHUNK_PATCHES).iter().map(|c| c.len()).collect();
        assert_eq!(found, [4, 1, 1]);
        assert!(chunks(&[], 1).is_empty());
    }
}
