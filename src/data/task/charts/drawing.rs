//! Charts, and images of them.

use crate::image::Rgb;
use omr_base::choice::choice;
use omr_base::philox::Random;

/// Size of an image in pixels: 8 x 6 visual tokens.
pub const WIDTH: i32 = 224;
/// Height of an image in pixels.
pub const HEIGHT: i32 = 168;

/// The labels of the entries, from left to right.
pub const LABELS: [char; 7] = ['A', 'B', 'C', 'D', 'E', 'F', 'G'];
/// The digits in tables and beside axes.
pub const DIGITS: [char; 9] = ['1', '2', '3', '4', '5', '6', '7', '8', '9'];
/// Largest value.
pub const TOP_VALUE: i32 = 9;
/// Distance of two entries, in pixels.
pub const PITCH: i32 = 28;
/// Height of a value of 1 in a bar or line chart, in pixels.
pub const UNIT: i32 = 14;
/// Distance from the upper end of the axis to the base line, in pixels.
pub const AXIS: i32 = TOP_VALUE * UNIT + 4;
/// Width and height of a letter or digit on the image. Letters of axes have half the size.
pub const GLYPH: [i32; 2] = [10, 14];

/// Colour of axes and of the rules of a table. Nothing else has this colour.
pub const RULE: [u8; 3] = [60, 60, 60];
const INK: [u8; 3] = [0, 0, 0];
const GRID: [u8; 3] = [205, 205, 205];
const PAPERS: [[u8; 3]; 3] = [[255, 255, 255], [252, 246, 232], [234, 243, 252]];
const COLOURS: [[u8; 3]; 5] = [[200, 60, 60], [60, 110, 200], [50, 150, 80], [220, 130, 40], [130, 80, 170]];

choice! {
    /// Form of a chart, with the word for an entry.
    pub enum Form {
        /// A bar chart.
        Bars = "bar",
        /// A line chart with a point per entry.
        Line = "point",
        /// A table: a row of labels above a row of numbers.
        Table = "cell",
    }
}

/// The content of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Form of the chart.
    pub form: Form,
    /// Values of the first labels, from 1 to 9.
    pub values: Vec<u8>,
}

impl Chart {
    /// Draws a chart with five to seven entries at random.
    pub fn random(random: &mut Random) -> Chart {
        let form = [Form::Bars, Form::Line, Form::Table][random.below(3) as usize];
        let count = LABELS.len() - random.below(3) as usize;
        Chart { form, values: (0..count).map(|_| 1 + random.below(TOP_VALUE as u64) as u8).collect() }
    }

    /// Returns the labels with their values.
    pub fn entries(&self) -> impl Iterator<Item = (char, u8)> {
        LABELS.into_iter().zip(self.values.iter().copied())
    }
}

/// Returns an image of a chart, 224 x 168 pixels. Colours and places are drawn at random, and the axes are
/// shifted by up to `shift` pixels.
pub fn draw(chart: &Chart, shift: i32, random: &mut Random) -> Rgb {
    let [dx, dy] = [(); 2].map(|()| random.below(2 * shift as u64 + 1) as i32 - shift);
    let paper = PAPERS[random.below(PAPERS.len() as u64) as usize];
    let colour = COLOURS[random.below(COLOURS.len() as u64) as usize];
    let table_row = random.below(3) as i32;
    let data = paper.repeat((WIDTH * HEIGHT) as usize);
    let mut page = Page(Rgb { width: WIDTH as u32, height: HEIGHT as u32, data });
    let (left, count) = (PITCH + dx, chart.values.len() as i32);
    match chart.form {
        Form::Table => {
            let top = 20 + PITCH * table_row + dy;
            (0..3).for_each(|i| page.fill([left, top + PITCH * i], [PITCH * count + 1, 1], RULE));
            (0..=count).for_each(|i| page.fill([left + PITCH * i, top], [1, 2 * PITCH], RULE));
            for (i, (label, value)) in chart.entries().enumerate() {
                let x = left + PITCH * i as i32 + PITCH / 2 - GLYPH[0] / 2;
                page.write([x, top + 7], label, 2);
                page.write([x, top + PITCH + 7], DIGITS[usize::from(value) - 1], 2);
            }
        }
        Form::Bars | Form::Line => {
            let base = 8 + AXIS + dy;
            for (y, digit) in (1..).map(|value| base - UNIT * value).zip(DIGITS) {
                page.fill([left, y], [PITCH * count, 1], GRID);
                page.write([left - 16, y - 3], digit, 1);
            }
            page.fill([left - 6, base - AXIS], [2, AXIS], RULE);
            page.fill([left - 6, base], [PITCH * count + 6, 2], RULE);
            let mut last = None;
            for (i, (label, value)) in chart.entries().enumerate() {
                let x = left + PITCH * i as i32 + PITCH / 2;
                let y = base - UNIT * i32::from(value);
                page.write([x - GLYPH[0] / 2, base + 6], label, 2);
                if chart.form == Form::Bars {
                    page.fill([x - 8, y], [16, base - y], colour);
                } else {
                    page.fill([x - 4, y - 4], [8, 8], colour);
                    page.line(last.unwrap_or([x, y]), [x, y], colour);
                    last = Some([x, y]);
                }
            }
        }
    }
    page.0
}

struct Page(Rgb);

impl Page {
    /// Fills a rectangle. Parts outside the image are left out.
    fn fill(&mut self, [x, y]: [i32; 2], [width, height]: [i32; 2], colour: [u8; 3]) {
        for y in y.max(0)..(y + height).min(HEIGHT) {
            for x in x.max(0)..(x + width).min(WIDTH) {
                self.0.data[3 * (y * WIDTH + x) as usize..][..3].copy_from_slice(&colour);
            }
        }
    }

    /// Draws a line of two pixels.
    fn line(&mut self, [x0, y0]: [i32; 2], [x1, y1]: [i32; 2], colour: [u8; 3]) {
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).max(1);
        for i in 0..=steps {
            self.fill([x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps], [2, 2], colour);
        }
    }

    /// Writes a letter or digit. A pixel of the font has `scale` x `scale` pixels.
    fn write(&mut self, [x, y]: [i32; 2], char: char, scale: i32) {
        let pixels = (0..7).flat_map(|row| (0..5).map(move |column| [column, row]));
        for [column, row] in pixels.filter(|&at| is_ink(char, at)) {
            self.fill([x + scale * column, y + scale * row], [scale; 2], INK);
        }
    }
}

/// True if the font of 5 x 7 pixels has ink at (column, row) of a digit from 1 to 9 or a label.
pub fn is_ink(char: char, [column, row]: [i32; 2]) -> bool {
    let glyph = FONT.iter().find(|(known, _)| *known == char).map_or([0; 7], |(_, rows)| *rows);
    glyph[row as usize] >> (4 - column) & 1 == 1
}

/// Rows of each character, the leftmost pixel in bit 4.
#[rustfmt::skip]
const FONT: [(char, [u8; 7]); 16] = [
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('3', [0b01110, 0b10001, 0b00001, 0b00110, 0b00001, 0b10001, 0b01110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    ('A', [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('B', [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110]),
    ('C', [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('D', [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110]),
    ('E', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('G', [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111]),
];
