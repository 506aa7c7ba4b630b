//! The vision tower: computes decoder rows from pixels. Patches pass through the blocks in window order. Some blocks
//! attend to whole frames, the others within windows. The merger joins 2 x 2 patches into one row, in input order.

use std::path::Path;
use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::{ImageInput, PatchGrid, Processor};
use crate::model::config::{MediaConfig, NormKind, TowerConfig};
use crate::model::layer::{Layer, Mixer, Mlp, Norm};
use crate::model::layers::{Attend, Attention, Rope};
use crate::model::layout::{LayoutPart, ParamLayout};
use crate::model::params::{Linear, Matrix, Part, Piece};
use crate::model::positions;
use crate::model::tape::{Recompute, Tape, Var};
use crate::model::weights::WeightFiles;
use crate::ops::attend::Heads;
use crate::ops::matmul::PANEL;
use crate::ops::patch_embed::{Normalize, PatchImage};
use crate::tensor::{DType, Tensor};

/// Epsilon of the tower's norms. The configuration has no key for it.
const NORM_EPS: f32 = 1e-6;

/// Maximum number of patches that pass through the tower together, which bounds the memory of a recomputed tower. A
/// single image with more patches forms a chunk of its own.
///
/// Forward and data gradients do not depend on this number. Weight gradients are one chain of sums over the patches in
/// ascending order, chunk after chunk. If each chunk ends at a step of the chain (64 patches for the norms, see
/// `docs/design/training.md`), weight gradients do not depend on this number either. Otherwise the number affects their
/// rounding, so no plan changes it.
pub const CHUNK_PATCHES: usize = 8192;

/// The tower's parameters.
#[derive(Clone)]
pub struct VisionTower {
    config: Arc<MediaConfig>,
    /// Conversion of pixels to the numbers that the tower takes.
    pub normalize: Normalize,
    patch_embed: Matrix,
    pub(super) blocks: Arc<[Layer]>,
    ln_q: Norm,
    pub(super) fc1: Linear,
    pub(super) fc2: Linear,
    /// Maximum number of patches of a chunk of images. An image with more patches forms a chunk of its own.
    pub chunk_patches: usize,
    /// False if the patch embedding and the blocks are frozen.
    pub trains_blocks: bool,
    /// False if the merger is frozen.
    pub trains_merger: bool,
}

/// The data on the device that one pass over some images reads.
#[derive(Clone)]
struct Chunk {
    num_patches: usize,
    pixels: Tensor,
    images: Arc<[PatchImage]>,
    window_index: Tensor,
    reverse_index: Tensor,
    windows: Attend,
    frames: Attend,
    rope: Rope,
}

impl VisionTower {
    /// Adds the tower's parameters to `layout`.
    pub fn new(dev: &mut Device, layout: &mut ParamLayout, config: &MediaConfig) -> Result<VisionTower> {
        let (tower, grid) = (&config.tower, config.grid);
        let (c, merged, prefix) = (tower.hidden_size, tower.hidden_size * grid.merge_unit(), tower.prefix);
        let kernel = [c, 3, grid.temporal_patch_size, grid.patch_size, grid.patch_size];
        let kernel = vec![Piece::rows(format!("{prefix}.patch_embed.proj.weight"), &kernel, 0)];
        let mut part = layout.within(Part::Tower);
        let patch_embed = part.matrix(dev, c, grid.patch_len(), kernel)?;
        let mut blocks = Vec::new();
        for i in 0..tower.depth {
            blocks.push(block(dev, &mut part, tower, &format!("{prefix}.blocks.{i}"))?);
        }
        let mut part = layout.within(Part::Merger);
        Ok(VisionTower {
            config: Arc::new(config.clone()),
            normalize: normalize(&Processor::default(), grid),
            patch_embed,
            blocks: blocks.into(),
            ln_q: norm(dev, &mut part, tower, &format!("{prefix}.merger.ln_q"))?,
            fc1: part.linear(dev, &format!("{prefix}.merger.mlp.0"), [merged, merged], merged, true)?,
            fc2: part.linear(dev, &format!("{prefix}.merger.mlp.2"), [tower.out_hidden_size, merged], merged, true)?,
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
        self.config.tower.out_hidden_size
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
        if tape.recording() && !self.trains() {
            return tape.unrecorded(dev, |tape, dev| self.forward(tape, dev, images, out));
        }
        let merge = self.config.grid.merge_size;
        for (i, image) in images.iter().enumerate() {
            positions::check_grid(image.grid_thw, merge, i)?;
            self.check_pixels(image, i)?;
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
        let p = positions::vision(&self.config, &grids);
        let mut reverse = vec![0u32; p.window_index.len()];
        p.window_index.iter().enumerate().for_each(|(at, &block)| reverse[block as usize] = at as u32);
        let num_patches = p.pos_hw.len();
        let table = [num_patches, self.config.tower.head_dim() / 2];
        Ok(Chunk {
            num_patches,
            pixels,
            images: places.into(),
            window_index: tape.upload(dev, &p.window_index, &[p.window_index.len()])?,
            reverse_index: tape.upload(dev, &reverse, &[reverse.len()])?,
            windows: Attend::packed(tape, dev, &p.cu_window_seqlens, false)?,
            frames: Attend::packed(tape, dev, &p.cu_seqlens, false)?,
            rope: Rope { cos: tape.upload(dev, &p.rope.cos, &table)?, sin: tape.upload(dev, &p.rope.sin, &table)? },
        })
    }

    fn encode(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk, out: Var) -> Result<()> {
        let (n, c, unit) = (chunk.num_patches, self.config.tower.hidden_size, self.config.grid.merge_unit());
        let x = match tape.recording() && !self.trains_blocks {
            true => self.frozen_blocks(tape, dev, chunk)?,
            false => self.blocks(tape, dev, chunk)?,
        };
        let x = self.ln_q.forward(tape, dev, x)?.reshape(&[n / unit, unit * c]);
        let x = tape.linear_gelu(dev, x, self.fc1)?;
        let x = tape.linear(dev, x, self.fc2)?;
        tape.gather_into(dev, x, chunk.reverse_index, out)
    }

    /// Computes the rows after the last block, `[N, C]`.
    fn blocks(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk) -> Result<Var> {
        let (n, c, unit) = (chunk.num_patches, self.config.tower.hidden_size, self.config.grid.merge_unit());
        let Chunk { pixels, images, .. } = chunk.clone();
        let x = tape.patch_embed(dev, pixels, images, self.normalize, self.patch_embed, n)?;
        tape.note("vision.patch_embed", 0, x);
        let x = tape.gather(dev, x.reshape(&[n / unit, unit * c]), chunk.window_index)?.reshape(&[n, c]);
        let (blocks, config, levels) = (self.blocks.clone(), self.config.clone(), tape.levels().vision);
        let Chunk { windows, frames, rope, .. } = chunk.clone();
        tape.layers(dev, "vision.block", x, blocks.len(), move |tape, dev, i, x, out| {
            let attend = if config.tower.fullatt_block_indexes.contains(&i) { &frames } else { &windows };
            let heads = blocks[i].mixer.heads();
            let attention = Attention { rope, heads, attend: attend.clone(), cache: i };
            blocks[i].forward(tape, dev, levels.keep(i), attention, x, out)
        })
    }

    /// Does the same as [`VisionTower::blocks`] without a record for backward, and drops the gradient of the rows.
    fn frozen_blocks(&self, tape: &mut Tape, dev: &mut Device, chunk: &Chunk) -> Result<Var> {
        let mark = dev.mark(tape.region());
        let x =
            tape.alloc(dev, self.patch_embed.weight.data.dtype, &[chunk.num_patches, self.config.tower.hidden_size])?;
        tape.set_trained(x, false);
        tape.unrecorded(dev, |tape, dev| {
            let rows = self.blocks(tape, dev, chunk)?;
            dev.copy(rows.tensor, x.tensor)
        })?;
        tape.record(mark, move |b| {
            b.take(x).into_iter().for_each(|gradient| b.free(gradient));
            Ok(())
        });
        Ok(x)
    }
}

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

fn norm(dev: &mut Device, layout: &mut LayoutPart<'_>, tower: &TowerConfig, name: &str) -> Result<Norm> {
    Ok(Norm { weight: layout.norm(dev, name, tower.hidden_size)?, kind: NormKind::Rms, eps: NORM_EPS })
}

fn block(dev: &mut Device, layout: &mut LayoutPart<'_>, tower: &TowerConfig, name: &str) -> Result<Layer> {
    let (c, f) = (tower.hidden_size, tower.intermediate_size);
    let input_layernorm = norm(dev, layout, tower, &format!("{name}.norm1"))?;
    let mixer = Mixer::Attention {
        qkv_proj: layout.linear(dev, &format!("{name}.attn.qkv"), [3 * c, c], c, true)?,
        head_norms: None,
        o_proj: layout.linear(dev, &format!("{name}.attn.proj"), [c, c], c, true)?,
        heads: Heads { q: tower.num_heads, kv: tower.num_heads, dim: tower.head_dim() },
    };
    Ok(Layer {
        input_layernorm,
        mixer,
        post_attention_layernorm: norm(dev, layout, tower, &format!("{name}.norm2"))?,
        mlp: Mlp::SwiGlu {
            gate_up_proj: layout.gate_up(dev, &format!("{name}.mlp"), f, c, true)?,
            down_proj: layout.linear(dev, &format!("{name}.mlp.down_proj"), [c, f.next_multiple_of(PANEL)], f, true)?,
        },
    })
}

/// Combines the settings of an image processor and the sizes of patches into the conversion of pixels.
pub fn normalize(processor: &Processor, grid: PatchGrid) -> Normalize {
    Normalize {
        mean: processor.image_mean,
        std: processor.image_std,
        rescale: processor.rescale_factor,
        patch_size: grid.patch_size,
        merge_size: grid.merge_size,
        temporal_patch_size: grid.temporal_patch_size,
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
