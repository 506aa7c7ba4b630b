//! Assigns rows of the vision cache to images. The merger output of an image is kept until its space is needed.
//! Therefore the vision tower runs once for a prompt, even if its prefill is split into chunks and several rollouts
//! share it. This is host code without tensors.

use std::collections::HashMap;

use crate::engine::sequence::{ImageKey, ImageSpan};

#[derive(Debug)]
struct Entry {
    rows: Vec<u32>,
    last_used: u64,
}

/// The rows of the cache, each free or held by an image. The rows of one image need not be adjacent.
#[derive(Debug)]
pub struct VisionCache {
    /// Number of rows.
    pub capacity: usize,
    free: Vec<u32>,
    entries: HashMap<ImageKey, Entry>,
    step: u64,
}

impl VisionCache {
    /// Creates a cache with `capacity` free rows.
    pub fn new(capacity: usize) -> VisionCache {
        let free = (0..capacity as u32).rev().collect();
        VisionCache { capacity, free, entries: HashMap::new(), step: 0 }
    }

    /// Begins a step. Images required from now on stay until the next step.
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Makes sure that `image` has rows. Returns `Some(true)` if the rows are new and the tower must fill them,
    /// `Some(false)` if the rows already hold the image, and `None` if the other images of this step leave no room for
    /// `image`.
    pub fn require(&mut self, image: &ImageSpan) -> Option<bool> {
        if let Some(entry) = self.entries.get_mut(&image.key) {
            entry.last_used = self.step;
            return Some(false);
        }
        while self.free.len() < image.rows {
            let idle = self.entries.iter().filter(|(_, e)| e.last_used < self.step);
            let (&oldest, _) = idle.min_by_key(|(key, e)| (e.last_used, **key))?;
            if let Some(entry) = self.entries.remove(&oldest) {
                self.free.extend(entry.rows);
            }
        }
        let rows = self.free.split_off(self.free.len() - image.rows);
        self.entries.insert(image.key, Entry { rows, last_used: self.step });
        Some(true)
    }

    /// Returns the rows of an image that was required in this step.
    pub fn rows(&self, key: &ImageKey) -> Option<&[u32]> {
        self.entries.get(key).map(|e| &*e.rows)
    }

    /// Drops all images. Callers use it after the weights have changed.
    pub fn reset(&mut self) {
        *self = VisionCache { step: self.step, ..VisionCache::new(self.capacity) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: u8, rows: usize) -> ImageSpan {
        ImageSpan { key: [name; 32], start: 0, rows }
    }

    #[test]
    fn an_idle_image_makes_room_and_a_needed_one_stays() {
        let mut cache = VisionCache::new(10);
        cache.begin_step();
        assert_eq!(cache.require(&image(1, 4)), Some(true));
        assert_eq!(cache.require(&image(1, 4)), Some(false));
        assert_eq!(cache.require(&image(2, 6)), Some(true));
        assert_eq!(cache.require(&image(3, 1)), None);
        cache.begin_step();
        assert_eq!(cache.require(&image(2, 6)), Some(false));
        assert_eq!(cache.require(&image(3, 3)), Some(true));
        assert_eq!(cache.rows(&[1; 32]), None);
        let mut rows: Vec<u32> = [2, 3].iter().flat_map(|&k| cache.rows(&[k; 32]).unwrap().to_vec()).collect();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), 9);
    }
}
