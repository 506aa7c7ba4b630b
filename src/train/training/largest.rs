//! Finds the micro-batches that decide how much memory a run takes, among any number of micro-batches. [`Largest`]
//! drops a micro-batch if another one is at least as large in every quantity. If too many are left, sizes are rounded
//! up on an increasingly coarse grid.

use super::levels::SizeClass;
use super::plan::blank;
use omr_data::image::Grid;
use omr_data::rows::{Sample, Shape};
use omr_model::nn::config::TowerKind;
use omr_model::nn::vision::CHUNK_PATCHES;
use omr_model::nn::{MediaConfig, ModelConfig};

/// Maximum number of sizes that are kept. A plan counts each of them three or four times, which takes about ten
/// milliseconds for a 7B model.
const MOST: usize = 192;
/// Initial rounding granularity: rounding adds less than 1/`FINEST` of the exact size. If too many sizes are left, the
/// granularity is halved, which doubles the possible increase.
const FINEST: usize = 64;
/// Rounding granularity of the quantities that need only a few bytes per unit: sequences, windows and images.
const FEW: usize = 4;

/// The quantities that determine a micro-batch's memory. If one of them grows, the memory never shrinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of tokens whose prediction counts.
    pub targets: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Number of chunks in which the vision tower processes the images.
    pub chunks: usize,
    /// Number of patches.
    pub patches: usize,
    /// Number of patches of the largest chunk.
    pub largest: usize,
    /// Number of attention windows in the vision tower.
    pub windows: usize,
    /// Number of images, where each temporal patch of a video counts as one.
    pub images: usize,
    /// Number of patches over all uploaded frames. For a video, this is about twice `patches`, because each of its
    /// patches spans two frames.
    pub pixels: usize,
}

/// Parameters of the vision tower that determine sizes: patches along the side of a window, and along that of a merged
/// token.
#[derive(Clone, Copy, Debug)]
pub struct Tower {
    side: usize,
    merge: usize,
}

impl Tower {
    /// Describes the tower of the model of `config`.
    pub fn new(config: &ModelConfig) -> Tower {
        let side = |media: &MediaConfig| match media.tower.kind {
            TowerKind::Windowed { window_size, .. } => window_size / media.grid.patch_size,
            // Blocks attend to whole frames. The side is only a step of the sizes of invented images.
            TowerKind::DeepStack { .. } => 8,
        };
        let (side, merge) = (config.media.as_ref().map_or(1, side), config.grid().merge_size);
        Tower { side, merge }
    }
}

impl Size {
    /// Returns the size of a micro-batch.
    pub fn of<'a>(tower: Tower, batch: impl IntoIterator<Item = Shape<'a>>) -> Size {
        let (mut size, mut chunk) = (Size::default(), 0);
        for shape in batch {
            size.sequences += 1;
            size.tokens += shape.tokens;
            size.targets += shape.targets;
            for grid in shape.grids {
                if chunk == 0 || chunk + grid.patches() > CHUNK_PATCHES {
                    size.chunks += 1;
                    chunk = 0;
                }
                chunk += grid.patches();
                size.largest = size.largest.max(chunk);
                size.patches += grid.patches();
                let [h, w] = [grid.h, grid.w].map(|side| usize::from(side).div_ceil(tower.side));
                size.windows += grid.t() * h * w;
                size.images += grid.t();
                size.pixels += grid.frame_patches();
            }
        }
        size
    }

    fn all(&self) -> [usize; 9] {
        let Size { tokens, targets, sequences, chunks, patches, largest, windows, images, pixels } = *self;
        [tokens, targets, sequences, chunks, patches, largest, windows, images, pixels]
    }

    /// Returns true if no quantity of this size is smaller than in `other`.
    pub fn covers(&self, other: &Size) -> bool {
        self.all().iter().zip(other.all()).all(|(a, b)| *a >= b)
    }

    /// Rounds the quantities up to multiples of powers of two, so that a larger number is never rounded to a smaller
    /// result. The increase is less than one part in `parts`, or less than a quarter for quantities of little effect.
    /// The number of chunks stays as it is.
    fn rounded(&self, parts: usize) -> Size {
        let to = |n: usize, parts: usize| n.next_multiple_of(1 << (n / parts).max(1).ilog2());
        let (up, few) = (|n| to(n, parts), |n| to(n, parts.min(FEW)));
        Size {
            tokens: up(self.tokens),
            targets: up(self.targets),
            sequences: few(self.sequences),
            chunks: self.chunks,
            patches: up(self.patches),
            largest: up(self.largest),
            windows: few(self.windows),
            images: few(self.images),
            pixels: up(self.pixels),
        }
    }
}

/// The micro-batches that no other micro-batch covers; one of them determines the run's peak memory. As long as there
/// are few, their sizes are exact. Otherwise each micro-batch represents all micro-batches of about its size, and
/// [`grown`] enlarges it to the largest of these.
pub struct Largest<'a> {
    tower: Tower,
    front: Vec<(Size, Vec<Shape<'a>>)>,
    parts: Option<usize>,
}

impl<'a> Largest<'a> {
    /// Creates an empty set of micro-batches for the model of `config`.
    pub fn new(config: &ModelConfig) -> Largest<'a> {
        Largest { tower: Tower::new(config), front: Vec::new(), parts: None }
    }

    /// Adds a micro-batch.
    pub fn push(&mut self, batch: Vec<Shape<'a>>) {
        self.add(Size::of(self.tower, batch.iter().copied()), batch);
    }

    fn add(&mut self, size: Size, batch: Vec<Shape<'a>>) {
        let size = self.parts.map_or(size, |parts| size.rounded(parts));
        if self.front.iter().any(|(other, _)| other.covers(&size)) {
            return;
        }
        self.front.retain(|(other, _)| !size.covers(other));
        self.front.push((size, batch));
        // Halving the granularity below two parts does not help.
        if self.front.len() > MOST && self.parts != Some(2) {
            self.parts = Some(self.parts.map_or(FINEST, |parts| parts / 2));
            std::mem::take(&mut self.front).into_iter().for_each(|(size, batch)| self.add(size, batch));
        }
    }

    /// Returns the remaining micro-batches with made-up content for the model of `config`, each as large as the size it
    /// represents.
    pub fn into_samples(self, config: &ModelConfig) -> Vec<Vec<Sample>> {
        let samples = |(size, batch)| -> Vec<Sample> {
            grown(self.tower, batch, &size).iter().map(|made| blank(config, made.shape())).collect()
        };
        self.front.into_iter().map(samples).collect()
    }
}

/// The micro-batches that decide how much memory a run takes, separately for each class of sizes.
pub struct LargestBySize<'a> {
    classes: Vec<SizeClass<Largest<'a>>>,
}

impl<'a> LargestBySize<'a> {
    /// Creates an empty set of micro-batches for the model of `config`, with a class for each of `sizes`, the numbers of
    /// tokens up to which the classes reach.
    pub fn new(config: &ModelConfig, sizes: &[usize]) -> LargestBySize<'a> {
        let class = |&tokens: &usize| SizeClass { tokens, batches: vec![Largest::new(config)] };
        LargestBySize { classes: sizes.iter().map(class).collect() }
    }

    /// Adds a micro-batch to the class of its size.
    pub fn push(&mut self, batch: Vec<Shape<'a>>) {
        let tokens: usize = batch.iter().map(|shape| shape.tokens).sum();
        let at = self.classes.partition_point(|class| class.tokens < tokens).min(self.classes.len() - 1);
        self.classes[at].batches.iter_mut().for_each(|largest| largest.push(batch.clone()));
    }

    /// Returns the remaining micro-batches of each class with made-up content; see [`Largest::into_samples`].
    pub fn into_samples(self, config: &ModelConfig) -> Vec<SizeClass<Vec<Sample>>> {
        let made = |class: SizeClass<Largest<'a>>| SizeClass {
            tokens: class.tokens,
            batches: class.batches.into_iter().flat_map(|largest| largest.into_samples(config)).collect(),
        };
        self.classes.into_iter().map(made).collect()
    }
}

/// The size of a made-up sample.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Made {
    tokens: usize,
    targets: usize,
    grids: Vec<Grid>,
}

impl Made {
    /// Returns the size as a `Shape`.
    pub fn shape(&self) -> Shape<'_> {
        Shape { tokens: self.tokens, targets: self.targets, grids: &self.grids }
    }

    /// Inserts an image at index `at`, with its vision start and vision end tokens.
    fn add(&mut self, tower: Tower, grid: Grid, at: usize) {
        self.tokens += grid.patches() / (tower.merge * tower.merge) + 2;
        self.grids.insert(at, grid);
    }
}

/// Returns a micro-batch that is at least as large as `size` and only slightly larger. This is `batch` itself if it is
/// large enough, else `batch` with additional tokens and images.
pub fn grown<'a>(tower: Tower, batch: impl IntoIterator<Item = Shape<'a>>, size: &Size) -> Vec<Made> {
    let made = |s: Shape<'_>| Made { tokens: s.tokens, targets: s.targets, grids: s.grids.to_vec() };
    let mut batch: Vec<Made> = batch.into_iter().map(made).collect();
    let now = |batch: &[Made]| Size::of(tower, batch.iter().map(Made::shape));
    if now(&batch).covers(size) {
        return batch;
    }
    enlarge_chunk(tower, &mut batch, size.largest);
    let more = size.sequences.saturating_sub(batch.len());
    batch.extend((0..more).map(|_| Made { tokens: 1, ..Made::default() }));
    let found = now(&batch);
    // An added image adds the same number to the patches and to the pixels.
    let patches = size.patches.saturating_sub(found.patches).max(size.pixels.saturating_sub(found.pixels));
    let windows = size.windows.saturating_sub(found.windows);
    let images = size.images.saturating_sub(found.images).max(usize::from(patches + windows > 0));
    if let Some(last) = batch.last_mut() {
        for k in (0..images).rev() {
            // The last image supplies the missing patches and windows, in as few patches as its windows allow.
            let side = tower.side;
            let wide = windows.saturating_sub(images - 1).max(patches.div_ceil(side * side)).max(1);
            let high = patches.div_ceil(side * wide).next_multiple_of(tower.merge).clamp(tower.merge, side);
            let [h, w] = if k == 0 { [high, side * wide] } else { [tower.merge; 2] };
            last.add(tower, Grid::image(h as u16, w as u16), last.grids.len());
        }
    }
    let tokens = size.tokens.saturating_sub(now(&batch).tokens);
    batch.iter_mut().take(1).for_each(|first| first.tokens += tokens);
    let mut targets = size.targets.saturating_sub(now(&batch).targets);
    for sample in &mut batch {
        let free = targets.min(sample.tokens - 1 - sample.targets);
        sample.targets += free;
        targets -= free;
    }
    batch.iter_mut().take(1).for_each(|first| {
        first.tokens += targets;
        first.targets += targets;
    });
    batch
}

/// Enlarges the largest chunk to at least `patches` patches. It adds a thin image after the chunk's last image, or,
/// if a single image is larger than a chunk, widens that image.
fn enlarge_chunk(tower: Tower, batch: &mut [Made], patches: usize) {
    let (mut chunk, mut largest, mut at) = (0, 0, (0, 0));
    for (i, sample) in batch.iter().enumerate() {
        for (j, grid) in sample.grids.iter().enumerate() {
            let n = grid.patches();
            chunk = if chunk == 0 || chunk + n > CHUNK_PATCHES { n } else { chunk + n };
            if chunk > largest {
                (largest, at) = (chunk, (i, j));
            }
        }
    }
    if largest == 0 || largest >= patches {
        return;
    }
    let sample = &mut batch[at.0];
    if largest > CHUNK_PATCHES {
        let grid = &mut sample.grids[at.1];
        let before = grid.patches();
        grid.w = patches.div_ceil(grid.t() * usize::from(grid.h)).next_multiple_of(tower.merge) as u16;
        sample.tokens += (grid.patches() - before) / (tower.merge * tower.merge);
    } else {
        let wide = (patches - largest).div_ceil(tower.merge).next_multiple_of(tower.merge);
        sample.add(tower, Grid::image(tower.merge as u16, wide as u16), at.1 + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes packs of 30,720 tokens from rows of a few hundred tokens. Half of the rows have an image. The random
    /// sequence is fixed.
    fn packs(count: usize) -> Vec<Vec<Made>> {
        let mut seed = 1u64;
        let mut random = move |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) as usize) % n
        };
        let mut pack = || {
            let (mut pack, mut room) = (Vec::new(), 30_720);
            loop {
                let mut row = Made { tokens: 60 + random(40) * random(40), ..Made::default() };
                row.targets = random(row.tokens - 1);
                if random(2) == 0 {
                    let grid = Grid::image(2 * (8 + random(40)) as u16, 2 * (8 + random(60)) as u16);
                    row.add(TOWER, grid, 0);
                }
                if row.tokens > room {
                    return pack;
                }
                room -= row.tokens;
                pack.push(row);
            }
        };
        (0..count).map(|_| pack()).collect()
    }

    const TOWER: Tower = Tower { side: 8, merge: 2 };

    fn size(batch: &[Made]) -> Size {
        Size::of(TOWER, batch.iter().map(Made::shape))
    }

    #[test]
    fn few_sizes_are_kept_as_they_are() {
        let packs = packs(40);
        let mut largest = Largest { tower: TOWER, front: Vec::new(), parts: None };
        packs.iter().for_each(|pack| largest.push(pack.iter().map(Made::shape).collect()));
        assert!(largest.front.len() > 4);
        for (wanted, pack) in largest.front {
            assert_eq!(wanted, Size::of(TOWER, pack.clone()));
            let made = grown(TOWER, pack.clone(), &wanted);
            assert_eq!(made.iter().map(Made::shape).collect::<Vec<_>>(), pack);
        }
    }

    #[test]
    fn of_many_sizes_few_are_left_that_cover_all_and_are_hardly_larger() {
        let packs = packs(3000);
        let mut largest = Largest { tower: TOWER, front: Vec::new(), parts: None };
        packs.iter().for_each(|pack| largest.push(pack.iter().map(Made::shape).collect()));
        let parts = largest.parts.unwrap();
        let left = largest.front;
        println!("{} of {} packs are left, rounded by a {parts}-th at most", left.len(), packs.len());
        assert!(left.len() <= MOST, "{}", left.len());
        let mut made = Vec::new();
        for (wanted, pack) in &left {
            let found = size(&grown(TOWER, pack.clone(), wanted));
            assert!(found.covers(wanted), "{found:?} is not {wanted:?}");
            // Adding a missing window also adds patches: a quarter of the patches of a full window.
            let allowed = |n: usize| n + n / parts + n / 16 + 1024;
            assert!(
                found.tokens <= allowed(wanted.tokens) && found.patches <= allowed(wanted.patches),
                "{found:?} {wanted:?}"
            );
            made.push(found);
        }
        assert!(packs.iter().all(|pack| made.iter().any(|made| made.covers(&size(pack)))));
    }

    #[test]
    fn rounding_never_turns_the_order_of_two_sizes_round() {
        for parts in [64, 8, 2] {
            let up = |n: usize| Size { tokens: n, ..Size::default() }.rounded(parts).tokens;
            for n in 1..5000 {
                assert!(up(n) >= n && up(n) <= up(n + 1) && up(n) - n <= n / parts, "{n} of {parts}");
            }
        }
    }
}
