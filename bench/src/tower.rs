//! Benchmarks of the ops of a vision tower with layer norms and learned positions, at the sizes of its patches.

use super::case::{Case, op};
use super::inputs::{Sizes, bytes, gradient, normal, random, weight, zeros};
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::layer_norm::{self, Bwd};
use omr_runtime::ops::pos_embed::{self, Taps};
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::{DType, Tensor};

/// Rows of the position table: a grid of 48 x 48.
const TABLE: usize = 48 * 48;

pub fn layer_norm_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.patches, s.vision.out_len()];
    let weights = [normal(dev, s, &dims[1..])?, normal(dev, s, &dims[1..])?];
    let (x, y) = (normal(dev, s, &dims)?, zeros(dev, s.dtype, &dims)?);
    let stats = zeros(dev, DType::F32, &[s.patches, 2])?;
    let (shape, moved) = (format!("{dims:?}"), bytes(&[x, y, stats]));
    op("layer_norm fwd", s.dtype, shape, 0.0, moved, move |dev| layer_norm::fwd(dev, x, weights, 1e-6, y, stats))
}

pub fn layer_norm_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.patches, s.vision.out_len()];
    let [x, dy, dx] = [normal(dev, s, &dims)?, normal(dev, s, &dims)?, zeros(dev, s.dtype, &dims)?];
    let (gamma, stats) = (normal(dev, s, &dims[1..])?, random(dev, DType::F32, &[s.patches, 2], s.scale)?);
    let dweights = Some([zeros(dev, DType::F32, &dims[1..])?, zeros(dev, DType::F32, &dims[1..])?]);
    op("layer_norm bwd", s.dtype, format!("{dims:?}"), 0.0, bytes(&[x, dy, dx, stats]), move |dev| {
        layer_norm::bwd(dev, Bwd { x, gamma, stats, dy, dx, accumulate: false, dweights })
    })
}

/// Makes taps that are spread over the table.
fn taps(dev: &mut Device, s: Sizes) -> Result<Taps> {
    let indices: Vec<u32> = (0..4 * s.patches).map(|i| (i * 37 % TABLE) as u32).collect();
    Ok(Taps {
        indices: dev.upload(Region::Overlay, &indices, &[s.patches, 4])?,
        weights: random(dev, DType::F32, &[s.patches, 4], 0.5 * s.scale)?,
        segments: Segments::upload(dev, Region::Overlay, &indices)?,
    })
}

fn rows(dev: &mut Device, s: Sizes) -> Result<(Tensor, Taps, String)> {
    let dims = [s.patches, s.vision.out_len()];
    Ok((normal(dev, s, &dims)?, taps(dev, s)?, format!("{dims:?}")))
}

pub fn pos_embed_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let ((x, taps, shape), table) = (rows(dev, s)?, weight(dev, s, TABLE, s.vision.out_len())?);
    let moved = bytes(&[x, x, table.data]);
    op("pos_embed fwd", s.dtype, shape, 0.0, moved, move |dev| pos_embed::fwd(dev, x, &table, &taps))
}

pub fn pos_embed_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let ((dy, taps, shape), (dtable, written)) = (rows(dev, s)?, gradient(dev, s.dtype, TABLE, s.vision.out_len())?);
    let moved = bytes(&[dy]) + 2.0 * written;
    op("pos_embed bwd", s.dtype, shape, 0.0, moved, move |dev| pos_embed::bwd(dev, dy, &taps, dtable))
}
