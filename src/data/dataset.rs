//! Data sets of any size: indexed once, then read row by row as samples are asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::config::{Changed, DatasetConfig};
use crate::data::bad::{Bad, Read, RejectedRows};
use crate::data::decoded::Decoded;
use crate::data::encoder::Encoder;
use crate::data::index::Index;
use crate::data::indexing::{self, Indexed, Longest, SharedIds};
use crate::data::kept;
use crate::data::places::{Places, Source, changed};
use crate::data::read::{RowFile, epoch};
use crate::data::samples::{Made, Samples};
use crate::data::stamp::combined;
use crate::data::{ImageSource, Row, Seen};
use crate::error::{Error, Result};
use crate::identity::Found;
use crate::observe::Observer;

/// The data sets of a run.
pub struct Dataset {
    /// Sizes of the samples, in the order of one epoch, for the plan.
    pub index: Arc<Index>,
    /// Rows that are not used.
    pub rejected: RejectedRows,
    /// Ids that more than one row has.
    pub shared: SharedIds,
    /// What the rows that are used hold.
    pub seen: Seen,
    /// What the config means for data sets of this size, where it may not be what was meant.
    pub remarks: Vec<String>,
    /// True when no row was read: an earlier start of the run had left the index.
    pub warm: bool,
    /// Where the index is kept; none where nothing may be written.
    pub kept: Option<PathBuf>,
    rows: Arc<Rows>,
}

/// Rows by number.
struct Rows {
    sources: Vec<Source>,
    places: Places,
    /// What the picture files held, once the run has begun.
    decoded: OnceLock<Decoded>,
}

impl Dataset {
    /// Takes the index kept in the run directory `dir`, or, where there is none or the run is to be `fresh`, reads all
    /// rows to make one; nothing is written. Rows longer than `longest` are left out, as are bad ones.
    ///
    /// Errors when a file cannot be read; when more than `max_bad_rows`, a share, are bad; when no row is left; when a
    /// file is another than the kept index was made of.
    pub fn open(
        dir: &Path,
        entries: &[DatasetConfig],
        encoder: &Encoder,
        longest: Longest,
        max_bad_rows: f64,
        seed: u64,
        fresh: bool,
    ) -> Result<Dataset> {
        let files = RowFile::open(entries)?;
        let kept = kept::path(dir, &key(entries, encoder, longest));
        let found = if fresh { None } else { kept::read(&kept)? };
        let (indexed, warm) = match found {
            Some(indexed) => (indexed, true),
            None => (indexing::index(&files, encoder, longest)?, false),
        };
        let Indexed { sizes, places, rejected, shared, seen, signatures } = indexed;
        let of_index = signatures.iter().map(|signature| &signature.path);
        if !of_index.eq(files.iter().map(|file| &file.path)) {
            return Err(changed("the data sets' files", "those that the run began with"));
        }
        rejected.check(max_bad_rows)?;
        if sizes.is_empty() {
            let found = format!("{}, while all {} rows are longer", longest.tokens, rejected.rows);
            return Err(Error::input(longest.key, found, "room for the rows"));
        }
        let sources = files.into_iter().zip(signatures);
        let sources: Vec<Source> = sources.map(|(file, signature)| Source::new(file, signature)).collect();
        sources.iter().try_for_each(Source::check)?;
        let mut counts = vec![0; entries.len()];
        for (source, count) in sources.iter().zip(places.counts(sources.len())) {
            counts[source.file.set] += count;
        }
        for source in &sources {
            source.file.table().inspect(|table| table.copied_to(kept.parent().unwrap_or(dir), &source.signature.hash));
        }
        let order = epoch(entries, &counts, seed)?;
        let (index, rows) =
            (Arc::new(sizes.ordered(order)), Arc::new(Rows { sources, places, decoded: OnceLock::new() }));
        Ok(Dataset { index, rejected, shared, seen, remarks: Vec::new(), warm, kept: Some(kept), rows })
    }

    /// Keeps the index for the next start of the run, and a copy of rows that are costly to read one by one.
    pub fn keep(&self, observer: &dyn Observer) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let Rows { sources, places, .. } = &*self.rows;
        for source in sources {
            source.check()?;
            source.file.table().map_or(Ok(()), |table| table.copy(observer))?;
        }
        if self.warm {
            return Ok(());
        }
        let signatures = sources.iter().map(|source| source.signature.clone()).collect();
        kept::write(kept, &self.index, places, &self.rejected, &self.shared, &self.seen, signatures)
    }

    /// Has the content of picture files recorded beside the index when they are first decoded, and compared from then on. Every
    /// rank calls it.
    pub fn record_pictures(&self) -> Result<()> {
        let Rows { places, decoded, .. } = &*self.rows;
        if let (Some(kept), Some(pictures)) = (&self.kept, places.in_files()) {
            let folder = kept.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            // Of this index alone: another one may have another picture in the same place.
            let record = kept.with_extension(format!("{}.pictures", &self.hash()[..16]));
            let _ = decoded.set(Decoded::open(&record, pictures)?);
        }
        Ok(())
    }

    /// Remarks that an update takes some samples more than once, where it `takes` more than there are; `key` is why.
    pub fn remark_repeats(&mut self, key: &str, value: usize, takes: u64) {
        let len = self.index.len() as u64;
        if takes > len {
            let times = takes.div_ceil(len);
            let what =
                format!("{key} is {value}, and there are {len} samples: one update takes each up to {times} times");
            self.remarks.push(what);
        }
    }

    /// BLAKE3 of the content of all files, in their order, and of what the index makes of them, as hex: what two machines have
    /// alike that read the same rows and find the same pictures.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for source in &self.rows.sources {
            hasher.update(source.signature.hash.as_bytes());
        }
        self.index.hash(&mut hasher);
        for array in self.rows.places.arrays() {
            hasher.update(array);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Adds to `found` what the samples are made of.
    pub fn inputs(&self, found: &mut Found) -> Result<()> {
        for (number, Source { file, signature, .. }) in self.rows.sources.iter().enumerate() {
            found.add_file(Changed::Rows, number, &file.path, &signature.hash)?;
        }
        let [files, rows, offsets, hashes, stamps] = self.rows.places.arrays();
        let mut index = blake3::Hasher::new();
        self.index.hash(&mut index);
        for array in [files, rows, offsets, hashes] {
            index.update(array);
        }
        found.add(Changed::Rows, index.finalize().to_hex().to_string());
        found.add(Changed::Pictures, blake3::hash(stamps).to_hex().to_string());
        Ok(())
    }

    /// Names of the data sets' files, in their order.
    pub fn names(&self) -> Vec<&str> {
        self.rows.sources.iter().map(|source| source.file.name.as_str()).collect()
    }

    /// File and row of sample `i`, for messages.
    pub fn place(&self, i: usize) -> String {
        let place = self.rows.places.get(self.index.number(i));
        self.rows.sources[place.file].file.place(place.at.index as usize)
    }

    /// File and row of sample `i`, by number.
    pub fn row(&self, i: usize) -> (u32, u32) {
        let place = self.rows.places.get(self.index.number(i));
        (place.file as u32, place.at.index)
    }

    /// For people: what was read and what is left out, that ids are shared, and what the config means for it.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![self.seen.line()];
        notes.extend(self.rejected.line());
        if let SharedIds { count, example: Some(example) } = &self.shared {
            notes.push(format!(
                "{count} ids name several rows each, as that of {example} does; rows are told apart by file and number, and all are used"
            ));
        }
        notes.extend(self.remarks.iter().cloned());
        notes
    }

    /// What `of` says of each sample's row; all rows are read once. Errors where a file cannot be read or is another than was
    /// indexed.
    pub fn each<T: Copy>(&self, of: impl Fn(&Row) -> Option<T>) -> Result<Vec<Option<T>>> {
        let mut found: HashMap<(u32, u32), T> = HashMap::new();
        for (file, source) in self.rows.sources.iter().enumerate() {
            source.check()?;
            source.file.for_each(usize::MAX, |at, read| {
                match read {
                    Ok(row) => found.extend(of(&row).map(|of| ((file as u32, at.index), of))),
                    // Bad rows are no samples.
                    Err(bad) => drop(bad.of_row()?),
                }
                Ok(())
            })?;
        }
        Ok((0..self.index.len()).map(|i| found.get(&self.row(i)).copied()).collect())
    }

    /// The samples: each row read when it is asked for, made by `make`, which also gives the hash of its content.
    pub fn samples<T: Send + Sync>(&self, make: impl Fn(Row) -> Read<(T, u64)> + Send + Sync + 'static) -> Streamed<T> {
        Streamed { index: self.index.clone(), rows: self.rows.clone(), make: Box::new(make) }
    }
}

impl Rows {
    /// Replaces a picture, or the frames of a video, by what their files hold. Errors when that is not what was indexed.
    fn hold(&self, frames: &mut [ImageSource], row: &str, number: usize, stamp: u64) -> Result<()> {
        // What stands in its row is compared with it.
        if frames.iter().all(|frame| matches!(frame, ImageSource::Bytes { .. })) {
            return Ok(());
        }
        let (mut found, mut content) = (Vec::with_capacity(frames.len()), blake3::Hasher::new());
        let name = frames.first().map_or_else(|| row.to_owned(), |frame| frame.place(row));
        for frame in frames {
            // Read once: what is compared is what is decoded.
            let (held, stamp) = frame.held(row)?;
            content.update(&held.bytes(row)?);
            found.push(stamp);
            *frame = held;
        }
        let mut same = combined(&found) == stamp;
        if let (true, Some(decoded)) = (same, self.decoded.get()) {
            same = decoded.is_same(number, &content.finalize())?;
        }
        if same { Ok(()) } else { Err(changed(&name, "the picture file that was indexed")) }
    }
}

/// All that decides an index but the content of the rows.
fn key(entries: &[DatasetConfig], encoder: &Encoder, longest: Longest) -> String {
    let mut key = format!("{} {longest:?} {:?} {}\n", env!("CARGO_PKG_VERSION"), encoder.purpose, encoder.key);
    for entry in entries {
        let DatasetConfig { path, data_folder, data_type, limit, columns, .. } = entry;
        key.push_str(&format!("{path:?} {data_folder:?} {data_type:?} {limit:?} {columns:?}\n"));
    }
    key
}

/// Samples made when they are asked for.
pub struct Streamed<T> {
    index: Arc<Index>,
    rows: Arc<Rows>,
    make: Box<dyn Fn(Row) -> Read<(T, u64)> + Send + Sync>,
}

impl<T: Send + Sync> Samples<T> for Streamed<T> {
    /// Errors when the row's file or a picture's is another than was indexed.
    fn get(&self, i: usize) -> Result<Made<T>> {
        let number = self.index.number(i);
        let place = self.rows.places.get(number);
        let source = &self.rows.sources[place.file];
        source.check()?;
        let name = source.file.place(place.at.index as usize);
        let differs = || changed(&name, "the row that was indexed");
        let mut row = source.file.row(place.at)?.map_err(|bad| *bad.error)?;
        let media = self.index.pictures(number);
        let stamps = self.rows.places.stamps(media.clone());
        let spans = row.spans();
        if spans.len() != stamps.len() {
            return Err(differs());
        }
        let mut rest = &mut row.images[..];
        for (((len, _), stamp), number) in spans.into_iter().zip(stamps).zip(media) {
            let frames;
            (frames, rest) = rest.split_at_mut(len);
            self.rows.hold(frames, &row.place, number, *stamp)?;
        }
        let id = row.id.clone();
        match (self.make)(row) {
            Ok((sample, hash)) if hash == place.hash => Ok(Ok(Arc::new(sample))),
            Ok(_) => Err(differs()),
            Err(bad) => Ok(Err(Bad { id: Some(id), ..bad })),
        }
    }
}
