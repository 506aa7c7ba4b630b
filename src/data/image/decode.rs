//! Decodes PNG, JPEG, WebP, GIF (first frame), BMP and TIFF (first page) to RGB, with the result of Pillow's
//! `convert("RGB")`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::Rgb;
use super::jpeg::Jpeg;
use omr_base::bounds::Budget;
use omr_base::config::{Image16Bit, ImageAlpha};
use omr_base::error::{Error, Result, is_of_file};

/// Maximum size of an image; checked from its header, before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum of width times height.
    pub max_pixels: u64,
    /// Maximum width and maximum height.
    pub max_side: u32,
}

impl Default for Limits {
    /// Returns 178,956,970 pixels, the limit of Pillow and vLLM, and a side of 65,535, the limit of JPEG.
    fn default() -> Limits {
        Limits { max_pixels: 178_956_970, max_side: 65_535 }
    }
}

/// Bytes of pixels that all threads together may decode and resize at once. A larger image is decoded alone.
const IN_WORK: u64 = 512 << 20;
static WORK: Budget = Budget::new(IN_WORK);
/// Factor of the limit on decoded bytes, which is `BYTES_A_PIXEL * max_pixels`. An image with 8 bytes per pixel (16-bit
/// RGBA) may have half as many pixels as `max_pixels`.
const BYTES_A_PIXEL: u64 = 4;
/// Maximum bytes of text and profiles that a PNG may decompress; the limit of Pillow.
const PNG_CHUNKS: u64 = 64 << 20;
/// Maximum number of pixels that one bit of a JPEG can represent: every unit of at most 32 x 32 takes at least one bit.
const PIXELS_A_BIT: u64 = 32 * 32;

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];

/// Treatment of the values of an image that RGB with 8 bits cannot hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoding {
    /// Treatment of transparent images.
    pub alpha: ImageAlpha,
    /// Treatment of grey images with 16 bits.
    pub grey: Image16Bit,
}

impl From<ImageAlpha> for Decoding {
    fn from(alpha: ImageAlpha) -> Decoding {
        Decoding { alpha, grey: Image16Bit::Clip }
    }
}

/// Numbers of images that were clipped, by the folder of their rows.
static CLIPPED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Returns a line for each folder of rows with grey images of 16 bits that were clipped: how often one was decoded.
pub fn clipped() -> Vec<String> {
    let clipped = CLIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |(folder, count): (&PathBuf, &u64)| {
        format!("{}: {count} images of 16 bits were decoded with clipped values", folder.display())
    };
    clipped.iter().map(line).collect()
}

/// Counts an image of 16 bits that was clipped. The first one of a folder is a warning. `place` begins with the file.
fn count_clipped(place: &str) {
    let file = Path::new(place.split(" row ").next().unwrap_or(place));
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut clipped = CLIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = clipped.entry(folder.to_owned()).or_default();
    *count += 1;
    if *count == 1 {
        tracing::warn!(
            "{place}: a grey image with 16 bits: values above 255 are clipped to white, as with Pillow. \
             image_16_bit=upper uses the upper 8 bits. Further images of this folder are only counted."
        );
    }
}

/// Reason why an image is refused.
#[derive(Debug)]
pub enum Refused {
    /// The data is not an image, or is a broken one.
    Broken(Error),
    /// The image is empty or larger than the limits.
    Size(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Broken(error) | Refused::Size(error) => error,
        }
    }
}

/// Number of bytes that contain the header of nearly every JPEG. If the header lies within them, nothing else is read.
const JPEG_HEADER: u64 = 1 << 16;
/// Maximum number of scans of a JPEG. Each one may visit all pixels and take only a few bytes; encoders write about ten.
const SCANS: usize = 500;

/// A readable image. The decoders are compiled for it only, because code for each type of reader would be much code.
trait Source: BufRead + Seek {}
impl<R: BufRead + Seek> Source for R {}

/// Reads the header of an image and checks it against `limits`.
fn open<'a>(
    reader: Box<dyn Source + 'a>,
    format: ImageFormat,
    len: u64,
    limits: &Limits,
    place: &str,
) -> std::result::Result<Box<dyn ImageDecoder + 'a>, Refused> {
    let decoder: Box<dyn ImageDecoder + 'a> = if format == ImageFormat::Jpeg {
        Box::new(Jpeg::open(reader).map_err(broken(place))?)
    } else {
        let mut reader = ImageReader::with_format(reader, format);
        if format == ImageFormat::Png {
            // The other decoders take their limits later, but the PNG decoder reads profiles when it is created.
            let mut chunks = image::Limits::no_limits();
            chunks.max_alloc = Some(PNG_CHUNKS);
            reader.limits(chunks);
        }
        Box::new(reader.into_decoder().map_err(broken(place))?)
    };
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > limits.max_pixels || width.max(height) > limits.max_side {
        let expected = format!("1 to {} pixels, sides up to {}", limits.max_pixels, limits.max_side);
        return Err(Refused::Size(Error::input(place, format!("{width} x {height} pixels"), expected)));
    }
    let most = BYTES_A_PIXEL * limits.max_pixels;
    if decoder.total_bytes() > most {
        let found = format!("{width} x {height} pixels of {} bytes", decoder.total_bytes() / pixels);
        return Err(Refused::Size(Error::input(place, found, format!("at most {most} bytes"))));
    }
    if format == ImageFormat::Jpeg && len.saturating_mul(8 * PIXELS_A_BIT) < pixels {
        let found = format!("a JPEG file of {len} bytes that declares {width} x {height} pixels");
        return Err(Refused::Broken(Error::input(place, found, "a complete file")));
    }
    Ok(decoder)
}

fn broken(place: &str) -> impl Fn(image::ImageError) -> Refused {
    let place = place.to_owned();
    move |e| {
        Refused::Broken(match e {
            image::ImageError::IoError(source) if !is_of_file(&source) => {
                Error::Unreadable { place: place.clone(), source }
            }
            e => Error::input(&place, format!("a damaged image ({e})"), "an intact image"),
        })
    }
}

fn format_of(bytes: &[u8], len: u64, place: &str) -> std::result::Result<ImageFormat, Refused> {
    let format = image::guess_format(bytes).ok().filter(|f| FORMATS.contains(f));
    format.ok_or_else(|| {
        let found = format!("{len} bytes that are not an image");
        Refused::Broken(Error::input(place, found, "a PNG, JPEG, WebP, GIF, BMP or TIFF file"))
    })
}

/// Properties of an image that its header states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width and height of the image after [`decode`].
    pub size: [u32; 2],
    /// True for a JPEG, whose pixels depend on [`super::JPEG_DECODER`].
    pub is_jpeg: bool,
}

/// Reads the header of an image. Reads only a small part of a large file.
pub fn header<R: Read + Seek>(mut reader: R, limits: &Limits, place: &str) -> std::result::Result<Header, Refused> {
    let failed = |e: std::io::Error| broken(place)(image::ImageError::IoError(e));
    let len = reader.seek(SeekFrom::End(0)).and_then(|len| reader.rewind().map(|()| len)).map_err(failed)?;
    let mut start = Vec::new();
    reader.by_ref().take(JPEG_HEADER).read_to_end(&mut start).map_err(failed)?;
    let format = format_of(&start, len, place)?;
    let opened = if format == ImageFormat::Jpeg {
        if let Ok(opened) = open(Box::new(Cursor::new(&start)), format, len, limits, place) {
            return Ok(header_of(opened, format));
        }
        // An error of the disk must not look like a damaged image, so everything is read first.
        reader.read_to_end(&mut start).map_err(failed)?;
        open(Box::new(Cursor::new(&start)), format, len, limits, place)?
    } else {
        reader.rewind().map_err(failed)?;
        open(Box::new(BufReader::new(reader)), format, len, limits, place)?
    };
    Ok(header_of(opened, format))
}

/// Returns the header of an image, with its size after rotation to upright.
fn header_of(mut decoder: Box<dyn ImageDecoder + '_>, format: ImageFormat) -> Header {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let (width, height) = decoder.dimensions();
    let size = match decoder.orientation() {
        Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) => [height, width],
        _ => [width, height],
    };
    Header { size, is_jpeg: format == ImageFormat::Jpeg }
}

/// Decodes an image, regardless of its file name, and rotates it upright by its EXIF orientation.
///
/// - Alpha is dropped. [`decode_then`] can put transparent images onto white instead.
/// - 16-bit colours keep their high byte; 16-bit grey is clipped at 255, unless [`Decoding`] says otherwise.
/// - A GIF's first frame has a black background where it does not fill the screen.
///
/// Errors begin with `place` (the file or the row).
pub fn decode(bytes: &[u8], limits: &Limits, place: &str) -> Result<Rgb> {
    decode_then(bytes, limits, ImageAlpha::Drop, place, |image| image)
}

/// Decodes like [`decode`], with this treatment of alpha and of 16 bits, and calls `then` with the image. Both steps count towards the bytes that all threads may
/// process at once. `then` should reduce the image, and must not decode another image.
pub fn decode_then<T>(
    bytes: &[u8],
    limits: &Limits,
    decoding: impl Into<Decoding>,
    place: &str,
    then: impl FnOnce(Rgb) -> T,
) -> Result<T> {
    let decoding = decoding.into();
    let (format, len) = (format_of(bytes, bytes.len() as u64, place)?, bytes.len() as u64);
    let mut decoder = open(Box::new(Cursor::new(bytes)), format, len, limits, place)?;
    let (width, height) = decoder.dimensions();
    let _taken = WORK.take(decoder.total_bytes());
    if format == ImageFormat::Jpeg {
        let scans = jpeg_scans(bytes).ok_or_else(|| Error::input(place, "a truncated JPEG file", "a complete one"))?;
        if scans > SCANS {
            return Err(Error::input(place, format!("a JPEG of {scans} scans"), format!("at most {SCANS}")));
        }
    }
    let mut memory = image::Limits::no_limits();
    // The limit is 8 bytes per pixel (16-bit RGBA), doubled for the decoder's other buffers, plus 16 MiB for its
    // tables.
    memory.max_alloc = Some(16 * u64::from(width) * u64::from(height) + (1 << 24));
    decoder.set_limits(memory).map_err(broken(place))?;
    // An unreadable orientation does not make the image invalid; Pillow ignores it too.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken(place))?;
    image.apply_orientation(orientation);
    let is_clipped = |image: &image::ImageBuffer<image::Luma<u16>, Vec<u16>>| image.iter().any(|value| *value > 255);
    if decoding.grey == Image16Bit::Clip && image.as_luma16().is_some_and(is_clipped) {
        count_clipped(place);
    }
    let image = to_rgb(image, decoding)
        .ok_or_else(|| Error::input(place, "an unsupported pixel format", "grey, colour or palette"))?;
    Ok(then(image))
}

/// Converts like Pillow's `convert("RGB")`, which repeats grey and drops alpha, after putting a transparent image onto
/// white if `alpha` is `White`, and with the upper bits of grey values if `grey` is `Upper`.
fn to_rgb(image: DynamicImage, Decoding { alpha, grey }: Decoding) -> Option<Rgb> {
    let high = |v: u16| (v >> 8) as u8;
    let flat = |value: u8, opacity: u8| match alpha {
        ImageAlpha::White => onto_white(value, opacity),
        ImageAlpha::Drop => value,
    };
    let (width, height) = (image.width(), image.height());
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => without_alpha(image.into_raw(), flat),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [flat(p[0], p[1]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high)).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(|value| flat(high(value), high(p[3])))).collect()
        }
        DynamicImage::ImageLuma16(image) if grey == Image16Bit::Upper => {
            image.pixels().flat_map(|p| [high(p[0]); 3]).collect()
        }
        // Values are clipped instead of reduced to their high byte, because Pillow clips this format and the models
        // were trained on Pillow's output.
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| [p[0].min(255) as u8; 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [flat(high(p[0]), high(p[1])); 3]).collect(),
        _ => return None,
    };
    Some(Rgb { width, height, data })
}

/// Returns a value on white with this opacity, as Pillow's `alpha_composite` rounds it.
fn onto_white(value: u8, opacity: u8) -> u8 {
    let weight = u32::from(opacity) * 128;
    let sum = u32::from(value) * weight + 255 * (255 * 128 - weight) + (1 << 14);
    (((sum >> 8) + sum) >> 15) as u8
}

/// Replaces the three colours of each pixel by `flat(colour, opacity)` and drops every fourth byte, in place, because a
/// second copy of the image would double the memory.
fn without_alpha(mut data: Vec<u8>, flat: impl Fn(u8, u8) -> u8) -> Vec<u8> {
    let pixels = data.len() / 4;
    for i in 0..pixels {
        for c in 0..3 {
            data[3 * i + c] = flat(data[4 * i + c], data[4 * i + 3]);
        }
    }
    data.truncate(3 * pixels);
    data.shrink_to_fit();
    data
}

/// Returns the number of scans of a JPEG before its end marker, or `None` without an end marker. The decoder would fill
/// missing data with grey.
fn jpeg_scans(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    let mut scans = 0;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            (0xff, 0xd9) => return (scans > 0).then_some(scans),
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7) => at += 2,
            (0xff, _) => {
                let &[high, low] = bytes.get(at + 2..at + 4)? else { return None };
                scans += usize::from(marker == 0xda);
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            // Compressed data, or bytes between segments.
            _ => at += 1,
        }
    }
    None
}
