//! Compares JPEG decoding with Pillow, and tests damaged files. `make_jpegs.py` writes the files and Pillow's results.

use std::path::Path;

use omr_base::philox::{Purpose, Random};
use omr_data::image::{JPEG_DECODER, Limits, Rgb, decode, header, jpeg};
use sha2::{Digest, Sha256};

use super::{files, peak_kib};

/// Maximum growth of the process by damaged files. A file of 4 KiB may declare up to 32 megapixels, which a decoder holds
/// as coefficients of two bytes and as pixels.
const MOST_KIB: u64 = 1 << 20;

fn samples() -> Vec<(String, Vec<u8>)> {
    let jpegs = files("jpeg").into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "jpg"));
    let named = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    jpegs.map(|path| (named(&path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn jpegs_have_pillows_bytes() {
    let listed = files("jpeg").into_iter().find(|path| path.ends_with("pixels.txt")).unwrap();
    let listed = std::fs::read_to_string(listed).unwrap();
    let found = |(name, bytes): (String, Vec<u8>)| {
        let Rgb { width, height, data } = decode(&bytes, &Limits::default(), &name).unwrap();
        let head = header(std::io::Cursor::new(&bytes), &Limits::default(), &name).unwrap();
        assert!(head.is_jpeg && head.size == [width, height], "{name}: {head:?}");
        let hash: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hash} {width} {height} {name}")
    };
    let found: Vec<String> = samples().into_iter().map(found).collect();
    assert_eq!(found, listed.lines().collect::<Vec<_>>());
    assert_eq!(found.len(), 40);
}

#[test]
fn the_recorded_decoder_is_the_one_in_the_lock_file() {
    let (name, version) = JPEG_DECODER.split_once(' ').unwrap();
    let locked = include_str!("../../../Cargo.lock");
    assert!(locked.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{JPEG_DECODER}");
}

#[test]
fn what_is_written_is_read_again() {
    let (width, height) = (40, 24);
    let data = (0..width * height).flat_map(|i| [(i % width * 6) as u8, (i / width * 9) as u8, 128]).collect();
    let image = Rgb { width, height, data };
    let read = decode(&jpeg(&image, 95).unwrap(), &Limits::default(), "written").unwrap();
    assert_eq!((read.width, read.height), (width, height));
    let most = read.data.iter().zip(&image.data).map(|(a, b)| a.abs_diff(*b)).max();
    // Measured: 6 levels, because the colours change quickly and have half the resolution.
    assert!(most < Some(9), "{most:?}");
    assert_eq!(jpeg(&Rgb { width: 41, ..image }, 95), None);
}

#[test]
fn a_jpeg_of_many_scans_is_refused_before_it_is_decoded() {
    let (_, bytes) = samples().into_iter().find(|(name, _)| name == "grey_progressive.jpg").unwrap();
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let (end, last) = (bytes.len() - 2, bytes[scan..bytes.len() - 2].to_vec());
    let many = [&bytes[..end], &last.repeat(500), &bytes[end..]].concat();
    let error = decode(&many, &Limits::default(), "p").unwrap_err().to_string();
    assert!(error.starts_with("p: found a JPEG of 5") && error.ends_with("scans, expected at most 500"), "{error}");
}

/// The damage is changed bytes, parts that are missing, doubled or from another file, and other sizes.
#[test]
fn three_thousand_damaged_jpegs_are_refused_or_read_in_bounded_memory() {
    const COUNT: u64 = 3000;
    let (samples, before, seed) = (samples(), peak_kib(), omr_base_tests::seed::seed());
    let (mut refused, mut read) = (0, 0);
    for number in 0..COUNT {
        let mut random = Random::new(seed, Purpose::Test, number);
        let mut below = |n: usize| random.below(n as u64) as usize;
        let mut bytes = samples[below(samples.len())].1.clone();
        for _ in 0..=below(5) {
            let (at, other) = (below(bytes.len()), &samples[below(samples.len())].1);
            match below(6) {
                0 => bytes.truncate(at.max(3)),
                1 => drop(bytes.drain(at..(at + below(64)).min(bytes.len()))),
                2 => {
                    let part = other[below(other.len())..].iter().take(64).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, part);
                }
                3 => {
                    let frame = bytes.windows(2).position(|pair| pair[0] == 0xff && (0xc0..0xc3).contains(&pair[1]));
                    let values = frame.map_or(0..0, |frame| frame + 5..(frame + 20).min(bytes.len()));
                    for at in values {
                        if below(4) == 0 {
                            bytes[at] = below(256) as u8;
                        }
                    }
                }
                4 => bytes[at] ^= 1 << below(8),
                _ => bytes[at] = [0, 0xff, 0xd8, 0xda, 0xc4, 0xdb][below(6)],
            }
            if bytes.len() < 4 {
                break;
            }
        }
        match decode(&bytes, &Limits::default(), "damaged") {
            Ok(Rgb { width, height, data }) => {
                assert_eq!(data.len() as u64, 3 * u64::from(width) * u64::from(height));
                read += 1;
            }
            Err(error) => {
                assert!(error.to_string().starts_with("damaged") && error.exit_code() == 2, "{error}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {read} read, {} KiB", peak_kib().saturating_sub(before));
    assert!(refused > COUNT / 4 && read > COUNT / 20, "{refused} refused, {read} read");
    assert!(peak_kib().saturating_sub(before) < MOST_KIB, "{} KiB", peak_kib().saturating_sub(before));
}
