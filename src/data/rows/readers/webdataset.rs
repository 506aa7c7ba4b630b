//! Reads rows from WebDataset tar files. The members of a row follow one another and have the same name up to the first
//! dot. Images become the row's images, the fields of a `.json` member become columns, and any other text becomes a
//! column named after its ending.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tar::Archive;

use super::json;
use super::row_source::{RowPosition, RowSink, RowSource};
use crate::rows::files::paths::is_image_file;
use crate::rows::forms::fields::{Fields, RawImage};
use crate::rows::forms::names::Names;
use crate::rows::{BadRow, Reason, RowResult};
use omr_base::error::{Error, Result};
use omr_base::files;

/// Maximum size of a row's members together, in bytes.
const LARGEST: u64 = 256 << 20;
/// Size of a block of a tar file.
const BLOCK: u64 = 512;

/// A tar file of rows.
pub struct WebDataset {
    /// Path of the file.
    pub path: PathBuf,
    /// Names of the columns.
    pub names: Names,
}

/// The members of one row, by ending.
struct TarRow {
    key: String,
    /// Byte at which the first member begins.
    offset: u64,
    members: Vec<(String, Vec<u8>)>,
}

impl WebDataset {
    /// Opens the tar file at byte `offset`, where a member begins.
    fn archive(&self, offset: u64) -> Result<Archive<BufReader<File>>> {
        let mut file = files::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::io(&self.path))?;
        let mut archive = Archive::new(BufReader::with_capacity(1 << 16, file));
        // Joined tar files contain the empty blocks of their ends.
        archive.set_ignore_zeros(true);
        Ok(archive)
    }

    fn broken(&self, error: std::io::Error) -> Error {
        Error::format(&self.path, format!("an incomplete or damaged tar file: {error}"))
    }

    /// Passes the rows from byte `offset` on to `take` until it returns false.
    fn rows(&self, offset: u64, mut take: impl FnMut(TarRow) -> Result<bool>) -> Result<()> {
        let mut archive = self.archive(offset)?;
        let broken = |error| self.broken(error);
        let (mut row, mut next, mut size): (Option<TarRow>, u64, u64) = (None, offset, 0);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            // The headers of a long name precede the header of its member, so a row begins where the last member ends.
            let start = next;
            next = offset + entry.raw_file_position() + entry.size().div_ceil(BLOCK) * BLOCK;
            let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
            let file_name = name.rsplit('/').next().unwrap_or_default();
            let Some((stem, ending)) = file_name.split_once('.').filter(|(stem, _)| !stem.is_empty()) else { continue };
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            if !kind.is_file() && !kind.is_hard_link() {
                return Err(Error::format(&self.path, format!("member {name} is neither a file nor a hard link")));
            }
            let key = format!("{}{stem}", &name[..name.len() - file_name.len()]);
            if row.as_ref().is_none_or(|row| row.key != key) {
                size = 0;
                if let Some(done) = row.replace(TarRow { key, offset: start, members: Vec::new() })
                    && !take(done)?
                {
                    return Ok(());
                }
            }
            let mut bytes = Vec::new();
            match entry.link_name().map_err(broken)?.filter(|_| kind.is_hard_link()) {
                Some(target) => bytes = self.member(&target)?,
                None => drop(entry.by_ref().take(LARGEST + 1).read_to_end(&mut bytes).map_err(broken)?),
            }
            size += bytes.len() as u64;
            if size > LARGEST {
                let what = format!("the row of member {name} has more than {LARGEST} bytes");
                return Err(Error::format(&self.path, what));
            }
            if let Some(row) = &mut row {
                row.members.push((ending.to_lowercase(), bytes));
            }
        }
        self.check_end()?;
        row.map_or(Ok(()), |row| take(row).map(drop))
    }

    /// Returns the content of the file that a hard link in the tar file names.
    fn member(&self, target: &Path) -> Result<Vec<u8>> {
        let mut archive = self.archive(0)?;
        let broken = |error| self.broken(error);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if entry.header().entry_type().is_file() && entry.path().is_ok_and(|path| path == target) {
                let mut bytes = Vec::new();
                entry.by_ref().take(LARGEST + 1).read_to_end(&mut bytes).map_err(broken)?;
                return Ok(bytes);
            }
        }
        Err(Error::format(&self.path, format!("a hard link names {}, which is not in the file", target.display())))
    }

    /// Errors if the file does not end with two empty blocks, as each complete tar file does.
    fn check_end(&self) -> Result<()> {
        let mut end = [0; 2 * BLOCK as usize];
        let mut file = files::open(&self.path).map_err(Error::io(&self.path))?;
        let read = file.seek(SeekFrom::End(-(end.len() as i64))).and_then(|_| file.read_exact(&mut end));
        if read.is_ok() && end.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        Err(Error::format(&self.path, "an incomplete tar file: its end mark (two empty blocks) is missing"))
    }

    fn fields(&self, row: TarRow) -> RowResult<Fields> {
        let (mut fields, mut images) = (Map::new(), Vec::new());
        for (ending, bytes) in row.members {
            let name = format!("{}.{ending}", row.key);
            if is_image_file(Path::new(&name)) {
                images.push(RawImage { bytes: Some(bytes.into()), path: Some(name), ..RawImage::default() });
            } else if ending == "json" {
                let json = json::parse(&self.path, &format!("member {name}"), &bytes);
                fields.extend(json.map_err(BadRow::of(Reason::BrokenRow))?);
            } else {
                match String::from_utf8(bytes) {
                    Ok(text) => drop(fields.insert(ending, Value::String(text.trim_end().to_owned()))),
                    // Other members, such as sound, are no columns.
                    Err(_) if !self.names.reads(&ending) => {}
                    Err(e) => {
                        let error = Error::format(&self.path, format!("member {name}: {}", e.utf8_error()));
                        return Err(BadRow::of(Reason::BrokenRow)(error));
                    }
                }
            }
        }
        fields.entry("id").or_insert(Value::String(row.key));
        Ok((self.names.rename(fields), Some(images).filter(|images| !images.is_empty())))
    }
}

impl RowSource for WebDataset {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        let mut index = 0;
        self.rows(0, |row| {
            if index >= range.end {
                return Ok(false);
            }
            if index >= range.start {
                let at = RowPosition { index: index as u32, offset: row.offset };
                take(at, self.fields(row))?;
            }
            index += 1;
            Ok(true)
        })
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let mut found = None;
        self.rows(at.offset, |row| {
            found = Some(self.fields(row));
            Ok(false)
        })?;
        found.ok_or_else(|| Error::format(&self.path, format!("no row {}", at.index + 1)))
    }

    fn columns(&self, most: usize) -> Result<Vec<(String, String)>> {
        let (mut columns, mut rows) = (BTreeMap::new(), 0);
        self.rows(0, |row| {
            for (ending, bytes) in row.members {
                let json = (ending == "json").then(|| json::parse(&self.path, "a member", &bytes).ok()).flatten();
                let is_image = is_image_file(Path::new(&format!("x.{ending}")));
                match json {
                    Some(json) => columns.extend(json.into_iter().map(|(name, _)| (name, "JSON"))),
                    None if is_image => columns.extend([("image".to_owned(), "bytes")]),
                    None => columns.extend([(ending, "text or bytes")]),
                }
            }
            rows += 1;
            Ok(rows < most)
        })?;
        Ok(columns.into_iter().map(|(name, kind)| (name, kind.to_owned())).collect())
    }
}
