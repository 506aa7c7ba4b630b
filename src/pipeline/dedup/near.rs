//! Which rows of the same text have the same pictures by the tower's embeddings: exact, no neighbour is guessed. A row is
//! compared with all that stand for a group of those it may share its text with: first what is bright where, 72 products
//! from memory, and of the few that agree in this the embeddings, from disk.

use rayon::prelude::*;

use crate::config::DedupConfig;
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::pipeline::dedup::find::{Groups, Texts};
use crate::pipeline::dedup::hashes::Rows;
use crate::pipeline::dedup::picture::{LAYOUT, Layout, dot};
use crate::pipeline::dedup::tower::Embeddings;

/// Rows that a thread compares at least.
const LEAST: usize = 4096;

/// Compares rows by their embeddings.
pub struct Near<'a> {
    rows: &'a Rows,
    config: &'a DedupConfig,
    embeddings: Embeddings,
    texts: Texts<'a>,
}

impl<'a> Near<'a> {
    /// Errors where a picture has no embedding.
    pub fn new(rows: &'a Rows, config: &'a DedupConfig, embeddings: Embeddings) -> Result<Near<'a>> {
        for row in 0..rows.len() {
            (0..rows.looks(row).len()).try_for_each(|picture| embeddings.check(rows.embedding(row, picture)))?;
        }
        Ok(Near { rows, config, embeddings, texts: Texts::new(rows, config) })
    }

    /// Joins the rows of `buckets`, each of rows that may have the same text; how many were joined.
    pub fn join(&mut self, buckets: &[Vec<u32>], groups: &mut Groups, observer: &dyn Observer) -> Result<usize> {
        let (mut joined, mut done) = (0, 0);
        observer.begin("dedup: embeddings", "rows", buckets.iter().map(|bucket| bucket.len() as u64).sum(), 0);
        for bucket in buckets {
            let mut standing: Vec<(u32, Layout)> = Vec::new();
            for &row in bucket {
                if observer.stop_requested() {
                    return Err(Error::Stopped);
                }
                // Of rows that are the same by their hashes one stands for all.
                if groups.root(row) != row {
                    continue;
                }
                let layout = self.rows.looks(row as usize)[0].layout();
                match self.first(&standing, row, &layout)? {
                    Some(other) => {
                        groups.join(other, row);
                        joined += 1;
                    }
                    None => standing.push((row, layout)),
                }
            }
            done += bucket.len() as u64;
            observer.step(done, &[]);
        }
        observer.end();
        Ok(joined)
    }

    /// The first of the `standing` rows that `row` is the same as.
    fn first(&mut self, standing: &[(u32, Layout)], row: u32, layout: &Layout) -> Result<Option<u32>> {
        let mut from = 0;
        loop {
            let is_near =
                |(other, theirs): &(u32, Layout)| self.is_near(*other as usize, row as usize, dot(theirs, layout));
            let Some(at) = standing[from..].par_iter().with_min_len(LEAST).position_first(is_near) else {
                return Ok(None);
            };
            let other = standing[from + at].0;
            if self.texts.same(other as usize, row as usize)? {
                return Ok(Some(other));
            }
            from += at + 1;
        }
    }

    /// Whether all pictures of two rows are the same; the first ones' layouts go together by `layout`.
    fn is_near(&self, one: usize, other: usize, layout: f32) -> bool {
        let pairs = self.rows.looks(one).iter().zip(self.rows.looks(other));
        pairs.enumerate().all(|(i, (look, another))| {
            let layout = if i == 0 { layout } else { dot(&look.layout(), &another.layout()) };
            let tower = || f64::from(self.cosine(one, other, i)) >= self.config.embed_threshold;
            layout >= LAYOUT && tower() || look.is(another, self.config.hash_distance as u32)
        })
    }

    fn cosine(&self, one: usize, other: usize, picture: usize) -> f32 {
        let [one, other] = [one, other].map(|row| self.embeddings.read(self.rows.embedding(row, picture)));
        dot(&one, &other)
    }
}
