//! Patches of images, for any test.

use omr_data::image::{Backend, ImageInput, PatchGrid, Processor};

/// Sizes of the patches of Qwen2.5-VL.
pub const GRID: PatchGrid = PatchGrid { patch_size: 14, temporal_patch_size: 2, merge_size: 2 };

/// Returns the normalized patches, `[t * h * w][3 * temporal_patch_size * patch_size^2]` (channel, frame, row, column), one
/// merge block after another. They equal `pixel_values` of Hugging Face.
pub fn patches(processor: &Processor, input: &ImageInput) -> Vec<f32> {
    let [grid_t, grid_h, grid_w] = input.grid_thw.map(|n| n as usize);
    let [patch, merge, depth] =
        [processor.patch_size, processor.merge_size, processor.temporal_patch_size].map(|n| n as usize);
    let (mean, std) = (processor.image_mean, processor.image_std);
    let value = |byte: u8, channel: usize| match processor.backend {
        // As in Hugging Face, the byte is rescaled in f64 and rounded to f32 before it is normalized.
        Backend::Pil => ((f64::from(byte) * processor.rescale_factor) as f32 - mean[channel]) / std[channel],
        Backend::Torchvision => (f32::from(byte) - mean[channel] * 255.0) / (std[channel] * 255.0),
    };
    let stride = grid_w * patch * 3;
    let frame_len = grid_h * patch * stride;
    let product = |a: usize, b: usize| (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)));
    let mut rows = Vec::with_capacity(grid_t * grid_h * grid_w * 3 * depth * patch * patch);
    for t in 0..grid_t {
        for ((block_h, block_w), (h, w)) in
            product(grid_h / merge, grid_w / merge).flat_map(|block| product(merge, merge).map(move |at| (block, at)))
        {
            let (top, left) = ((block_h * merge + h) * patch, (block_w * merge + w) * patch);
            for (channel, frame) in product(3, depth) {
                let frame = if input.frames == 1 { 0 } else { t * depth + frame };
                for y in top..top + patch {
                    let start = frame * frame_len + y * stride + left * 3 + channel;
                    rows.extend(input.pixels[start..].iter().step_by(3).take(patch).map(|&byte| value(byte, channel)));
                }
            }
        }
    }
    rows
}
