//! Tests of kernels/patch_embed.cu: patch rows equal to the CPU's bit for bit, and the projection over them.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::linear;
use omr_runtime::ops::matmul::Order;
use omr_runtime::ops::patch_embed::{self, Normalize, PatchImage};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{cpu, random, up, weight};
use crate::kernels::{Outcome, emu, equal, mutate_sites, mutate_source, same_bits};

struct Case {
    norm: Normalize,
    images: Vec<PatchImage>,
    pixels: Vec<u8>,
}

impl Case {
    /// Creates images of (frames, grid) with gaps between them.
    fn new(patch_size: usize, merge_size: usize, temporal_patch_size: usize, images: &[(usize, [u32; 3])]) -> Case {
        // CLIP's constants, as in the model's preprocessor.
        let norm = Normalize {
            mean: [0.48145466, 0.4578275, 0.40821073],
            std: [0.26862954, 0.261_302_6, 0.275_777_1],
            rescale: 1.0 / 255.0,
            patch_size,
            merge_size,
            temporal_patch_size,
        };
        let mut random = random(patch_size as u64);
        let (mut pixels, mut at) = (vec![1, 2, 3], Vec::new());
        for &(frames, grid_thw) in images {
            at.push(PatchImage { offset: pixels.len(), frames, grid_thw });
            let bytes = frames * (grid_thw[1] * grid_thw[2]) as usize * patch_size * patch_size * 3;
            pixels.extend((0..bytes).map(|_| random.next_u32() as u8));
            pixels.push(77);
        }
        Case { norm, images: at, pixels }
    }

    fn patches(&self) -> usize {
        self.images.iter().map(|i| i.num_patches()).sum()
    }

    /// Runs the op with n weight columns that each select only element `column(n)` of a patch. The result is bits, not
    /// sums.
    fn elements(&self, dev: &mut Device, n: usize, column: impl Fn(usize) -> usize) -> Outcome<Vec<bf16>> {
        let k = self.norm.row_len();
        let mut w = vec![bf16::ZERO; n * k];
        for i in 0..n {
            w[i * k + column(i)] = bf16::ONE;
        }
        self.run(dev, &w, None, n)
    }

    fn run(&self, dev: &mut Device, w: &[bf16], bias: Option<&[bf16]>, n: usize) -> Outcome<Vec<bf16>> {
        let w = weight(dev, w, n, self.norm.row_len());
        let pixels = up(dev, &self.pixels, &[self.pixels.len()]);
        let y = dev.alloc(Region::Overlay, DType::Bf16, &[self.patches(), n])?;
        let bias = bias.map(|bias| up(dev, bias, &[n]));
        patch_embed::fwd(dev, pixels, &self.images, &self.norm, &w, bias, y)?;
        Ok(dev.read(y)?)
    }
}

/// Returns an image, a video of two times two frames, a single merge block, and a wide image.
fn images() -> Case {
    Case::new(14, 2, 2, &[(1, [1, 4, 6]), (4, [2, 4, 2]), (1, [1, 2, 2]), (1, [1, 2, 10])])
}

#[test]
fn patch_rows_are_the_cpus() {
    let whole = images();
    let k = whole.norm.row_len();
    let rows = whole.elements(&mut emu(), k, |n| n).unwrap();
    equal("14 x 14 x 2", &rows, &whole.elements(&mut cpu(), k, |n| n).unwrap()).unwrap();
    // Rows of 27, 12 and 96 elements, so that a row is or is not a multiple of 4 and of 8 elements; other block sizes;
    // one frame and three frames per patch.
    for (size, merge, depth, frames) in [(3, 2, 1, 1), (2, 1, 1, 2), (4, 3, 2, 2), (1, 2, 3, 3)] {
        let times = (frames / depth).max(1) as u32;
        let case = Case::new(size, merge, depth, &[(frames, [times, 6, 6]), (1, [1, 6, 12])]);
        let k = case.norm.row_len();
        let rows = case.elements(&mut emu(), k, |n| n).unwrap();
        equal(&format!("{size} {merge} {depth}"), &rows, &case.elements(&mut cpu(), k, |n| n).unwrap()).unwrap();
    }
}

#[test]
fn chunks_make_no_difference() {
    // More patches than the workspace holds at once, with images across the border.
    let case = Case::new(4, 2, 2, &[(1, [1, 2, 4000]), (1, [1, 20, 30])]);
    let column = |n: usize| n * 13 % case.norm.row_len();
    equal("chunks", &case.elements(&mut emu(), 5, column).unwrap(), &case.elements(&mut cpu(), 5, column).unwrap())
        .unwrap();
}

#[test]
fn is_a_linear_layer_over_the_rows() {
    let case = images();
    let (k, n) = (case.norm.row_len(), 40);
    let mut dev = emu();
    let rows = case.elements(&mut dev, k, |n| n).unwrap();
    let mut random = random(1);
    let w: Vec<bf16> = (0..n * k).map(|_| bf16::from_f32(random.uniform_f32() - 0.5)).collect();
    let bias: Vec<bf16> = (0..n).map(|_| bf16::from_f32(random.uniform_f32() - 0.5)).collect();
    let got = case.run(&mut dev, &w, Some(&bias), n).unwrap();
    let x = up(&mut dev, &rows, &[case.patches(), k]);
    let y = dev.alloc(Region::Overlay, DType::Bf16, &[case.patches(), n]).unwrap();
    let w = weight(&mut dev, &w, n, k);
    let bias = up(&mut dev, &bias, &[n]);
    linear::fwd(&mut dev, x, &w, Some(bias), None, y).unwrap();
    equal("y", &got, &dev.read::<bf16>(y).unwrap()).unwrap();
}

#[test]
fn gradient_is_the_linear_layers_over_the_rows() {
    // More patches than the workspace holds at once, with images across the border, and patches of 16 pixels.
    for case in [
        images(),
        Case::new(16, 2, 2, &[(1, [1, 4, 6]), (4, [2, 2, 2])]),
        Case::new(4, 2, 2, &[(1, [1, 2, 4000]), (1, [1, 20, 30])]),
    ] {
        let (k, n) = (case.norm.row_len(), 6);
        let mut random = random(2);
        let dy: Vec<bf16> = (0..case.patches() * n).map(|_| bf16::from_f32(random.uniform_f32() - 0.5)).collect();
        let mut dev = emu();
        let rows = case.elements(&mut dev, k, |n| n).unwrap();
        let x = up(&mut dev, &rows, &[case.patches(), k]);
        let dy = up(&mut dev, &dy, &[case.patches(), n]);
        let len = Order::Rows.len(DType::Bf16, n, k);
        let gradients = [(); 2].map(|()| up(&mut dev, &vec![1.0f32; len], &[len]));
        let biases = [(); 2].map(|()| up(&mut dev, &vec![1.0f32; n], &[n]));
        linear::wgrad(&mut dev, x, dy, gradients[0], Some(biases[0])).unwrap();
        let pixels = up(&mut dev, &case.pixels, &[case.pixels.len()]);
        patch_embed::bwd(&mut dev, pixels, &case.images, &case.norm, dy, gradients[1], Some(biases[1])).unwrap();
        let [want, got] = gradients.map(|g| dev.read::<f32>(g).unwrap());
        equal("dw", &got, &want).unwrap();
        let [want_dbias, got] = biases.map(|g| dev.read::<f32>(g).unwrap());
        equal("dbias", &got, &want_dbias).unwrap();
        assert!(want[0] != 1.0, "nothing was added");
    }
}

#[test]
fn no_schedule_changes_a_bit() {
    let case = Case::new(4, 2, 2, &[(1, [1, 6, 6]), (2, [1, 2, 4])]);
    same_bits(5, |dev| case.elements(dev, 64, |n| n));
}

fn probe(dev: &mut Device) -> Outcome {
    for case in [Case::new(4, 2, 2, &[(1, [1, 4, 6]), (4, [2, 2, 2])]), Case::new(3, 1, 1, &[(2, [2, 3, 2])])] {
        let k = case.norm.row_len();
        equal("rows", &case.elements(dev, k, |n| n)?, &case.elements(&mut cpu(), k, |n| n)?)?;
    }
    Ok(())
}

#[test]
fn every_barrier_is_needed() {
    mutate_sites(&["kernels/patch_embed.cu"], 3, probe);
}

#[test]
fn mistakes_in_the_kernel_are_seen() {
    mutate_source("patch_embed", "at / per_frame * args.depth + frame", "at / per_frame * args.depth", 1, probe);
    mutate_source("patch_embed", "inner / args.merge", "inner % args.merge", 1, probe);
    mutate_source("patch_embed", "args.std[1]", "args.std[2]", 1, probe);
}
