//! Reads and writes JPEG with libjpeg-turbo, in the copy that mozjpeg ships. Its default settings (exact integer
//! transform, interpolated colour planes) are those of Pillow, torchvision and OpenCV, so the pixels are the same.

use std::io::{self, BufRead};

use image::error::DecodingError;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use mozjpeg::{ColorSpace, Compress, Decompress, Marker};

use super::Rgb;
use omr_base::bounds::caught;

/// Name and version of the JPEG decoder. Runs, stored answers and the server's fingerprint contain it, because another
/// decoder produces other pixels.
pub const JPEG_DECODER: &str = "mozjpeg-sys 2.2.3";

/// First bytes of a segment with EXIF data.
const EXIF: &[u8] = b"Exif\0\0";

/// A JPEG whose header has been read.
pub struct Jpeg<R>(Decompress<R>);

impl<R: BufRead> Jpeg<R> {
    /// Reads the header. `reader` should read from memory, because its errors look like those of a damaged image.
    pub fn open(reader: R) -> ImageResult<Jpeg<R>> {
        let decoder = call(|| Decompress::with_markers(&[Marker::APP(1)]).from_reader(reader))?;
        match decoder.components().len() {
            1 | 3 | 4 => Ok(Jpeg(decoder)),
            n => Err(damaged(format!("{n} colour components"))),
        }
    }
}

impl<R: BufRead> ImageDecoder for Jpeg<R> {
    fn dimensions(&self) -> (u32, u32) {
        (self.0.width() as u32, self.0.height() as u32)
    }

    fn color_type(&self) -> ColorType {
        if self.0.components().len() == 1 { ColorType::L8 } else { ColorType::Rgb8 }
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.0.markers().find_map(|marker| Some(marker.data.strip_prefix(EXIF)?.to_vec())))
    }

    fn read_image(self, buf: &mut [u8]) -> ImageResult<()> {
        let (width, decoder) = (self.0.width(), self.0);
        call(|| match decoder.components().len() {
            1 => decoder.grayscale()?.read_scanlines_into(buf).map(drop),
            3 => decoder.rgb()?.read_scanlines_into(buf).map(drop),
            _ => {
                let (mut rows, mut inks) = (decoder.to_colorspace(ColorSpace::JCS_CMYK)?, vec![[0; 4]; width]);
                for row in buf.chunks_exact_mut(3 * width) {
                    rows.read_scanlines_into(&mut inks)?;
                    for (pixel, [cyan, magenta, yellow, black]) in row.chunks_exact_mut(3).zip(&inks) {
                        pixel.copy_from_slice(&[cyan, magenta, yellow].map(|ink| under_black(*ink, *black)));
                    }
                }
                Ok(())
            }
        })
    }

    fn read_image_boxed(self: Box<Self>, buf: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buf)
    }
}

/// Converts an ink of a CMYK image to red, green or blue like Pillow. A JPEG stores inverted values, 255 for no ink, as
/// Adobe's programs write them.
fn under_black(stored: u8, black: u8) -> u8 {
    let light = u32::from(black);
    let product = u32::from(255 - stored) * light + 128;
    light.saturating_sub(((product >> 8) + product) >> 8) as u8
}

/// Returns the image as a JPEG with a quality of 1 to 100, or `None` if `rgb` is inconsistent.
pub fn jpeg(rgb: &Rgb, quality: u8) -> Option<Vec<u8>> {
    let [width, height] = [rgb.width, rgb.height].map(|length| length as usize);
    let encode = || {
        let mut encoder = Compress::new(ColorSpace::JCS_RGB);
        encoder.set_size(width, height);
        encoder.set_fastest_defaults();
        encoder.set_quality(quality.into());
        let mut encoder = encoder.start_compress(Vec::new())?;
        encoder.write_scanlines(&rgb.data)?;
        encoder.finish()
    };
    (rgb.data.len() == 3 * width * height).then(|| call(encode).ok()).flatten()
}

/// Calls the library, which reports errors by unwinding.
fn call<T>(work: impl FnOnce() -> io::Result<T>) -> ImageResult<T> {
    caught(work).and_then(|done| done.map_err(|error| error.to_string())).map_err(damaged)
}

fn damaged(what: String) -> ImageError {
    ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), what))
}
