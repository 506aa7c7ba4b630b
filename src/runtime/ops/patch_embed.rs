//! Patch embeddings of images. U8 pixels are normalised into patch rows, one chunk at a time in the workspace, and
//! multiplied by the projection like the input of any linear layer. The rows are not stored; backward recomputes them.

use crate::device::{Cpu, Device, Gpu, Parts, Region, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::linear;
use crate::ops::matmul::{Order, Weight};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Patches per chunk on the CPU. It is even, so that the bf16 weight gradient pairs the same rows whatever the chunk
/// size.
const CHUNK: usize = 1024;

/// Patches per chunk on a GPU: enough tiles of the projection for every multiprocessor, 19 MB of patch rows.
const GPU_CHUNK: usize = 8192;

/// Patches per work item.
const ITEM: usize = 8;

/// Position and size of an image or video in the pixel buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatchImage {
    /// Offset of the first byte.
    pub offset: usize,
    /// Number of stored frames. An image has 1, which is used for all frames of its patches.
    pub frames: usize,
    /// Number of patches along time, height and width.
    pub grid_thw: [u32; 3],
}

impl PatchImage {
    /// Returns the number of patches.
    pub fn num_patches(&self) -> usize {
        self.grid_thw.iter().map(|&n| n as usize).product()
    }
}

/// Settings of the preprocessor, which define how bytes become a patch row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Normalize {
    /// Mean of each channel after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation of each channel after rescaling.
    pub std: [f32; 3],
    /// Factor that a byte is multiplied by.
    pub rescale: f64,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches along each side of a merge block. The model merges such blocks, and patches are ordered block by block.
    pub merge_size: usize,
    /// Frames per patch.
    pub temporal_patch_size: usize,
}

impl Normalize {
    /// Returns the number of elements of a patch row, in the order (channel, frame, row, column).
    pub fn row_len(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Returns the normalised value of each byte in each channel. Rescales in f64 and normalises in f32, as Hugging
    /// Face does.
    fn table<T: Elem>(&self) -> [[T; 256]; 3] {
        std::array::from_fn(|c| {
            std::array::from_fn(|v| {
                let value = (v as f64 * self.rescale) as f32;
                T::from_f32((value - self.mean[c]) / self.std[c])
            })
        })
    }

    /// Returns the number of bytes of `image`, or an error if its grid or frames do not fit.
    fn bytes(&self, image: &PatchImage) -> Result<usize> {
        let [t, h, w] = image.grid_thw.map(|n| n as usize);
        let frames_fit = image.frames == 1 || image.frames == t * self.temporal_patch_size;
        let holds = frames_fit && self.merge_size > 0 && h % self.merge_size == 0 && w % self.merge_size == 0;
        let want = "a grid of complete merge blocks, with one frame or all frames";
        check::that("patch_embed", holds, want, format!("{image:?}"))?;
        Ok(image.frames * h * w * self.patch_size * self.patch_size * 3)
    }
}

/// Computes y = patches w^T (+ bias). `pixels` (u8) contains each of `images` as `[frames][grid_h * patch][grid_w * patch][3]`
/// from its offset on. w has n = C and k = `norm.row_len()`, and bias is `[C]`. y is `[N, C]` in w's type, where the N rows are the
/// patches of all images in order, merge block by merge block. The normalised pixels are rounded to w's type. Returns
/// an error for other shapes and for an image that reaches past the end of the pixels.
pub fn fwd(
    dev: &mut Device,
    pixels: Tensor,
    images: &[PatchImage],
    norm: &Normalize,
    w: &Weight,
    bias: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    const OP: &str = "patch_embed::fwd";
    let dtype = check::weight(OP, w, w.n, norm.row_len())?;
    let patches = Patches::of(OP, pixels, images, norm)?;
    check::tensor(OP, "y", y, dtype, &[patches.count(), w.n])?;
    dev.note_work("patch_embed", 2.0 * y.rows() as f64 * (w.n * w.k) as f64, moved(&[pixels, w.data, y]));
    each_chunk(dev, dtype, &patches, |dev, rows, from| {
        linear::fwd_part(dev, rows, w, bias, y.slice(from, from + rows.rows()))
    })
}

/// Computes dw += dy^T patches and dbias `[C]` f32 += the sum of dy over the patches. dy is `[N, C]` f32 or bf16; dw is f32, in the device's element order for a weight of
/// dy's type. The pixels and images are those of the forward. Returns the same errors as [`fwd`].
pub fn bwd(
    dev: &mut Device,
    pixels: Tensor,
    images: &[PatchImage],
    norm: &Normalize,
    dy: Tensor,
    dw: Tensor,
    dbias: Option<Tensor>,
) -> Result<()> {
    const OP: &str = "patch_embed::bwd";
    check::compute(OP, "dy", dy)?;
    let patches = Patches::of(OP, pixels, images, norm)?;
    check::tensor(OP, "dy", dy, dy.dtype, &[patches.count(), dy.cols()])?;
    check::flat(OP, "dw", dw, DType::F32, Order::of(dev).len(dy.dtype, dy.cols(), norm.row_len()))?;
    let flops = 2.0 * dy.rows() as f64 * (dy.cols() * norm.row_len()) as f64;
    dev.note_work(OP, flops, moved(&[pixels, dy, dw, dw]));
    each_chunk(dev, dy.dtype, &patches, |dev, rows, from| {
        linear::wgrad_part(dev, rows, dy.slice(from, from + rows.rows()), dw.into(), dbias)
    })
}

/// The patches of the images of a call.
struct Patches<'a> {
    pixels: Tensor,
    images: &'a [PatchImage],
    norm: &'a Normalize,
    /// Index of each image's first patch, followed by the total number of patches.
    starts: Vec<usize>,
}

impl<'a> Patches<'a> {
    /// Numbers the patches. Returns an error if an image has another size than its grid or does not lie in the pixels.
    fn of(op: &'static str, pixels: Tensor, images: &'a [PatchImage], norm: &'a Normalize) -> Result<Patches<'a>> {
        check::flat(op, "pixels", pixels, DType::U8, pixels.len())?;
        let mut starts = vec![0];
        for image in images {
            let end = image.offset.saturating_add(norm.bytes(image)?);
            if end > pixels.len() {
                return check::fail(op, format!("{end} bytes of pixels for {image:?}"), pixels.len().to_string());
            }
            starts.push(starts[starts.len() - 1] + image.num_patches());
        }
        Ok(Patches { pixels, images, norm, starts })
    }

    fn count(&self) -> usize {
        self.starts[self.images.len()]
    }
}

/// Calls `f` with the patch rows of each chunk and the index of its first patch.
fn each_chunk(
    dev: &mut Device,
    dtype: DType,
    of: &Patches<'_>,
    mut f: impl FnMut(&mut Device, Tensor, usize) -> Result<()>,
) -> Result<()> {
    let chunk = if dev.kind().is_gpu() { GPU_CHUNK } else { CHUNK };
    for from in (0..of.count()).step_by(chunk) {
        dev.scope(Region::Workspace, |dev| {
            let dims = [chunk.min(of.count() - from), of.norm.row_len()];
            let rows = dev.alloc(Region::Workspace, dtype, &dims)?;
            dev.op("patch_embed")
                .run(|cpu| by_dtype!(dtype, fill(cpu, of, from, rows)), |gpu| launch(gpu, of, from, rows))?;
            f(dev, rows, from)
        })?;
    }
    Ok(())
}

/// Computes the patch rows from `from` on, with one launch per image.
fn launch(mut gpu: Gpu<'_>, of: &Patches<'_>, from: usize, patches: Tensor) -> Result<()> {
    const THREADS: usize = 256;
    /// Elements per CTA: each thread makes 8 passes of 8 elements.
    const ELEMENTS: usize = THREADS * 64;
    let Patches { pixels, images, norm, ref starts } = *of;
    check::gpu_compute(gpu.op, patches.dtype)?;
    check::count(gpu.op, "elements", patches.len() + ELEMENTS)?;
    let row_bytes = (norm.row_len() * patches.dtype.size()) as u64;
    let to = from + patches.rows();
    for (image, span) in images.iter().zip(starts.windows(2)) {
        let (first, end) = (span[0].max(from), span[1].min(to));
        if first >= end {
            continue;
        }
        let args = params!(patch_embed::Args {
            pixels: gpu.ptr(pixels) + image.offset as u64,
            patches: gpu.ptr(patches) + (first - from) as u64 * row_bytes,
            rescale: norm.rescale,
            mean: norm.mean,
            std: norm.std,
            first: check::count(gpu.op, "patches", first - span[0])?,
            count: (end - first) as i32,
            grid_h: image.grid_thw[1] as i32,
            grid_w: image.grid_thw[2] as i32,
            size: norm.patch_size as i32,
            merge: norm.merge_size as i32,
            depth: norm.temporal_patch_size as i32,
            still: image.frames == 1,
        });
        let ctas = ((end - first) * norm.row_len()).div_ceil(ELEMENTS);
        let smem = 3 * 256 * DType::Bf16.size();
        gpu.launch("patch_embed", "patch_rows", check::launch(gpu.op, ctas, THREADS, smem)?, args)?;
    }
    Ok(())
}

/// Computes the patch rows from `from` on.
fn fill<T: Elem>(cpu: Cpu<'_>, of: &Patches<'_>, from: usize, patches: Tensor) {
    let Patches { pixels, images, norm, ref starts } = *of;
    let len = norm.row_len();
    let table = norm.table::<T>();
    let ([patches], [pixels]) = cpu.memory.tensors([patches], [pixels]);
    let pixels = pixels.of::<u8>();
    let rows = Parts::new(patches.of::<T>(), ITEM * len);
    cpu.pool.run(rows.count(), |i| {
        for (j, row) in rows.take(i).chunks_exact_mut(len).enumerate() {
            let at = from + i * ITEM + j;
            let image = starts.partition_point(|&s| s <= at) - 1;
            patch(&pixels[images[image].offset..], &images[image], norm, &table, at - starts[image], row);
        }
    });
}

/// Computes patch `at` of one image.
fn patch<T: Elem>(
    pixels: &[u8],
    image: &PatchImage,
    norm: &Normalize,
    table: &[[T; 256]; 3],
    at: usize,
    row: &mut [T],
) {
    let [_, grid_h, grid_w] = image.grid_thw.map(|n| n as usize);
    let (size, merge, depth) = (norm.patch_size, norm.merge_size, norm.temporal_patch_size);
    let (t, in_frame) = (at / (grid_h * grid_w), at % (grid_h * grid_w));
    let (block, inner) = (in_frame / (merge * merge), in_frame % (merge * merge));
    let blocks_w = grid_w / merge;
    let top = (block / blocks_w * merge + inner / merge) * size;
    let left = (block % blocks_w * merge + inner % merge) * size;
    let stride = grid_w * size * 3;
    let frame_len = grid_h * size * stride;
    // The single frame of an image is used for all frames of its patches, so it is converted once and copied.
    let distinct = if image.frames == 1 { 1 } else { depth };
    for ((channel, table), row) in table.iter().enumerate().zip(row.chunks_exact_mut(depth * size * size)) {
        for (frame, to) in row.chunks_exact_mut(size * size).take(distinct).enumerate() {
            let from = &pixels[(t * distinct + frame) * frame_len + top * stride + left * 3..];
            for (line, from) in to.chunks_exact_mut(size).zip(from.chunks(stride)) {
                for (x, pixel) in line.iter_mut().zip(from.chunks_exact(3)) {
                    *x = table[pixel[channel] as usize];
                }
            }
        }
        for copy in distinct..depth {
            row.copy_within(..size * size, copy * size * size);
        }
    }
}
