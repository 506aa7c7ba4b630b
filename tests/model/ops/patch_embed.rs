//! Tests the patch embedding op against the processor's rows and a linear layer.

use half::bf16;
use omr_data::image::{Backend, ImageInput, Processor, Rgb};
use omr_data_tests::patches;
use omr_model::nn::vision::normalize;
use omr_runtime::device::{Device, Isa};
use omr_runtime::ops::linear;
use omr_runtime::ops::matmul::{Order, Weight, panel_len};
use omr_runtime::ops::patch_embed::{self, Normalize, PatchImage};
use omr_runtime::tensor::{DType, Elem};
use omr_runtime_tests::ops::panels::pack_order;
use omr_runtime_tests::ops::reference::{Random, blank, device, devices, up};

const N: usize = 40;

/// An image, a video and a larger image, together more than one chunk of patches. Their bytes have gaps between
/// them.
struct Case {
    processor: Processor,
    inputs: Vec<ImageInput>,
    images: Vec<PatchImage>,
    pixels: Vec<u8>,
}

impl Case {
    fn new(backend: Backend) -> Case {
        let processor = Processor { min_pixels: 784, backend, ..Processor::default() };
        let mut r = Random::new(2);
        let mut image = |w: u32, h: u32| {
            let data = (0..w * h * 3).map(|_| r.bits() as u8).collect();
            processor.image(&Rgb { width: w, height: h, data }).unwrap()
        };
        let frames = [image(56, 84), image(56, 84), image(56, 84)];
        let (small, large) = (image(28, 28), image(504, 420));
        let inputs = vec![small, processor.video(&frames, 2.0).unwrap(), large];
        let (mut pixels, mut images) = (vec![1, 2, 3], Vec::new());
        for input in &inputs {
            let (frames, grid_thw) = (input.frames as usize, input.grid_thw);
            images.push(PatchImage { offset: pixels.len(), frames, grid_thw });
            pixels.extend_from_slice(&input.pixels);
            pixels.push(77);
        }
        Case { processor, inputs, images, pixels }
    }

    fn norm(&self) -> Normalize {
        normalize(&self.processor)
    }

    /// Returns the processor's rows, rounded to `T`.
    fn rows<T: Elem>(&self) -> Vec<T> {
        self.inputs.iter().flat_map(|i| patches::patches(&self.processor, i)).map(T::from_f32).collect()
    }

    fn run<T: Elem + Default>(&self, dev: &mut Device) -> [Vec<T>; 2] {
        let (norm, rows) = (self.norm(), self.rows::<T>());
        let k = norm.row_len();
        let t = rows.len() / k;
        assert!(t > 1024, "more than one chunk");
        let mut r = Random::new(3);
        let len = panel_len(T::DTYPE, N, k);
        let mut panels = vec![T::default(); len];
        pack_order(T::DTYPE, N, k, &r.values(N * k), &mut panels);
        let w = Weight::new(up(dev, &panels, &[len]), Order::Panels, N, k);
        let pixels = up(dev, &self.pixels, &[self.pixels.len()]);
        let y = blank(dev, T::DTYPE, &[t, N]);
        let bias = up(dev, &r.values::<T>(N), &[N]);
        patch_embed::fwd(dev, pixels, &self.images, &norm, &w, Some(bias), y).unwrap();
        let dy = up(dev, &r.values::<T>(t * N), &[t, N]);
        let zeros = vec![0.0f32; len];
        let (dw, dbias) = (up(dev, &zeros, &[len]), up(dev, &zeros[..N], &[N]));
        patch_embed::bwd(dev, pixels, &self.images, &norm, dy, dw, Some(dbias)).unwrap();

        // Computes the reference from the processor's rows with a linear layer in one call.
        let x = up(dev, &rows, &[t, k]);
        let want = blank(dev, T::DTYPE, &[t, N]);
        linear::fwd(dev, x, &w, Some(bias), None, want).unwrap();
        let (want_dw, want_dbias) = (up(dev, &zeros, &[len]), up(dev, &zeros[..N], &[N]));
        linear::wgrad(dev, x, dy, want_dw, Some(want_dbias)).unwrap();
        let y: Vec<T> = dev.read(y).unwrap();
        assert_eq!(y, dev.read::<T>(want).unwrap());
        let dw: Vec<f32> = dev.read(dw).unwrap();
        assert_eq!(dw, dev.read::<f32>(want_dw).unwrap());
        assert_eq!(dev.read::<f32>(dbias).unwrap(), dev.read::<f32>(want_dbias).unwrap());
        [y, dw.into_iter().map(T::from_f32).collect()]
    }
}

#[test]
fn is_a_linear_layer_over_the_processors_patches() {
    let case = Case::new(Backend::Pil);
    let runs: Vec<_> = devices().iter_mut().filter(|d| d.isa() != Isa::Portable).map(|d| case.run::<f32>(d)).collect();
    assert!(runs.windows(2).all(|w| w[0] == w[1]), "bits depend on threads or instruction sets");
    for case in [case, Case::new(Backend::Torchvision)] {
        case.run::<f32>(&mut device(2, Isa::Portable));
        case.run::<bf16>(&mut device(2, Isa::detect()));
    }
}

#[test]
fn an_image_past_the_pixels_is_an_error() {
    let case = Case::new(Backend::Pil);
    let (norm, dev) = (case.norm(), &mut device(1, Isa::Portable));
    let pixels = up(dev, &[0u8; 28 * 28 * 3], &[28 * 28 * 3]);
    let dw = blank(dev, DType::F32, &[panel_len(DType::F32, N, norm.row_len())]);
    for (image, patches) in [
        (PatchImage { offset: 1, frames: 1, grid_thw: [1, 2, 2] }, 4),
        (PatchImage { offset: 0, frames: 2, grid_thw: [1, 2, 2] }, 4),
        (PatchImage { offset: 0, frames: 1, grid_thw: [1, 1, 2] }, 2),
    ] {
        let dy = blank(dev, DType::F32, &[patches, N]);
        assert!(patch_embed::bwd(dev, pixels, &[image], &norm, dy, dw, None).is_err(), "{image:?}");
    }
}
