//! Computes positions on the host: the M-RoPE positions of a token sequence, and the window order, 2-D positions and
//! rotary table of the vision tower. All integers equal the ones that Hugging Face computes.

use crate::nn::config::{MediaConfig, ModelConfig, TowerConfig, TowerKind};
use crate::nn::rotary::{Angles, RopeTable};
use omr_base::error::{Error, Result};

/// Kind and size of an image or video in a sequence.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Medium {
    /// Number of patches in time, height and width.
    pub grid_thw: [u32; 3],
    /// True for a video, whose placeholders are `video_token_id`. The placeholders of an image are `image_token_id`.
    pub video: bool,
    /// Seconds between two temporal patches. 1 for images.
    pub second_per_grid_ts: f64,
}

impl Medium {
    /// Returns the number of decoder tokens that the image or video takes.
    pub fn num_tokens(&self, merge_size: usize) -> usize {
        let [t, h, w] = self.grid_thw.map(|n| n as usize);
        t * (h / merge_size) * (w / merge_size)
    }

    /// Returns the parts whose placeholders are adjacent: the temporal patches of a video whose times are in the text,
    /// otherwise the whole image or video.
    pub fn runs(self, config: &MediaConfig) -> impl Iterator<Item = Medium> {
        let [t, h, w] = self.grid_thw;
        match config.tokens_per_second {
            None => std::iter::repeat_n(Medium { grid_thw: [1, h, w], ..self }, t as usize),
            Some(_) => std::iter::repeat_n(self, 1),
        }
    }
}

/// The M-RoPE positions of one sequence.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SequencePositions {
    /// Time, height and width position of each token.
    pub position_ids: [Vec<i32>; 3],
    /// Position offset: a later token at index i has position i + rope_delta on all three axes.
    pub rope_delta: i32,
    /// Indices of the image and video placeholders, ascending.
    pub image_rows: Vec<u32>,
}

/// Computes the positions of `input_ids`, whose image and video placeholders must match `media` in order. Tokens from
/// `plain_from` on were generated: placeholder ids among them are plain tokens, and their positions start after the
/// largest position so far, consistent with the prompt's `rope_delta`. Errors if the counts do not match.
pub fn sequence(
    config: &ModelConfig,
    input_ids: &[u32],
    media: &[Medium],
    plain_from: usize,
) -> Result<SequencePositions> {
    let mut out = SequencePositions::default();
    let Some(of_media) = &config.media else {
        if !media.is_empty() {
            return Err(Error::input("image 0", "an image or a video", "text: the model has no vision tower"));
        }
        out.position_ids.iter_mut().for_each(|axis| axis.extend(0..input_ids.len() as i32));
        return Ok(out);
    };
    let (merge, ids) = (of_media.grid.merge_size, of_media.ids);
    let mut next_position = 0i32;
    let mut media = media.iter().enumerate().flat_map(|(k, medium)| medium.runs(of_media).map(move |run| (k, run)));
    let mut i = 0;
    while i < input_ids.len() {
        if i == plain_from {
            next_position = out.next_position();
        }
        let is_place = input_ids[i] == ids.image || input_ids[i] == ids.video;
        if !is_place || i >= plain_from {
            out.position_ids.iter_mut().for_each(|axis| axis.push(next_position));
            next_position += 1;
            i += 1;
            continue;
        }
        let place = format!("token {i}");
        let Some((k, medium)) = media.next() else {
            let expected = "text: every image and video already has its placeholders";
            return Err(Error::input(place, "an image or video placeholder", expected));
        };
        check_grid(medium.grid_thw, merge, k)?;
        let id = of_media.format().placeholder(medium.video);
        let want = medium.num_tokens(merge);
        let found = input_ids[i..plain_from.min(input_ids.len())].iter().take(want).take_while(|&&t| t == id).count();
        if found != want {
            let what = if medium.video { "video" } else { "image" };
            return Err(Error::input(place, format!("{found} placeholders"), format!("{want} for {what} {k}")));
        }
        out.image_rows.extend(i as u32..(i + want) as u32);
        let [t, ..] = medium.grid_thw;
        let last = i64::from(next_position) + i64::from(time_of(of_media, &medium, t));
        if last > MAX_POSITION {
            let found = format!("a video that ends at position {last}");
            return Err(Error::input(place, found, format!("at most {MAX_POSITION}")));
        }
        next_position = push_medium(of_media, &medium, next_position, &mut out.position_ids);
        i += want;
    }
    if let Some((k, _)) = media.next() {
        return Err(Error::input(format!("image {k}"), "no placeholder among the tokens", "its image or video tokens"));
    }
    out.rope_delta = out.next_position() - input_ids.len() as i32;
    Ok(out)
}

impl SequencePositions {
    /// Returns the largest position plus one.
    fn next_position(&self) -> i32 {
        self.position_ids.iter().flatten().max().map_or(0, |p| p + 1)
    }
}

/// Errors unless the grid can be divided into complete merged patches.
pub fn check_grid(grid_thw: [u32; 3], merge_size: usize, index: usize) -> Result<()> {
    let [t, h, w] = grid_thw.map(|n| n as usize);
    if t > 0 && h > 0 && w > 0 && h.is_multiple_of(merge_size) && w.is_multiple_of(merge_size) {
        return Ok(());
    }
    let expected = format!("positive sizes, with height and width multiples of {merge_size}");
    Err(Error::input(format!("image {index}"), format!("grid {grid_thw:?}"), expected))
}

/// Maximum position of a video. It leaves enough positions for the text after it.
const MAX_POSITION: i64 = 1 << 30;

/// Returns the difference in position between temporal patch `patch` and the first one. Seconds keep their fractions, and
/// are multiplied in 32 bits, as in transformers 5.24.
fn time_of(config: &MediaConfig, medium: &Medium, patch: u32) -> i32 {
    let steps = config.tokens_per_second.filter(|_| medium.video);
    let interval = steps.map_or(1.0, |steps| steps as f32 * medium.second_per_grid_ts as f32);
    (patch as f32 * interval) as i32
}

/// Appends the positions of an image or video that begins at `start`, and returns the position of the text after it: the
/// largest position plus one, as in transformers 4, vLLM and verl. Sampling continues a prompt there, too. In
/// transformers 5, text after a long video begins earlier than a generated answer.
fn push_medium(config: &MediaConfig, medium: &Medium, start: i32, position_ids: &mut [Vec<i32>; 3]) -> i32 {
    let merge = config.grid.merge_size as i32;
    let [t, h, w] = medium.grid_thw.map(|n| n as i32);
    let (h, w) = (h / merge, w / merge);
    for frame in 0..t {
        let time = start + time_of(config, medium, frame as u32);
        for y in 0..h {
            for x in 0..w {
                position_ids[0].push(time);
                position_ids[1].push(start + y);
                position_ids[2].push(start + x);
            }
        }
    }
    start + h.max(w).max(time_of(config, medium, t as u32 - 1) + 1)
}

/// Order, segments and tables of the vision tower for a list of images.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct VisionPositions {
    /// Height and width position of each patch, in input order.
    pub pos_hw: Vec<[u32; 2]>,
    /// Index of the merge block at each position of the window order.
    pub window_index: Vec<u32>,
    /// Start offsets of the windows in patches, in window order, followed by the number of patches.
    pub cu_window_seqlens: Vec<u32>,
    /// Start offsets of the frames in patches, followed by the number of patches. They are the same in both orders.
    pub cu_seqlens: Vec<u32>,
    /// Tables `[N, head_dim / 2]` in window order.
    pub rope: RopeTable,
    /// Rows of the table of learned positions from which the position of each patch is interpolated, `[N, 4]`, with their
    /// weights. Empty if the tower has no such table.
    pub taps: Vec<[u32; 4]>,
    /// Weights of `taps`.
    pub tap_weights: Vec<[f32; 4]>,
}

/// Computes order, segments and tables for images of the given `grids`, in patches (time, height, width). Callers check
/// each grid with [`check_grid`] before.
pub fn vision(config: &MediaConfig, grids: &[[u32; 3]]) -> VisionPositions {
    let (tower, merge, unit) = (&config.tower, config.grid.merge_size, config.grid.merge_unit());
    let window = match tower.kind {
        TowerKind::Windowed { window_size, .. } => window_size / merge / config.grid.patch_size,
        TowerKind::DeepStack { .. } => WHOLE_FRAME,
    };
    let mut out = VisionPositions { cu_window_seqlens: vec![0], cu_seqlens: vec![0], ..Default::default() };
    let mut first_block = 0;
    for grid in grids {
        let [frames, h, w] = grid.map(|n| n as usize);
        let (h, w) = (h / merge, w / merge);
        for _ in 0..frames {
            let first = out.pos_hw.len();
            push_patches(&mut out.pos_hw, h, w, merge);
            if let TowerKind::DeepStack { grid_side, .. } = tower.kind {
                push_taps(&mut out, grid_side, [h * merge, w * merge], first);
            }
            out.cu_seqlens.push(out.pos_hw.len() as u32);
            for (top, left) in (0..h).step_by(window).flat_map(|y| (0..w).step_by(window).map(move |x| (y, x))) {
                for y in top..(top + window).min(h) {
                    let row = first_block + y * w;
                    out.window_index.extend((row + left..row + (left + window).min(w)).map(|b| b as u32));
                }
                out.cu_window_seqlens.push((out.window_index.len() * unit) as u32);
            }
            first_block += h * w;
        }
    }
    out.rope = vision_rope(tower, unit, &out);
    out
}

/// Side of a window, in merged patches, that contains every frame.
const WHOLE_FRAME: usize = 1 << 24;

/// Appends the taps of one frame's patches, which begin at patch `first`. Source row r * (side - 1) / (h - 1) of patch row r
/// is computed in f32, as in Hugging Face; the columns likewise.
fn push_taps(out: &mut VisionPositions, side: usize, [h, w]: [usize; 2], first: usize) {
    let last = side as u32 - 1;
    let axis = |at: u32, size: usize| {
        let source = at as f32 * last as f32 / (size - 1).max(1) as f32;
        let low = source.floor();
        let taps = [low as u32, (low as u32 + 1).min(last)];
        (taps, [1.0 - (source - low), 1.0 - (source - low - 1.0).abs()])
    };
    for &[row, column] in &out.pos_hw[first..] {
        let (([r0, r1], [v0, v1]), ([c0, c1], [u0, u1])) = (axis(row, h), axis(column, w));
        let at = |row: u32, column: u32| row * side as u32 + column;
        out.taps.push([at(r0, c0), at(r0, c1), at(r1, c0), at(r1, c1)]);
        out.tap_weights.push([v0 * u0, v0 * u1, v1 * u0, v1 * u1]);
    }
}

/// Appends the positions of one frame's patches, merge block by merge block.
fn push_patches(pos_hw: &mut Vec<[u32; 2]>, h: usize, w: usize, merge: usize) {
    for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
        for (dy, dx) in (0..merge).flat_map(|dy| (0..merge).map(move |dx| (dy, dx))) {
            pos_hw.push([(y * merge + dy) as u32, (x * merge + dx) as u32]);
        }
    }
}

/// Computes the tables. Half of the frequencies use the height, half the width.
fn vision_rope(tower: &TowerConfig, unit: usize, positions: &VisionPositions) -> RopeTable {
    let quarter = tower.head_dim() / 4;
    let frequencies = (0..quarter).map(|i| tower.rope_theta.powf(-(i as f64) / quarter as f64)).collect();
    let (mut angles, mut out) = (Angles::new(frequencies), RopeTable::default());
    for &block in &positions.window_index {
        for &coordinate in positions.pos_hw[block as usize * unit..][..unit].as_flattened() {
            angles.push(coordinate as i32, 0..quarter, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tiny::tiny;

    fn config() -> ModelConfig {
        ModelConfig::from_json(&tiny(), "config.json").unwrap()
    }

    #[test]
    fn places_must_match_the_images() {
        let config = config();
        let image = Medium { grid_thw: [1, 2, 4], video: false, second_per_grid_ts: 1.0 };
        let ids = |n: usize| [vec![1, 82], vec![80; n], vec![83, 2]].concat();
        let go = |ids: &[u32], media: &[Medium]| sequence(&config, ids, media, ids.len());
        assert_eq!(go(&ids(2), &[image]).unwrap().image_rows, [2, 3]);
        for (ids, media) in [(ids(1), vec![image]), (ids(3), vec![image]), (ids(2), vec![]), (ids(2), vec![image; 2])] {
            assert_eq!(go(&ids, &media).unwrap_err().exit_code(), 2);
        }
        assert!(go(&ids(2), &[Medium { video: true, ..image }]).is_err());
        assert!(go(&ids(2), &[Medium { grid_thw: [1, 3, 4], ..image }]).is_err());
    }

    #[test]
    fn generated_places_are_plain_tokens() {
        let config = config();
        let out = sequence(&config, &[1, 80, 2], &[], 1).unwrap();
        assert_eq!(out.position_ids[0], [0, 1, 2]);
        assert!(out.image_rows.is_empty());
    }

    #[test]
    fn window_order_is_a_permutation_cut_at_windows() {
        let config = config();
        let positions = vision(config.media.as_ref().unwrap(), &[[2, 6, 10], [1, 4, 4], [1, 2, 2]]);
        let mut seen = positions.window_index.clone();
        seen.sort();
        assert!(seen.iter().enumerate().all(|(i, &b)| b == i as u32));
        assert_eq!(positions.cu_seqlens, [0, 60, 120, 136, 140]);
        assert_eq!(positions.cu_window_seqlens.last(), Some(&140));
        assert!(positions.cu_window_seqlens.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 16));
    }
}
