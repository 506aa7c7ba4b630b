//! The teacher of the digits task.
//!
//! It classifies each digit by its nearest neighbour among the training digits, and answers like people: mostly
//! carefully, sometimes hastily, sometimes with a wrong result, sometimes in a wrong format.

use std::ops::Range;

use super::images::{Digit, Pixels, SIDE, load, shifted};
use super::questions::{Question, Style};
use crate::image::Rgb;
use crate::task::teacher::{self, formatted};
use omr_base::config::TeacherConfig;
use omr_base::error::{Error, Result};
use omr_base::philox::Random;

/// Number of nearest candidates by coarse distance that are compared exactly.
const CANDIDATES: usize = 24;
/// Side in pixels of the blocks that coarse distances are computed on, and number of blocks per row.
const BLOCK: usize = 4;
const BLOCKS: usize = SIDE / BLOCK;

type Coarse = [u16; BLOCKS * BLOCKS];

/// Reads images of two digits.
pub struct Reader {
    config: TeacherConfig,
    shift: i32,
    known: Vec<(Coarse, Digit)>,
}

impl teacher::Reader for Reader {
    type Seen = [u8; 2];

    fn read(&self, image: &Rgb) -> Result<[u8; 2]> {
        Ok([self.nearest(&half(image, 0)?), self.nearest(&half(image, SIDE)?)])
    }

    fn answer(&self, question: &str, mut digits: [u8; 2], random: &mut Random) -> Option<String> {
        let question = Question::parse(question)?;
        let mut chance = |p: f64| random.uniform_f64() < p;
        let (careful, first_wording) = (chance(self.config.careful), chance(0.5));
        let misread = [(); 2].map(|()| chance(self.config.misread));
        let (slips, malformed) = (chance(self.config.slip), chance(self.config.malformed));
        let style = match (careful, first_wording) {
            (true, true) => Style::CarefulSee,
            (true, false) => Style::CarefulList,
            (false, _) => Style::Hasty,
        };
        for (digit, _) in digits.iter_mut().zip(misread).filter(|(_, misread)| *misread) {
            *digit = (*digit + 1 + random.below(9) as u8) % 10;
        }
        let result = if slips { question.slip(digits, random.next_u64()) } else { question.answer(digits) };
        let thinking = question.thinking(style, digits, result);
        Some(formatted(&thinking, &result.to_string(), malformed, random))
    }
}

impl Reader {
    /// Makes a reader that uses only the digits of `training` with their labels. It recognises digits that are shifted
    /// by up to `shift` pixels.
    pub fn new(config: &TeacherConfig, training: Range<usize>, shift: u32) -> Result<Reader> {
        let known = load()?.drain(training).map(|digit| (coarse(&digit.pixels), digit)).collect();
        Ok(Reader { config: config.clone(), shift: shift as i32, known })
    }

    /// Returns the label of the nearest known digit over all shifts. Coarse distances to all digits select the
    /// candidates, which are then compared exactly.
    fn nearest(&self, pixels: &Pixels) -> u8 {
        let glance = coarse(pixels);
        let distance = |c: &Coarse| c.iter().zip(&glance).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
        let mut order: Vec<(u32, usize)> = self.known.iter().enumerate().map(|(i, (c, _))| (distance(c), i)).collect();
        let close = CANDIDATES.min(order.len());
        if close > 0 && close < order.len() {
            order.select_nth_unstable(close - 1);
        }
        let shifts = (-self.shift..=self.shift).flat_map(|dx| (-self.shift..=self.shift).map(move |dy| [dx, dy]));
        let moved: Vec<Pixels> = shifts.map(|by| shifted(pixels, by)).collect();
        let best = order[..close].iter().map(|&(_, i)| {
            let digit = &self.known[i].1;
            let distance =
                |m: &Pixels| -> u32 { m.iter().zip(&digit.pixels).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
            (moved.iter().map(distance).min(), i)
        });
        best.min().map_or(0, |(_, i)| self.known[i].1.label)
    }
}

fn coarse(pixels: &Pixels) -> Coarse {
    let mut out = [0; BLOCKS * BLOCKS];
    for (at, &value) in pixels.iter().enumerate() {
        out[at / SIDE / BLOCK * BLOCKS + at % SIDE / BLOCK] += u16::from(value);
    }
    out
}

fn half(rgb: &Rgb, left: usize) -> Result<Pixels> {
    if (rgb.width as usize, rgb.height as usize) != (2 * SIDE, SIDE) {
        let found = format!("an image of {} x {}", rgb.width, rgb.height);
        return Err(Error::input("request", found, format!("{} x {SIDE}", 2 * SIDE)));
    }
    Ok(std::array::from_fn(|at| rgb.data[3 * (at / SIDE * 2 * SIDE + left + at % SIDE)]))
}
