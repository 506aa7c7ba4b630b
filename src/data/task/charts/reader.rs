//! The teacher of the charts task. It measures bars and points in the image, recognises letters and digits by the
//! pixels of the font, and answers like people: mostly carefully, sometimes hastily, sometimes with a wrong result,
//! sometimes in a wrong format.

use super::drawing::{AXIS, Chart, DIGITS, Form, GLYPH, HEIGHT, LABELS, PITCH, RULE, TOP_VALUE, UNIT, WIDTH, is_ink};
use super::questions::{HEADS, Question};
use crate::image::Rgb;
use crate::task::teacher::{self, formatted};
use omr_base::config::TeacherConfig;
use omr_base::error::{Error, Result};
use omr_base::philox::Random;

/// A colour whose channels are not all above this is a mark. Paper and grid lines are brighter.
const BRIGHT: u8 = 190;
/// A colour whose channels are all below this is ink of a letter or digit.
const DARK: u8 = 30;

/// Reads images of charts.
pub struct Reader {
    /// Probabilities of the kinds of answers. A misread answer has one wrong value.
    pub config: TeacherConfig,
}

impl teacher::Reader for Reader {
    type Seen = Chart;

    fn read(&self, image: &Rgb) -> Result<Chart> {
        let refused = |found: &str| Error::input("request", found, "an image of a chart");
        if (image.width as i32, image.height as i32) != (WIDTH, HEIGHT) {
            return Err(refused(&format!("an image of {} x {}", image.width, image.height)));
        }
        let page = Page(image);
        // The upper end of the axis, or the upper left corner of the table.
        let start = (0..WIDTH * HEIGHT).map(|i| [i % WIDTH, i / WIDTH]).find(|&at| page.at(at) == RULE);
        let [left, top] = start.ok_or_else(|| refused("an image without an axis"))?;
        let is_table = page.at([left + 4, top]) == RULE;
        let (first, base) = if is_table { (left + PITCH / 2, top) } else { (left + 6 + PITCH / 2, top + AXIS) };
        let mut chart = Chart { form: if is_table { Form::Table } else { Form::Line }, values: Vec::new() };
        for x in (0..LABELS.len() as i32).map(|i| first + PITCH * i) {
            if page.character([x, base + if is_table { 7 } else { 6 }], &LABELS) != Some(LABELS[chart.values.len()]) {
                break;
            }
            let value = match is_table {
                true => page.character([x, base + PITCH + 7], &DIGITS).map(|digit| digit as i32 - i32::from(b'0')),
                false => (top..base).find(|&y| page.is_mark([x, y])).map(|y| (base - y) / UNIT),
            };
            let value = value.filter(|value| (1..=TOP_VALUE).contains(value));
            chart.values.push(value.ok_or_else(|| refused("a label without a value"))? as u8);
            if !is_table && page.is_mark([x, base - 1]) {
                chart.form = Form::Bars;
            }
        }
        if chart.values.len() < 2 { Err(refused("fewer than two labels")) } else { Ok(chart) }
    }

    fn answer(&self, question: &str, mut seen: Chart, random: &mut Random) -> Option<String> {
        let question = Question::parse(question)?;
        let TeacherConfig { careful, misread, slip, malformed } = self.config;
        let [careful, second_head, misread, slips, malformed] =
            [careful, 0.5, misread, slip, malformed].map(|p| random.uniform_f64() < p);
        let head = careful.then_some(HEADS[usize::from(second_head)]);
        if misread {
            let which = random.below(seen.values.len() as u64) as usize;
            let value = &mut seen.values[which];
            *value = (*value + random.below(TOP_VALUE as u64 - 1) as u8) % TOP_VALUE as u8 + 1;
        }
        let result = if slips { question.slip(&seen, random.next_u64()) } else { question.answer(&seen) };
        Some(formatted(&question.thinking(head, &seen, &result), &result, malformed, random))
    }
}

struct Page<'a>(&'a Rgb);

impl Page<'_> {
    /// Returns the colour of a pixel, black outside the image.
    fn at(&self, [x, y]: [i32; 2]) -> [u8; 3] {
        let inside = (0..WIDTH).contains(&x) && (0..HEIGHT).contains(&y);
        let pixel = |at: usize| std::array::from_fn(|channel| self.0.data[3 * at + channel]);
        if inside { pixel((y * WIDTH + x) as usize) } else { [0; 3] }
    }

    fn is_mark(&self, at: [i32; 2]) -> bool {
        self.at(at).iter().any(|&channel| channel < BRIGHT)
    }

    /// Returns the character with the most equal pixels among `known`, for a character whose upper end is centred at
    /// (x, y). Returns `None` if there is no ink.
    fn character(&self, [x, y]: [i32; 2], known: &[char]) -> Option<char> {
        let pixels: Vec<[i32; 2]> = (0..7).flat_map(|row| (0..5).map(move |column| [column, row])).collect();
        let ink = |[column, row]: [i32; 2]| {
            let at = [x - GLYPH[0] / 2 + 2 * column, y + 2 * row];
            self.at(at).iter().all(|&channel| channel < DARK)
        };
        let equal = |char: char| pixels.iter().filter(|&&at| ink(at) == is_ink(char, at)).count();
        pixels.iter().any(|&at| ink(at)).then(|| known.iter().copied().max_by_key(|&char| equal(char)))?
    }
}
